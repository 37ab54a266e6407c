"""The parts of an `AsyncClient`; contracts as in `_resources`."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _rules as rules
from nnz._async_handles import AsyncFollow, AsyncJob, AsyncMatrix, AsyncModel, AsyncSend
from nnz._errors import ConnectError, UnavailableError
from nnz._matrices import MatrixSource, VectorSource, pairs
from nnz._models import MatrixInfo, ModelInfo, ServerInfo, SparseVector


class AsyncServer:
    """The server itself."""

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def ready(self) -> bool:
        """Whether it can take work now; False too when nothing answers."""
        try:
            await self._send(calls.ready())
        except (ConnectError, UnavailableError):
            return False
        return True

    async def metadata(self) -> ServerInfo:
        """Name, version and protocol extensions."""
        return await self._send(calls.metadata())

    async def stats(self) -> dict[str, Any]:
        """Counters."""
        return await self._send(calls.stats())

    async def devices(self) -> list[dict[str, Any]]:
        """Where it can compute, and why not elsewhere."""
        return await self._send(calls.devices())


class AsyncModels:
    """Neural networks, as ONNX files."""

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def put(
        self,
        name: str,
        source: str | os.PathLike[str] | bytes,
        *,
        version: str | int | None = None,
    ) -> AsyncModel:
        """Put a model on the server, ready for `infer` on return."""
        info = await self._send(calls.put_model(name, source, version))
        return AsyncModel(self._send, info)

    async def get(self, name: str, *, version: str | int | None = None) -> AsyncModel:
        """A handle of a model, with its plan; None takes the newest version."""
        return AsyncModel(self._send, await self._send(calls.get_model(name, version)))

    async def signature(
        self, name: str, *, version: str | int | None = None
    ) -> ModelInfo:
        """Inputs and outputs of a model, or of a matrix by its id."""
        return await self._send(calls.get_signature(name, version))

    async def list(self) -> list[ModelInfo]:
        """All models."""
        return await self._send(calls.list_models())

    async def load(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Make it resident again; None takes the newest version."""
        return await self._send(calls.load_model(name, version))

    async def unload(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Free its memory, of all versions when None; files stay."""
        return await self._send(calls.unload_model(name, version))

    async def delete(self, name: str, *, version: str | int | None = None) -> None:
        """Remove a version, or with None all of them."""
        await self._send(calls.delete_model(name, version))


class AsyncMatrices:
    """Sparse matrices."""

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def put(
        self, source: MatrixSource, *, name: str | None = None
    ) -> AsyncMatrix:
        """Put a matrix on the server; the same content has the same id."""
        info = await self._send(calls.put_matrix(source, name))
        return AsyncMatrix(self._send, info)

    async def get(self, matrix_id: str) -> AsyncMatrix:
        """A handle of a matrix that is there."""
        return AsyncMatrix(self._send, await self._send(calls.get_matrix(matrix_id)))

    async def list(self) -> list[MatrixInfo]:
        """All matrices."""
        return await self._send(calls.list_matrices())

    async def delete(self, matrix_id: str) -> None:
        """Remove one."""
        await self._send(calls.delete_matrix(matrix_id))


class AsyncOps:
    """Operations on sparse vectors that travel with the call."""

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def axpy(
        self,
        u: VectorSource,
        r: float,
        v: VectorSource,
        *,
        zeros: str = "keep",
        duplicates: str = "sum",
    ) -> SparseVector:
        """``u + r v`` in time of their entries; see the blocking client."""
        parameters = {"zeros": zeros, "duplicates": duplicates}
        return await self._send(calls.axpy(pairs(u, "u"), r, pairs(v, "v"), parameters))

    async def dot(
        self, u: VectorSource, v: VectorSource, *, duplicates: str = "sum"
    ) -> float:
        """Inner product, summed in float64."""
        parameters = {"duplicates": duplicates}
        return await self._send(calls.dot(pairs(u, "u"), pairs(v, "v"), parameters))


class AsyncJobs:
    """Work that takes longer than a request should."""

    def __init__(self, send: AsyncSend, follow: AsyncFollow) -> None:
        self._send = send
        self._follow = follow

    async def cg(
        self,
        matrix: AsyncMatrix | str,
        b: ArrayLike,
        *,
        x0: ArrayLike | None = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        preconditioner: str = "none",
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Solve ``A x = b`` by conjugate gradients; see the blocking client."""
        info = matrix.info if isinstance(matrix, AsyncMatrix) else None
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
        return AsyncJob(self._send, self._follow, await self._send(call))

    async def get(self, job_id: str) -> AsyncJob:
        """A handle of a job that was submitted."""
        return AsyncJob(
            self._send, self._follow, await self._send(calls.get_job(job_id))
        )

    async def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[AsyncJob]:
        """Jobs, newest first; see the blocking client."""
        infos = await self._send(calls.list_jobs(limit, status, kind, before))
        return [AsyncJob(self._send, self._follow, info) for info in infos]

    async def cancel(self, job_id: str) -> AsyncJob:
        """Ask a job to stop."""
        return AsyncJob(
            self._send, self._follow, await self._send(calls.cancel_job(job_id))
        )

    async def delete(self, job_id: str) -> None:
        """Forget a job and its result."""
        await self._send(calls.delete_job(job_id))
