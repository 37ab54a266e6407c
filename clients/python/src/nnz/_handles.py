"""Things on the server, held by the caller: a model, a matrix, a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._calls import Call
from nnz._models import CgResult, JobInfo, MatrixInfo, ModelInfo, TensorSpec
from nnz._tensors import Array

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

T = TypeVar("T")


class Send(Protocol):
    """Sends a call and reads its answer."""

    def __call__(self, call: Call[T], /) -> T:
        """Do both, with retries."""
        ...


class Follow(Protocol):
    """Follows a stream of events, across connections."""

    def __call__(self, watch: Callable[[str], Call[T]], /) -> Generator[T, None, None]:
        """What each event says; `watch` makes the call from the last event's id."""
        ...


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


class Matrix:
    """A sparse matrix on the server; only vectors travel.

    ``A @ x`` and ``A.T @ y`` multiply. scipy's iterative solvers take it as it is, or
    as `as_linear_operator()`.

    Args:
        send: How calls are sent.
        info: What the server said about it.
        transposed: This is the transpose of the stored matrix.
    """

    #: numpy leaves ``x @ A`` to us instead of making an array of objects.
    __array_ufunc__ = None
    ndim = 2

    def __init__(self, send: Send, info: MatrixInfo, transposed: bool = False) -> None:
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
    def T(self) -> Matrix:  # noqa: N802 (numpy's name)
        """The transpose; nothing is sent or copied."""
        return Matrix(self._send, self.info, not self._transposed)

    def matvec(self, x: ArrayLike) -> Array:
        """``A x``: x of shape ``(n,)`` or ``(n, 1)``; the answer has the same form."""
        vector = rules.operand(self.shape, self.dtype, x)
        if vector.ndim == 2 and vector.shape[1] == 1:
            return self._product(vector[:, 0])[:, None]
        return self._product(rules.one_dimensional(vector))

    def rmatvec(self, y: ArrayLike) -> Array:
        """``A^T y``: y of shape ``(m,)`` or ``(m, 1)``."""
        return self.T.matvec(y)

    def matmat(self, x: ArrayLike) -> Array:
        """``A X``: X of shape ``(n, k)``."""
        operand = rules.operand(self.shape, self.dtype, x)
        return self._product(rules.two_dimensional(operand))

    def rmatmat(self, y: ArrayLike) -> Array:
        """``A^T Y``: Y of shape ``(m, k)``."""
        return self.T.matmat(y)

    def __matmul__(self, x: ArrayLike) -> Array:
        """``A @ x`` for a vector ``(n,)`` or the columns of ``(n, k)``."""
        return self._product(rules.operand(self.shape, self.dtype, x))

    def __rmatmul__(self, x: ArrayLike) -> Array:
        """``x @ A`` for a vector ``(m,)`` or the rows of ``(k, m)``."""
        return (self.T @ rules.transposed(x)).T

    def as_linear_operator(self) -> LinearOperator:
        """The matrix as scipy sees operators; needs scipy."""
        from scipy.sparse.linalg import LinearOperator

        operator: LinearOperator = LinearOperator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.rmatvec,
            matmat=self.matmat,
            rmatmat=self.rmatmat,
            dtype=self.dtype,
        )
        return operator

    def delete(self) -> None:
        """Remove it from the server."""
        self._send(calls.delete_matrix(self.id))

    def _product(self, x: Array) -> Array:
        return self._send(calls.product(self.id, x, transpose=self._transposed))

    def __repr__(self) -> str:
        """Id, shape and entries."""
        return rules.matrix_repr("Matrix", self.info, self._transposed)


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

    def result(self, timeout: float | None = None) -> CgResult:
        """Wait for the end and fetch what came out.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        rules.succeeded(self.wait(timeout).info)
        return rules.cg_result(self.info, self._send(calls.job_result(self.id)))

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
