"""Handles of the asynchronous client; contracts as in `_handles`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _rules as rules
from nnz._async_matrix import AsyncMatrix
from nnz._factors import AsyncFactors
from nnz._graphs import EigenResult, GraphResult
from nnz._models import JobInfo, ModelInfo, SolveResult, TensorSpec
from nnz._programs import LpResult
from nnz._sending import AsyncFollow, AsyncSend
from nnz._tensors import Array

#: What a job ends with, as its kind has it.
AsyncResult = (
    SolveResult
    | LpResult
    | GraphResult
    | EigenResult
    | AsyncMatrix
    | AsyncFactors
    | dict[str, AsyncMatrix | Array]
)


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
    ) -> AsyncResult:
        """Wait for the end and fetch what came out; see `nnz.Job.result`."""
        rules.succeeded((await self.wait(timeout)).info)
        if self.info.kind == "op":
            return AsyncMatrix(self._send, rules.made_by(self.info))
        if self.info.kind == "factorize":
            name = str(self.info.params.get("matrix"))
            matrix = await self._send(calls.get_matrix(name))
            return AsyncFactors(self._send, matrix, self.info.summary)
        outputs = await self._send(calls.job_result(self.id))
        if self.info.kind == "chain":
            made = chain_calls.matrices_of(self.info).items()
            return outputs | {n: AsyncMatrix(self._send, info) for n, info in made}
        return rules.result_of(self.info, outputs)

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
