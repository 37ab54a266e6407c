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
from nnz_kernels.cpu._frame import sealed
from nnz_kernels.cpu._math import NO_ACTIVATION
from nnz_kernels.cpu._micro import CONTINUED, UNFINISHED
from nnz_kernels.cpu._runtime import SERIAL, readable
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu.microkernel import PRODUCT, _product_call
from nnz_kernels.cpu.pack import REACH
from nnz_kernels.cpu.tasks import groups
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
    width: int
    runs: HostArray
    columns: HostArray
    table: HostArray
    tasks: HostArray
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
    tall = -(-m // plan.height)
    packed = aligned_empty(batch * tall * k * plan.height, np.float32)
    _pack_rows(readable(a), plan.height, packed)
    right = readable(b)
    if n != plan.width:
        right = aligned_empty((batch, k, plan.width), np.float32)
        right[:, :, :n] = b
        right[:, :, n:] = 0
    out = aligned_empty((batch, m, plan.width), np.float32)
    bias = np.zeros(len(plan.runs) * plan.height, np.float32)
    multiply = sealed(
        _product_call, PRODUCT, _NOTHING, plan.height, False, 0, plan.tasks, 0,
        len(plan.tasks), plan.runs, plan.columns, plan.table, packed, bias,
        right.reshape(-1), out.reshape(-1), plan.width, _NOTHING, plan.masks, _NOTHING,
        0, -np.inf, np.inf, NO_ACTIVATION,
    )  # fmt: skip
    multiply()
    return out if n == plan.width else np.ascontiguousarray(out[:, :, :n])


@functools.lru_cache(maxsize=64)
def _plan(batch: int, m: int, k: int, n: int) -> _Plan:
    height = min(TALLEST, 1 << (m - 1).bit_length())
    tall, width = -(-m // height), round_up(n, LINE)
    if batch * k * width >= 2**31:
        raise ShapeError(f"{batch} right-hand sides of {k}x{n} pass int32 offsets")
    parts = [(start, min(REACH, k - start)) for start in range(0, k, REACH)]
    runs = [
        (
            item * m + run * height, min(height, m - run * height), start, taps,
            ((item * tall + run) * k + start) * height, start,
            UNFINISHED * (start + taps < k) + CONTINUED * (start > 0),
        )
        for item in range(batch)
        for run in range(tall)
        for start, taps in parts
    ]  # fmt: skip
    # The last vectors of a row may be past n, within the width; none is masked.
    cut = groups(0, width // LANES, WIDTHS[height], width)
    each = tall * len(parts)
    tasks = [
        (
            item * each, (item + 1) * each, item * k * width + at * LANES, at * LANES,
            at * LANES, vectors, number, 0, width,
        )
        for item in range(batch)
        for at, vectors, number in cut
    ]  # fmt: skip
    return _Plan(
        height,
        width,
        np.array(runs, np.int32),
        (np.arange(k) % REACH).astype(np.uint16),
        (np.arange(k) * width).astype(np.int32),
        np.array(tasks, np.int32),
        np.full(width, -1, np.int32),
    )


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
