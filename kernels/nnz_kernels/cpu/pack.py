"""Packed weights of the product kernel: runs of rows that share their columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import ConvSpec
from nnz_kernels.arrays import HostArray, aligned_empty
from nnz_kernels.cpu._micro import (
    BASE,
    CONTINUED,
    COUNT,
    PART,
    ROW,
    ROWS,
    TAP,
    UNFINISHED,
    WEIGHT,
)
from nnz_kernels.cpu._simd import TALLEST

#: Columns that one run can name: its indices are 16 bits wide and count from its base.
REACH = 1 << 16


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights in the order in which the micro-kernel reads them.

    Attributes:
        height: Rows of a tile; the last run of a group may have fewer.
        runs: One int32 row a run, with the columns that ``_micro`` names.
        columns: Input columns ``(channel, ky, kx)`` of every kept block, uint16,
            counted from the base of their run.
        weights: ``height`` weights a column, zero in rows beyond the last.
        bias: ``height`` values a run.
        nnz: Weights multiplied, without those of rows beyond the last.
        chunks: Parts into which every sum is cut; the runs of a part follow each other,
            and all parts have as many.
    """

    height: int
    runs: HostArray
    columns: HostArray
    weights: HostArray
    bias: HostArray
    nnz: int
    chunks: int

    @property
    def nbytes(self) -> int:
        """Bytes held for weights and indices."""
        arrays = (self.runs, self.columns, self.weights, self.bias)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True)
class _Part:
    """The runs of some columns; their places count from the start of the part."""

    runs: HostArray
    columns: HostArray
    weights: HostArray
    nnz: int


def pack(
    weights: HostArray,
    bias: HostArray | None,
    spec: ConvSpec,
    block: int | None,
    reach: int = REACH,
) -> Packed:
    """Pack blocks of *block* rows, counted from the first of each group.

    Args:
        weights: ``(oc, ic / groups, kh, kw)`` float32.
        bias: ``(oc,)`` or None.
        spec: Says the groups.
        block: Rows that share their columns; None keeps every column.
        reach: Columns of one part of a sum, at most ``REACH``.
    """
    a_group = weights.shape[0] // spec.groups
    widest = 1 << (a_group - 1).bit_length()
    shared = min(TALLEST if block is None else block, widest)
    height = min(shared, TALLEST)
    blocks = -(-a_group // shared)
    rows = weights.reshape(spec.groups, a_group, -1)
    size = rows.shape[2]
    if a_group % shared:
        tall = np.zeros((spec.groups, blocks * shared, size), np.float32)
        tall[:, :a_group] = rows
        rows = tall
    rows = rows.reshape(-1, shared, size)
    parts = []
    for start in range(0, size, reach):
        cut = rows[:, :, start : start + reach]
        part = _pack_columns(cut, height, a_group, block is None)
        group = part.runs[:, ROW] // a_group
        part.runs[:, BASE] = group * size + start
        part.runs[:, PART] = (UNFINISHED if start + reach < size else 0) + (
            CONTINUED if start else 0
        )
        parts.append(part)
    runs = _join_runs(parts)
    return Packed(
        height,
        runs,
        np.concatenate([part.columns for part in parts]),
        _join([part.weights for part in parts]),
        _biases(runs, bias, height),
        sum(part.nnz for part in parts),
        len(parts),
    )


def _pack_columns(rows: HostArray, height: int, a_group: int, dense: bool) -> _Part:
    """Pack ``(blocks, shared, columns)``; every group is a whole number of blocks."""
    blocks, shared, size = rows.shape
    in_group = -(-a_group // shared)
    if dense:
        counts = np.full(blocks, size)
        taps = np.zeros(blocks, np.int64)
        at = np.arange(blocks) * size
        columns = np.arange(size)
        values = np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1, shared)
    else:
        kept = (rows != 0).any(axis=1)
        counts = kept.sum(axis=1)
        taps = at = np.concatenate([[0], np.cumsum(counts)[:-1]])
        which, columns = np.nonzero(kept)
        values = rows[which, :, columns]
    # A block wider than a tile is several runs, which name the same columns.
    tiles = shared // height
    split = values.reshape(-1, tiles, height).transpose(1, 0, 2)
    block, tile = (a.reshape(-1) for a in np.indices((blocks, tiles)))
    local = block % in_group * shared + tile * height
    runs = np.zeros((block.size, 7), np.int64)
    runs[:, ROW] = block // in_group * a_group + local
    runs[:, ROWS] = np.minimum(height, a_group - local)
    runs[:, TAP] = taps[block]
    runs[:, COUNT] = counts[block]
    runs[:, WEIGHT] = (tile * len(values) + at[block]) * height
    runs = runs[runs[:, ROWS] > 0]
    nnz = int((runs[:, COUNT] * runs[:, ROWS]).sum())
    return _Part(runs, columns.astype(np.uint16), split.reshape(-1), nnz)


def _join_runs(parts: list[_Part]) -> HostArray:
    """Return all runs, with places that count from the first part."""
    taps = weights = 0
    for part in parts:
        part.runs[:, TAP] += taps
        part.runs[:, WEIGHT] += weights
        taps += part.columns.size
        weights += part.weights.size
    return np.concatenate([part.runs for part in parts]).astype(np.int32)


def _biases(runs: HostArray, bias: HostArray | None, height: int) -> HostArray:
    """Return the bias of every run; the later parts of a sum have none."""
    packed = np.zeros((len(runs), height), np.float32)
    if bias is not None:
        row = np.minimum(runs[:, ROW, None] + np.arange(height), bias.size - 1)
        real = np.arange(height) < runs[:, ROWS, None]
        first = (runs[:, PART, None] & CONTINUED) == 0
        packed = np.where(real & first, bias[row], 0).astype(np.float32)
    return packed.reshape(-1)


def _join(values: list[HostArray]) -> HostArray:
    """Return the pieces as one aligned array."""
    out = aligned_empty(sum(piece.size for piece in values), np.float32)
    return np.concatenate(values, out=out)
