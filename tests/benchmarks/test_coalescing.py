"""What it gains that products waiting for one matrix become one."""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np
import pytest
import scipy.sparse as sp

from nnz_kernels.backends import Backend
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.worker.batcher import Limits
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Order, ticket

pytestmark = pytest.mark.benchmark

SIZE, NNZ, CALLERS, EACH, ROUNDS = 4096, 1_000_000, 32, 20, 7


def test_spmv_into_spmm() -> None:
    """32 callers, each waiting for an answer; the bits are those of a lone product."""
    rng = np.random.default_rng(0)
    a = sp.csr_array(sp.random_array((SIZE, SIZE), density=NNZ / SIZE**2, rng=rng))
    a.sort_indices()
    matrix = Csr(a.indptr, a.indices, a.data, a.shape)
    servable = MatrixServable(MatrixOperator(matrix, Backend.CPU))
    vectors = rng.standard_normal((CALLERS, SIZE))
    lone = [servable.run({"x": x[np.newaxis]}, None)["y"][0] for x in vectors]
    for x, y in zip(vectors, lone, strict=True):
        np.testing.assert_allclose(y, a @ x, rtol=1e-12)

    apart, together = [], []
    for _ in range(ROUNDS):
        apart.append(_rate(servable, vectors, lone, alone=True))
        together.append(_rate(servable, vectors, lone, alone=False))

    gain = statistics.median(t / s for s, t in zip(apart, together, strict=True))
    print(
        f"\n{statistics.median(apart):.0f} products/s apart, "
        f"{statistics.median(together):.0f} together: {gain:.2f} times"
    )
    assert gain > 1


def _rate(
    servable: MatrixServable,
    vectors: np.ndarray,
    lone: list[np.ndarray],
    *,
    alone: bool,
) -> float:
    """Products a second with every caller's next one sent when the last is there."""
    scheduler, counters = Scheduler(Limits()), Counters()
    scheduler.start()
    order = Order(alone=alone, deterministic=True)

    async def call(number: int) -> None:
        x = vectors[number][np.newaxis]
        for _ in range(EACH):
            asked = ticket(servable, {"x": x}, None, counters, None, order)
            found = await asyncio.wrap_future(scheduler.submit(asked))
            assert np.array_equal(found.tensors["y"][0].view("u8"), bits[number])

    async def all_at_once() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(call(number) for number in range(CALLERS)))
        return time.perf_counter() - began

    # One thread for all callers, as the event loop of a worker is.
    bits = [y.view("u8") for y in lone]
    seconds = asyncio.run(all_at_once())
    scheduler.close()
    return CALLERS * EACH / seconds
