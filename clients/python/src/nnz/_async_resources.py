"""The parts of an `AsyncClient`; contracts as in `_resources`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _matrix_calls as matrix_calls
from nnz import _rules as rules
from nnz._async_handles import AsyncModel
from nnz._async_matrix import AsyncMatrix
from nnz._errors import ConnectError, NnzError, UnavailableError
from nnz._matrices import MatrixSource, VectorSource, pairs
from nnz._matrix_calls import Progress
from nnz._models import MatrixInfo, ModelInfo, ServerInfo, SparseVector
from nnz._sending import AsyncSend
from nnz._tensors import Array


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
        self,
        source: MatrixSource,
        *,
        name: str | None = None,
        progress: Progress | None = None,
        resume: str | None = None,
    ) -> AsyncMatrix:
        """Put a matrix on the server; the same content has the same id."""
        if matrix_calls.goes_in_pieces(source, progress, resume):
            plan = matrix_calls.in_pieces(source, name, progress, resume)
            info = await _carried(self._send, plan)
        else:
            info = await self._send(calls.put_matrix(source, name))
        return AsyncMatrix(self._send, info)

    async def get(self, matrix_id: str) -> AsyncMatrix:
        """A handle of a matrix that is there."""
        return AsyncMatrix(self._send, await self._send(calls.get_matrix(matrix_id)))

    async def list(self) -> list[MatrixInfo]:
        """All matrices."""
        return await self._send(calls.list_matrices())

    async def load(self, matrix_id: str) -> MatrixInfo:
        """Make it resident now instead of at its next use."""
        return await self._send(matrix_calls.reside(matrix_id, "load"))

    async def unload(self, matrix_id: str) -> MatrixInfo:
        """Free its memory; its next use loads it again."""
        return await self._send(matrix_calls.reside(matrix_id, "unload"))

    async def pin(self, matrix_id: str) -> MatrixInfo:
        """Keep it resident whatever else is loaded; for admins."""
        return await self._send(matrix_calls.reside(matrix_id, "pin"))

    async def unpin(self, matrix_id: str) -> MatrixInfo:
        """Let it go when others need the memory; for admins."""
        return await self._send(matrix_calls.reside(matrix_id, "unpin"))

    async def delete(self, matrix_id: str) -> None:
        """Remove one."""
        await self._send(calls.delete_matrix(matrix_id))


async def _carried(send: AsyncSend, plan: matrix_calls.Plan) -> MatrixInfo:
    """Send the calls of a plan and tell it what became of each."""
    try:
        call = next(plan)
        while True:
            try:
                answer = await send(call)
            except NnzError as error:
                call = plan.throw(error)
            else:
                call = plan.send(answer)
    except StopIteration as end:
        found: MatrixInfo = end.value
        return found


class AsyncOps:
    """Operations on matrices of the server, and on vectors sent with the call."""

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def apply(
        self,
        op: str,
        matrix: AsyncMatrix | str,
        other: AsyncMatrix | str | None = None,
        *,
        inputs: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> AsyncMatrix | dict[str, Array]:
        """Do an operation by its name on the server; see the blocking client."""
        ids = [None if one is None else rules.id_of(one) for one in (matrix, other)]
        made = await self._send(
            chain_calls.apply_op(
                op, str(ids[0]), ids[1], inputs or {}, name, parameters
            )
        )
        return AsyncMatrix(self._send, made) if isinstance(made, MatrixInfo) else made

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
