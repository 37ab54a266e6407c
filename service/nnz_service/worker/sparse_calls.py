"""Calls for operations on resident matrices, from parameters to a reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra import sparse_ops
from nnz_service.algebra.files import write_resident
from nnz_service.algebra.operator import MAX_RESULT, MatrixOperator
from nnz_service.algebra.row_parts import stacked
from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import InvalidInputError, OverloadedError
from nnz_service.keys import KeyFile
from nnz_service.repository import Blob, BlobStore, Owner, Repository
from nnz_service.servable import entry_type
from nnz_service.worker.calls import Params, reply_of, text_of
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.paired import operation_of
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.servables import Entry
from nnz_service.worker.sparse import (
    MATRICES,
    PRODUCTS,
    Known,
    SparseOperation,
)
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Order, Outcome, ticket


class Sparse:
    """Has operations run on the device, and stores the matrices that they make.

    Args:
        find: Gives what is resident under a name, and loads what is stored.
        scheduler: Runs them.
        blobs: Where matrices go.
    """

    def __init__(
        self,
        find: Callable[[Params], Awaitable[Entry]],
        scheduler: Scheduler,
        blobs: BlobStore,
    ) -> None:
        self._find = find
        self._scheduler = scheduler
        self._blobs = blobs
        self.known = Known()
        self._held = 0  # bytes of parts that wait for the others
        names = (*sparse_ops.OPERATIONS, *PRODUCTS)
        self._counters = {op: Counters() for op in names}

    async def answer(
        self, params: Params, tensors: Tensors, deadline: float | None
    ) -> Reply:
        """Answer one call.

        Of a matrix that was made the reply has the blob and what the catalog is to know
        of it: recording it, and to whom it belongs, is for who asked.

        Raises:
            ServiceError: What the caller did wrong, or why it cannot be done.
        """
        op = text_of(params, "op")
        if op not in PRODUCTS:
            sparse_ops.find(op)
        text_of(params, "matrix")
        names = [text_of(params, key) for key in MATRICES if key in params]
        operators = [await self.operator(name) for name in names]
        asked = self.operation(op, params, tensors, operators)
        outcome, matrix = await self.computed(asked, deadline, Order.of(params))
        if matrix is None:
            return reply_of(outcome, asked.estimate)
        return reply_of(outcome, {"matrix": await self.stored(matrix)})

    async def operator(self, name: str) -> MatrixOperator:
        """Return a matrix by its id, loaded if it was not.

        Raises:
            NotFoundError: There is none.
            InvalidInputError: It is a model.
        """
        entry = await self._find({"name": name})
        servable = entry.ready
        if not isinstance(servable, MatrixServable):
            raise InvalidInputError(f"{entry.name!r} is a {entry.kind}, not a matrix")
        return servable.operator

    def operation(
        self, op: str, params: Params, tensors: Tensors, operators: list[MatrixOperator]
    ) -> SparseOperation:
        """Describe an operation or a product with a dense operand."""
        return operation_of(self.known, op, params, tensors, operators)

    async def computed(
        self, asked: SparseOperation, deadline: float | None, order: Order
    ) -> tuple[Outcome, Csr[HostArray] | None]:
        """Run an operation, in parts where it is long; the matrix, if it gives one.

        Raises:
            OverloadedError: Parts of several take more memory than one may.
            ServiceError: Why it cannot be done.
        """

        async def run(one: SparseOperation) -> Outcome:
            counters = self._counters[asked.op]
            waiting = ticket(one, one.tensors, None, counters, deadline, order)
            waiting.begun = one is not asked
            return await asyncio.wrap_future(self._scheduler.submit(waiting))

        outcome = await run(asked)
        if not asked.parts:
            return outcome, asked.matrix
        seconds, matrix = await self._stacked(asked, run)
        return replace(outcome, work=outcome.work + seconds), matrix

    async def _stacked(
        self,
        asked: SparseOperation,
        run: Callable[[SparseOperation], Awaitable[Outcome]],
    ) -> tuple[float, Csr[HostArray]]:
        """Compute parts and let go of each; return their seconds, and one matrix."""
        parts, asked.parts = asked.parts[::-1], []
        done: list[Csr[HostArray]] = []
        seconds, held = 0.0, 0
        try:
            while parts:
                part = parts.pop()
                seconds += (await run(part)).work
                if part.matrix is not None:
                    done.append(part.matrix)
                    held += part.matrix.nbytes
                    self._held += part.matrix.nbytes
                    self._check_held(held)
            return seconds, await asyncio.to_thread(stacked, done)
        finally:
            self._held -= held

    def _check_held(self, mine: int) -> None:
        """Refuse to go on where all parts pass the bound that was meant for one."""
        if self._held > max(MAX_RESULT, mine):
            raise OverloadedError(
                f"long operations under way hold {self._held} bytes; the limit is "
                f"{MAX_RESULT}",
                retry_after=1.0,
            )

    async def stored(self, matrix: Csr[HostArray]) -> Mapping[str, Any]:
        """Write a matrix as a blob; return the blob and what it holds."""
        return await asyncio.to_thread(stored, matrix, self._blobs)


def stored(matrix: Csr[HostArray], blobs: BlobStore) -> Mapping[str, Any]:
    """Write a matrix as a blob; return the blob and what it holds."""
    path = blobs.staged()
    try:
        write_resident(matrix, path)
        blob = blobs.adopt(path)
    finally:
        path.unlink(missing_ok=True)
    return {
        "sha256": blob.sha256,
        "bytes": blob.bytes,
        "shape": list(matrix.shape),
        "nnz": matrix.nnz,
        "dtype": entry_type(matrix.data.dtype),
        "index_dtype": entry_type(matrix.indices.dtype),
    }


def recorded(
    repository: Repository, matrix: Csr[HostArray], name: str | None, owner: str
) -> dict[str, Any]:
    """Store a matrix that nobody waits for, for the key of this id; describe it.

    The same matrix again is the same one, so that doing it twice does no harm.

    Raises:
        TooLargeError: The key may not have so much.
    """
    made = stored(matrix, repository.blobs)
    sha256 = str(made["sha256"])
    blob = Blob(sha256, repository.blobs.path(sha256), int(made["bytes"]))
    key = KeyFile(repository.home).read().get(owner)
    most = None if key is None else key.quota.stored
    whose = Owner(owner, all=not owner, most=most)
    record, _ = repository.put_matrix(blob, made, name, whose)
    return record.to_json()
