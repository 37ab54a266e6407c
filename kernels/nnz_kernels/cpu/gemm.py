"""Products of two dense arrays by the micro-kernel of ``microkernel``, on one thread.

NumPy's BLAS would use threads of its own, as many as there are cores, whatever the
caller asked for; several callers at once then slow each other down many times.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from nnz_kernels.arrays import HostArray, aligned_empty, aligned_zeros
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import SERIAL, readable
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu.microkernel import _product
from nnz_kernels.cpu.tasks import panels
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import LINE, round_up

#: Multiply-adds of one product up to which OpenBLAS stays on the calling thread (its
#: SMP_THRESHOLD_MIN x GEMM_MULTITHREAD_THRESHOLD); starting our own costs more there.
_SMALL = 2**18

_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Tables of a batch of products ``(m, k) @ (k, n)``."""

    height: int
    runs: int
    width: int
    table: HostArray
    tasks: HostArray
    offsets: HostArray
    masks: HostArray


def multiply(a: HostArray, b: HostArray) -> HostArray:
    """Return ``a @ b`` for arrays of at least two axes that broadcast."""
    if b.ndim == 2:  # one right-hand side for all: one tall product
        tall = multiply_batch(
            a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1]), b[None]
        )
        return tall.reshape(*a.shape[:-1], b.shape[-1])
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count = math.prod(batch)
    left = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(count, *a.shape[-2:])
    right = np.broadcast_to(b, (*batch, *b.shape[-2:])).reshape(count, *b.shape[-2:])
    return multiply_batch(left, right).reshape(*batch, a.shape[-2], b.shape[-1])


def multiply_batch(a: HostArray, b: HostArray) -> HostArray:
    """Return ``a @ b`` for ``(batch, m, k)`` and ``(batch, k, n)``."""
    batch, m, k = a.shape
    n = b.shape[2]
    if 0 in (batch, m, k, n):
        return aligned_zeros((batch, m, n), np.float32)
    if min(m, n) > 1 and m * k * n <= _SMALL:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.ascontiguousarray(np.matmul(a, b))
    plan = _plan(batch, m, k, n)
    packed = aligned_empty(batch * plan.runs * k * plan.height, np.float32)
    _pack_rows(readable(a), plan.height, packed)
    right = readable(b)
    if n != plan.width:
        right = aligned_empty((batch, k, plan.width), np.float32)
        right[:, :, :n] = b
        right[:, :, n:] = 0
    out = aligned_empty((batch, m, plan.width), np.float32)
    _product(
        plan.height, plan.tasks, 0, len(plan.tasks), plan.table, plan.offsets, packed,
        np.zeros(batch * plan.runs * plan.height, np.float32), right.reshape(-1),
        out.reshape(-1), plan.width, _NOTHING, plan.masks, np.float32(-np.inf),
        np.float32(np.inf),
    )  # fmt: skip
    return out if n == plan.width else np.ascontiguousarray(out[:, :, :n])


@functools.lru_cache(maxsize=64)
def _plan(batch: int, m: int, k: int, n: int) -> _Plan:
    height = min(TALLEST, 1 << (m - 1).bit_length())
    runs, width = -(-m // height), round_up(n, LINE)
    if k * width >= 2**31:
        raise ShapeError(f"a right-hand side of {k}x{n} passes int32 offsets")
    which, run = np.divmod(np.arange(batch * runs), runs)
    table = np.zeros((batch * runs, 5), np.int64)  # ROW, ROWS, OFFSET, COUNT, WEIGHT
    table[:, 0] = which * m + run * height
    table[:, 1] = np.minimum(height, m - run * height)
    table[:, 3] = k
    table[:, 4] = np.arange(batch * runs) * k * height
    # The last vectors of a row may be past n, within the width; none is masked.
    tasks = [
        (
            i * runs, (i + 1) * runs, i * k * width + at * LANES, at * LANES, vectors,
            at, 0, width,
        )
        for i in range(batch)
        for at, vectors in panels(width // LANES, WIDTHS[height])
    ]  # fmt: skip
    masks = np.full(width // LANES, (1 << LANES) - 1, np.uint16)
    offsets = (np.arange(k) * width).astype(np.int32)
    return _Plan(height, runs, width, table, np.array(tasks, np.int64), offsets, masks)


@numba.njit(**SERIAL)
def _pack_rows(a, height, out):  # type: ignore[no-untyped-def]
    """Write runs of rows tap by tap, zeros in rows beyond the last."""
    batch, m, k = a.shape
    at = 0
    for i in range(batch):
        for first in range(0, m, height):
            for row in range(height):
                for p in range(k):
                    value = np.float32(0)
                    if first + row < m:
                        value = a[i, first + row, p]
                    out[at + p * height + row] = value
            at += k * height


ENTRIES = (
    Entry(_pack_rows, ((types.float32[:, :, ::1], types.int64, types.float32[::1]),)),
)
