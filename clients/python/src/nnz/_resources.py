"""The parts of a `Client`: server, models, matrices, operations, jobs."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._errors import ConnectError, UnavailableError
from nnz._handles import Follow, Job, Matrix, Model, Send
from nnz._matrices import MatrixSource, VectorSource, pairs
from nnz._models import MatrixInfo, ModelInfo, ServerInfo, SparseVector


class Server:
    """The server itself."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def ready(self) -> bool:
        """Whether it can take work now; False too when nothing answers."""
        try:
            self._send(calls.ready())
        except (ConnectError, UnavailableError):
            return False
        return True

    def metadata(self) -> ServerInfo:
        """Name, version and protocol extensions."""
        return self._send(calls.metadata())

    def stats(self) -> dict[str, Any]:
        """Counters."""
        return self._send(calls.stats())

    def devices(self) -> list[dict[str, Any]]:
        """Where it can compute, and why not elsewhere."""
        return self._send(calls.devices())


class Models:
    """Neural networks, as ONNX files."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def put(
        self,
        name: str,
        source: str | os.PathLike[str] | bytes,
        *,
        version: str | int | None = None,
    ) -> Model:
        """Put a model on the server, ready for `infer` on return.

        Args:
            name: Letters, digits, ``.``, ``_`` and ``-``.
            source: Path of an ONNX file, streamed from disk, or its bytes.
            version: Digits; None takes the next free one.

        Raises:
            ImpossibleError: Not a valid model, or one with operators that the server
                cannot run; the message lists them all.
            TooLargeError: The file passes the server's limit.
        """
        return Model(self._send, self._send(calls.put_model(name, source, version)))

    def get(self, name: str, *, version: str | int | None = None) -> Model:
        """A handle of a model, with its plan; None takes the newest version.

        Raises:
            NotFoundError: There is no such model.
        """
        return Model(self._send, self._send(calls.get_model(name, version)))

    def signature(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Inputs and outputs of a model, or of a matrix by its id."""
        return self._send(calls.get_signature(name, version))

    def list(self) -> list[ModelInfo]:
        """All models."""
        return self._send(calls.list_models())

    def load(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Make it resident again; None takes the newest version."""
        return self._send(calls.load_model(name, version))

    def unload(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Free its memory, of all versions when None; files stay."""
        return self._send(calls.unload_model(name, version))

    def delete(self, name: str, *, version: str | int | None = None) -> None:
        """Remove a version, or with None all of them."""
        self._send(calls.delete_model(name, version))


class Matrices:
    """Sparse matrices."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def put(self, source: MatrixSource, *, name: str | None = None) -> Matrix:
        """Put a matrix on the server; the same content has the same id.

        Args:
            source: A scipy.sparse matrix or array of any format, or the path of a
                .npz (``scipy.sparse.save_npz``), .mtx or .mtx.gz file. float32 and
                float64 stay as they are; integers become float64.
            name: A label for people.

        Raises:
            TypeError: Not a matrix, or its values are complex.
            ImpossibleError: The file breaks the rules of its format.
        """
        return Matrix(self._send, self._send(calls.put_matrix(source, name)))

    def get(self, matrix_id: str) -> Matrix:
        """A handle of a matrix that is there.

        Raises:
            NotFoundError: There is no such matrix.
        """
        return Matrix(self._send, self._send(calls.get_matrix(matrix_id)))

    def list(self) -> list[MatrixInfo]:
        """All matrices."""
        return self._send(calls.list_matrices())

    def delete(self, matrix_id: str) -> None:
        """Remove one."""
        self._send(calls.delete_matrix(matrix_id))


class Ops:
    """Operations on sparse vectors that travel with the call.

    A vector is a pair ``(indices, values)``, in any order, or a scipy sparse vector.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def axpy(
        self,
        u: VectorSource,
        r: float,
        v: VectorSource,
        *,
        zeros: str = "keep",
        duplicates: str = "sum",
    ) -> SparseVector:
        """``u + r v`` in time of their entries, not of their dimension.

        Args:
            u: Its pairs come first in the answer, in their order.
            r: Factor.
            v: Indices that u lacks follow in the order of their first appearance.
            zeros: ``keep`` entries that cancelled, or ``drop_exact`` ones.
            duplicates: ``sum`` them, keep the ``last``, or make them an ``error``.
        """
        parameters = {"zeros": zeros, "duplicates": duplicates}
        return self._send(calls.axpy(pairs(u, "u"), r, pairs(v, "v"), parameters))

    def dot(
        self, u: VectorSource, v: VectorSource, *, duplicates: str = "sum"
    ) -> float:
        """Inner product, summed in float64."""
        parameters = {"duplicates": duplicates}
        return self._send(calls.dot(pairs(u, "u"), pairs(v, "v"), parameters))


class Jobs:
    """Work that takes longer than a request should."""

    def __init__(self, send: Send, follow: Follow) -> None:
        self._send = send
        self._follow = follow

    def cg(
        self,
        matrix: Matrix | str,
        b: ArrayLike,
        *,
        x0: ArrayLike | None = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        preconditioner: str = "none",
        idempotency_key: str | None = None,
    ) -> Job:
        """Solve ``A x = b`` by conjugate gradients, A symmetric positive definite.

        Args:
            matrix: On the server: a handle or an id.
            b: ``(n,)`` right-hand side.
            x0: ``(n,)`` first guess; zero when None.
            rtol: Stop when the residual is below ``max(rtol * norm(b), atol)``.
            atol: See rtol.
            maxiter: Most iterations; None lets the server decide (10 n).
            preconditioner: ``none`` or ``jacobi``.
            idempotency_key: Submitting twice with one key makes one job. Made anew
                for each call when None, so that retries are safe.
        """
        info = matrix.info if isinstance(matrix, Matrix) else None
        inputs, parameters = rules.cg_request(
            b,
            x0,
            info,
            {
                "matrix": matrix if isinstance(matrix, str) else matrix.id,
                "rtol": rtol,
                "atol": atol,
                "maxiter": maxiter,
                "preconditioner": preconditioner,
            },
        )
        call = calls.submit_job("cg", inputs, parameters, idempotency_key)
        return Job(self._send, self._follow, self._send(call))

    def get(self, job_id: str) -> Job:
        """A handle of a job that was submitted.

        Raises:
            NotFoundError: There is no such job.
        """
        return Job(self._send, self._follow, self._send(calls.get_job(job_id)))

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            status: Only queued, running, succeeded, failed or cancelled ones.
            kind: Only of this kind, such as ``cg``.
            limit: How many at most; 100 when None, up to 1000.
            before: Id of a job; only those that were submitted before it. The last one
                of a list gives the next page.

        Raises:
            NotFoundError: There is no job `before`.
        """
        infos = self._send(calls.list_jobs(limit, status, kind, before))
        return [Job(self._send, self._follow, info) for info in infos]

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop."""
        return Job(self._send, self._follow, self._send(calls.cancel_job(job_id)))

    def delete(self, job_id: str) -> None:
        """Forget a job and its result."""
        self._send(calls.delete_job(job_id))
