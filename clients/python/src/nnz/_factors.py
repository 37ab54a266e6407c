"""LU factors of a matrix, which stay on the server for further right-hand sides."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._calls import Call
from nnz._errors import ProtocolError
from nnz._models import JobInfo, MatrixInfo, SolveResult
from nnz._sending import AsyncSend, Send
from nnz._tensors import Array


def _made(info: MatrixInfo) -> Call[JobInfo]:
    return calls.submit_job("factorize", {}, {"matrix": info.id})


def _asked(
    info: MatrixInfo, b: ArrayLike, parameters: Mapping[str, Any]
) -> Call[JobInfo]:
    """A solve by the factors; they are made again if the server let go of them."""
    given = {"matrix": info.id, "method": "direct", **parameters}
    inputs, given = rules.solve_request(b, None, info, given)
    return calls.submit_job("solve", inputs, given)


def _solution(job: JobInfo, outputs: dict[str, Array]) -> SolveResult:
    found = rules.result_of(job, outputs)
    if not isinstance(found, SolveResult):
        raise ProtocolError(f"job {job.id} is of kind {job.kind!r}, not solve")
    return found


class _Held:
    """What is known of factors.

    Attributes:
        matrix: That was factored.
        entries: Stored in both triangles.
        bytes: That they take on the server.
        kept: They stay there; else they pass its budget and are made at each solve.
    """

    def __init__(self, matrix: MatrixInfo, summary: Mapping[str, Any]) -> None:
        self.matrix = matrix
        try:
            facts = summary["factors"]
            self.entries, self.bytes = int(facts["entries"]), int(facts["bytes"])
            self.kept = bool(facts["kept"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"the factors lack {error}") from error

    def __repr__(self) -> str:
        """The matrix and how full the factors are."""
        return f"{type(self).__name__}({self.matrix.id!r}, entries={self.entries})"


class Factors(_Held):
    """Solves with one matrix, each right-hand side in the time of two triangles.

    The server keeps factors within a budget of bytes and lets go of those that were not
    used for the longest time; a solve then makes them again.

    Args:
        send: How calls are sent.
        matrix: That was factored.
        summary: What the server said of the factors.
    """

    def __init__(
        self, send: Send, matrix: MatrixInfo, summary: Mapping[str, Any]
    ) -> None:
        super().__init__(matrix, summary)
        self._send = send

    @classmethod
    def make(cls, send: Send, matrix: MatrixInfo, timeout: float | None) -> Factors:
        """Have a matrix factored, and wait; see `Matrix.factorize`."""
        job = _ended(send, send(_made(matrix)), timeout)
        return cls(send, matrix, job.summary)

    def solve(
        self,
        b: ArrayLike,
        *,
        rtol: float = 1e-10,
        time_limit: float | None = None,
        timeout: float | None = None,
    ) -> SolveResult:
        """Solve ``A x = b`` and refine.

        Args:
            b: ``(n,)``, or ``(n, k)`` for k right-hand sides.
            rtol: Refine until the residual is at most ``rtol * norm(b)``.
            time_limit: Most seconds of computing; None for no limit.
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            ValueError: b does not fit the matrix.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        asked = _asked(self.matrix, b, {"rtol": rtol, "time_limit": time_limit})
        job = _ended(self._send, self._send(asked), timeout)
        return _solution(job, self._send(calls.job_result(job.id)))


class AsyncFactors(_Held):
    """Solves with one matrix; see `nnz.Factors`."""

    def __init__(
        self, send: AsyncSend, matrix: MatrixInfo, summary: Mapping[str, Any]
    ) -> None:
        super().__init__(matrix, summary)
        self._send = send

    @classmethod
    async def make(
        cls,
        send: AsyncSend,
        matrix: MatrixInfo,
        timeout: float | None,  # noqa: ASYNC109 (the same names as Factors.make)
    ) -> AsyncFactors:
        """Have a matrix factored, and wait."""
        job = await _async_ended(send, await send(_made(matrix)), timeout)
        return cls(send, matrix, job.summary)

    async def solve(
        self,
        b: ArrayLike,
        *,
        rtol: float = 1e-10,
        time_limit: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as Factors's)
    ) -> SolveResult:
        """Solve ``A x = b`` and refine; see `nnz.Factors.solve`."""
        asked = _asked(self.matrix, b, {"rtol": rtol, "time_limit": time_limit})
        job = await _async_ended(self._send, await self._send(asked), timeout)
        return _solution(job, await self._send(calls.job_result(job.id)))


def _ended(send: Send, job: JobInfo, timeout: float | None) -> JobInfo:
    deadline = rules.Deadline(timeout, now=time.monotonic())
    while not job.ended:
        wait = deadline.slice(job, None, now=time.monotonic())
        job = send(calls.get_job(job.id, wait))
    rules.succeeded(job)
    return job


async def _async_ended(send: AsyncSend, job: JobInfo, limit: float | None) -> JobInfo:
    deadline = rules.Deadline(limit, now=time.monotonic())
    while not job.ended:
        wait = deadline.slice(job, None, now=time.monotonic())
        job = await send(calls.get_job(job.id, wait))
    rules.succeeded(job)
    return job
