"""Handles of jobs that compute expressions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._async_handles import AsyncJob
from nnz._async_matrix import AsyncMatrix
from nnz._chain_calls import held, made_by_job
from nnz._expressions import Wanted
from nnz._handles import Job
from nnz._matrix import Matrix
from nnz._models import JobInfo
from nnz._sending import AsyncFollow, AsyncSend, Follow, Send
from nnz._tensors import Array


class ChainJob(Job):
    """A job that computes expressions.

    Args:
        send: How calls are sent.
        follow: How events are followed.
        info: The job as the server last described it.
        wanted: The expressions.
    """

    def __init__(
        self, send: Send, follow: Follow, info: JobInfo, wanted: Sequence[Wanted]
    ) -> None:
        super().__init__(send, follow, info)
        self._wanted = tuple(wanted)

    def results(self, timeout: float | None = None) -> list[Matrix | Array | float]:
        """Wait for the end and return what `Client.chain` would.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            JobFailedError: It failed; the message names the step.
            JobCancelledError: It was cancelled.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        rules.succeeded(self.wait(timeout).info)
        outputs = self._send(calls.job_result(self.id))
        made = made_by_job(self._wanted, self.info, outputs)
        return held(partial(Matrix, self._send), self._wanted, made)


class AsyncChainJob(AsyncJob):
    """A job that computes expressions; see `nnz.ChainJob`."""

    def __init__(
        self,
        send: AsyncSend,
        follow: AsyncFollow,
        info: JobInfo,
        wanted: Sequence[Wanted],
    ) -> None:
        super().__init__(send, follow, info)
        self._wanted = tuple(wanted)

    async def results(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as ChainJob)
    ) -> list[AsyncMatrix | Array | float]:
        """Wait for the end and return the results; see `nnz.ChainJob.results`."""
        rules.succeeded((await self.wait(timeout)).info)
        outputs = await self._send(calls.job_result(self.id))
        made = made_by_job(self._wanted, self.info, outputs)
        return held(partial(AsyncMatrix, self._send), self._wanted, made)
