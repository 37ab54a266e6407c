"""Things on the server, held by the caller: a model, a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _rules as rules
from nnz._factors import Factors
from nnz._graphs import EigenResult, GraphResult
from nnz._matrix import Matrix
from nnz._models import JobInfo, ModelInfo, SolveResult, TensorSpec
from nnz._programs import LpResult
from nnz._sending import Follow, Send
from nnz._tensors import Array

#: What a job ends with, as its kind has it.
Result = (
    SolveResult
    | LpResult
    | GraphResult
    | EigenResult
    | Matrix
    | Factors
    | dict[str, Matrix | Array]
)


class Model:
    """A model on the server.

    Args:
        send: How calls are sent.
        info: What the server said about it.
    """

    def __init__(self, send: Send, info: ModelInfo) -> None:
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

    def infer(
        self,
        feeds: Mapping[str, ArrayLike] | ArrayLike,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """Apply the model.

        Args:
            feeds: Arrays by input name, or the one array of a model with one input.
                Lists and scalars take the type that the model declares; arrays are
                sent as they are.
            outputs: Names of the outputs wanted; None asks for all of them.
        """
        named = rules.feeds(self.info, feeds)
        return self._send(calls.infer(self.name, named, outputs, self.version or None))

    def __repr__(self) -> str:
        """Name and version."""
        return f"Model({self.name!r}, version={self.version!r})"


class Job:
    """Work that the server does in its own time.

    Args:
        send: How calls are sent.
        follow: How events are followed.
        info: The job as the server last described it.
    """

    def __init__(self, send: Send, follow: Follow, info: JobInfo) -> None:
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

    def refresh(self) -> Job:
        """Ask the server how it stands."""
        self.info = self._send(calls.get_job(self.id))
        return self

    def wait(
        self,
        timeout: float | None = None,
        progress: Callable[[JobInfo], object] | None = None,
    ) -> Job:
        """Wait until the job has ended, well or badly.

        Args:
            timeout: Seconds; None waits as long as it takes.
            progress: Called with each new description, about once a second.

        Raises:
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        deadline = rules.Deadline(timeout, now=time.monotonic())
        while not self.info.ended:
            wait = deadline.slice(self.info, progress, now=time.monotonic())
            self.info = self._send(calls.get_job(self.id, wait))
            if progress is not None:
                progress(self.info)
        return self

    def events(self) -> Generator[JobInfo, None, None]:
        """Descriptions of the job, now and at each change, until it has ended.

        Where a connection breaks it goes on in another, as the retries allow.
        """
        with closing(self._follow(partial(calls.job_events, self.id))) as told:
            for info in told:
                self.info = info
                yield info

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end and fetch what came out.

        Of `solve` and `cg` that is a `SolveResult`, of `lp` an `LpResult`, of `op` a
        handle of the matrix that was made, of `factorize` its `Factors`, of `graph` a
        `GraphResult`, of `eigs` an `EigenResult`, of `chain` a dict of handles and
        arrays by step: `ChainJob.results` has them as they were asked for.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        rules.succeeded(self.wait(timeout).info)
        if self.info.kind == "op":
            return Matrix(self._send, rules.made_by(self.info))
        if self.info.kind == "factorize":
            matrix = self._send(calls.get_matrix(str(self.info.params.get("matrix"))))
            return Factors(self._send, matrix, self.info.summary)
        outputs = self._send(calls.job_result(self.id))
        if self.info.kind == "chain":
            made = chain_calls.matrices_of(self.info).items()
            return outputs | {name: Matrix(self._send, info) for name, info in made}
        return rules.result_of(self.info, outputs)

    def cancel(self) -> Job:
        """Ask it to stop; one that has ended stays as it is."""
        self.info = self._send(calls.cancel_job(self.id))
        return self

    def delete(self) -> None:
        """Forget it and its result."""
        self._send(calls.delete_job(self.id))

    def __repr__(self) -> str:
        """Id, kind and status."""
        return f"Job({self.id!r}, kind={self.info.kind!r}, status={self.status!r})"
