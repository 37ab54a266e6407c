"""Handles of the asynchronous client; contracts as in `_handles`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, TypeVar

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._calls import Call
from nnz._models import CgResult, JobInfo, MatrixInfo, ModelInfo, TensorSpec
from nnz._tensors import Array

T = TypeVar("T")


class AsyncSend(Protocol):
    """Sends a call and reads its answer."""

    def __call__(self, call: Call[T], /) -> Awaitable[T]:
        """Do both, with retries."""
        ...


class AsyncFollow(Protocol):
    """Follows a stream of events, across connections."""

    def __call__(self, watch: Callable[[str], Call[T]], /) -> AsyncGenerator[T, None]:
        """What each event says; `watch` makes the call from the last event's id."""
        ...


class AsyncModel:
    """A model on the server; see `nnz.Model`."""

    def __init__(self, send: AsyncSend, info: ModelInfo) -> None:
        self._send = send
        self.info = info

    @property
    def name(self) -> str:
        """Name that it was put under."""
        return self.info.name

    @property
    def version(self) -> str:
        """Version that this handle is about."""
        return self.info.version

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` takes."""
        return self.info.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` gives."""
        return self.info.outputs

    async def infer(
        self,
        feeds: Mapping[str, ArrayLike] | ArrayLike,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """Apply the model to arrays by input name, or to one bare array."""
        named = rules.feeds(self.info, feeds)
        return await self._send(
            calls.infer(self.name, named, outputs, self.version or None)
        )

    def __repr__(self) -> str:
        """Name and version."""
        return f"AsyncModel({self.name!r}, version={self.version!r})"


class AsyncMatrix:
    """A sparse matrix on the server; see `nnz.Matrix`.

    ``await (A @ x)`` and ``await A.matvec(x)`` multiply; several at once are answered
    together.
    """

    __array_ufunc__ = None
    ndim = 2

    def __init__(
        self, send: AsyncSend, info: MatrixInfo, transposed: bool = False
    ) -> None:
        self._send = send
        self.info = info
        self._transposed = transposed
        self.shape = info.shape[::-1] if transposed else info.shape
        self.dtype = rules.matrix_dtype(info)

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.info.nnz

    @property
    def T(self) -> AsyncMatrix:  # noqa: N802 (numpy's name)
        """The transpose; nothing is sent or copied."""
        return AsyncMatrix(self._send, self.info, not self._transposed)

    async def matvec(self, x: ArrayLike) -> Array:
        """``A x``: x of shape ``(n,)`` or ``(n, 1)``; the answer has the same form."""
        vector = rules.operand(self.shape, self.dtype, x)
        if vector.ndim == 2 and vector.shape[1] == 1:
            return (await self._product(vector[:, 0]))[:, None]
        return await self._product(rules.one_dimensional(vector))

    async def rmatvec(self, y: ArrayLike) -> Array:
        """``A^T y``: y of shape ``(m,)`` or ``(m, 1)``."""
        return await self.T.matvec(y)

    async def matmat(self, x: ArrayLike) -> Array:
        """``A X``: X of shape ``(n, k)``."""
        operand = rules.operand(self.shape, self.dtype, x)
        return await self._product(rules.two_dimensional(operand))

    async def rmatmat(self, y: ArrayLike) -> Array:
        """``A^T Y``: Y of shape ``(m, k)``."""
        return await self.T.matmat(y)

    async def __matmul__(self, x: ArrayLike) -> Array:
        """``A @ x`` for a vector ``(n,)`` or the columns of ``(n, k)``."""
        return await self._product(rules.operand(self.shape, self.dtype, x))

    async def __rmatmul__(self, x: ArrayLike) -> Array:
        """``x @ A`` for a vector ``(m,)`` or the rows of ``(k, m)``."""
        return (await (self.T @ rules.transposed(x))).T

    async def delete(self) -> None:
        """Remove it from the server."""
        await self._send(calls.delete_matrix(self.id))

    async def _product(self, x: Array) -> Array:
        return await self._send(calls.product(self.id, x, transpose=self._transposed))

    def __repr__(self) -> str:
        """Id, shape and entries."""
        return rules.matrix_repr("AsyncMatrix", self.info, self._transposed)


class AsyncJob:
    """Work that the server does in its own time; see `nnz.Job`."""

    def __init__(self, send: AsyncSend, follow: AsyncFollow, info: JobInfo) -> None:
        self._send = send
        self._follow = follow
        self.info = info

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    @property
    def status(self) -> str:
        """Queued, running, succeeded, failed or cancelled, when last heard of."""
        return self.info.status

    @property
    def progress(self) -> Mapping[str, Any]:
        """Numbers of the solver, when last heard of."""
        return self.info.progress

    async def refresh(self) -> AsyncJob:
        """Ask the server how it stands."""
        self.info = await self._send(calls.get_job(self.id))
        return self

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as Job.wait)
        progress: Callable[[JobInfo], object] | None = None,
    ) -> AsyncJob:
        """Wait until the job has ended, well or badly; see `nnz.Job.wait`."""
        deadline = rules.Deadline(timeout, now=time.monotonic())
        while not self.info.ended:
            wait = deadline.slice(self.info, progress, now=time.monotonic())
            self.info = await self._send(calls.get_job(self.id, wait))
            if progress is not None:
                progress(self.info)
        return self

    async def events(self) -> AsyncGenerator[JobInfo, None]:
        """Descriptions of the job at each change; see `nnz.Job.events`."""
        follow = partial(calls.job_events, self.id)
        async with aclosing(self._follow(follow)) as told:
            async for info in told:
                self.info = info
                yield info

    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as Job.result)
    ) -> CgResult:
        """Wait for the end and fetch what came out; see `nnz.Job.result`."""
        rules.succeeded((await self.wait(timeout)).info)
        return rules.cg_result(self.info, await self._send(calls.job_result(self.id)))

    async def cancel(self) -> AsyncJob:
        """Ask it to stop; one that has ended stays as it is."""
        self.info = await self._send(calls.cancel_job(self.id))
        return self

    async def delete(self) -> None:
        """Forget it and its result."""
        await self._send(calls.delete_job(self.id))

    def __repr__(self) -> str:
        """Id, kind and status."""
        kind, status = self.info.kind, self.status
        return f"AsyncJob({self.id!r}, kind={kind!r}, status={status!r})"
