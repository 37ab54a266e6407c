"""An operation cut into parts that each take a moment, and put together again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import keep
from nnz_service.algebra.operands import Operands

_MOST_32 = 2**31 - 1

#: Operations whose rows depend on the same rows of their operands, and of a product on
#: the whole second one.
BY_ROWS = frozenset({"spgemm", "add", "scale", "sddmm"})


def cuts_of(op: str, given: Operands, parts: int) -> list[slice]:
    """Return runs of rows of the result that take about equally long.

    Args:
        op: One of `BY_ROWS`.
        given: Its operands.
        parts: Runs at most.
    """
    done = _work(op, given)
    # A row costs a little even where it is empty.
    done = done + np.arange(done.size)
    goals = done[-1] * np.arange(1, parts) // parts
    edges = np.unique([0, *np.searchsorted(done, goals).tolist(), given.a.shape[0]])
    return [slice(*pair) for pair in itertools.pairwise(edges.tolist())]


def settled(op: str, given: Operands) -> Operands:
    """Return operands of which no part converts anything.

    What every part takes whole, the second factor of `spgemm`, y of `sddmm` or the
    columns of `scale`, a device keeps from the first part to the last. Pairs of complex
    numbers are converted by each part.

    Raises:
        InvalidInputError: It is missing or has other axes.
    """
    if op == "add":
        a, b = given.pair()
        return replace(given, a=a, b=b)
    if op == "spgemm":
        a, b = given.pair()
        keep(given.kernels, b.indptr, b.indices, b.data)
        return replace(given, a=a, b=b)
    whole = {"sddmm": "y", "scale": "columns"}[op]
    if given.paired or (op == "scale" and whole not in given.tensors):
        return given
    x = given.dense(whole, ndim=2 if op == "sddmm" else 1)
    keep(given.kernels, x)
    return replace(given, tensors={**given.tensors, whole: x})


def rows_of(op: str, given: Operands, rows: slice) -> Operands:
    """Return the operands of a run of rows of the result."""
    part = replace(given, a=_cut(given.a, rows))
    if op == "add":
        return replace(part, b=_cut(given.other, rows))
    if op == "spgemm":
        mask = None if given.mask is None else _cut(given.mask, rows)
        return replace(part, mask=mask)
    side = {"scale": "rows", "sddmm": "x"}[op]
    if side not in given.tensors:
        return part
    tensors = {**given.tensors, side: given.tensors[side][rows]}
    return replace(part, tensors=tensors)


def stacked(parts: Sequence[Csr[HostArray]]) -> Csr[HostArray]:
    """Return the matrix whose rows are those of the parts, one below the other."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.nnz for part in parts)])
    kind = parts[0].indices.dtype if ends[-1] <= _MOST_32 else np.dtype(np.int64)
    indptr = [part.indptr[1:].astype(np.int64) for part in parts]
    indptr = [one + end for one, end in zip(indptr, ends[:-1], strict=True)]
    return Csr(
        np.concatenate([[0], *indptr]).astype(kind),
        np.concatenate([part.indices for part in parts]).astype(kind, copy=False),
        np.concatenate([part.data for part in parts]),
        (sum(part.shape[0] for part in parts), parts[0].shape[1]),
    )


def _work(op: str, given: Operands) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the work before each row, and behind the last (m + 1,)."""
    a = given.a
    if op == "spgemm":
        lengths = np.diff(given.other.indptr).astype(np.int64)
        done = np.concatenate([[0], np.cumsum(lengths[a.indices])])
        return np.asarray(done[a.indptr])
    done = a.indptr.astype(np.int64)
    return done + given.other.indptr if op == "add" else done


def _cut(a: Csr[HostArray], rows: slice) -> Csr[HostArray]:
    start, stop = int(a.indptr[rows.start]), int(a.indptr[rows.stop])
    return Csr(
        a.indptr[rows.start : rows.stop + 1] - a.indptr[rows.start],
        a.indices[start:stop],
        a.data[start:stop],
        (rows.stop - rows.start, a.shape[1]),
    )
