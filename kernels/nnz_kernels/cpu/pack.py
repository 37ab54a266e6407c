"""Packed weights of the product kernel: runs of rows that share their columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nnz_kernels.api.conv import ConvSpec, kept_weights
from nnz_kernels.arrays import HostArray, aligned_empty, aligned_zeros
from nnz_kernels.cpu._simd import TALLEST
from nnz_kernels.cpu.microkernel import COUNT, OFFSET, ROW, ROWS
from nnz_kernels.planes import LINE, round_up


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights in the order in which the micro-kernel reads them.

    Attributes:
        height: Rows of the micro-kernel; the last run of a group may have fewer.
        table: One row a run: columns ROW, ROWS, OFFSET, COUNT, WEIGHT of
            ``microkernel``.
        columns: Input columns ``(channel, ky, kx)`` of every kept block, int64 numbers.
        weights: ``height`` weights a column, zero in rows beyond the last.
        bias: ``height`` values a run.
        nnz: Weights multiplied, without those of rows beyond the last.
        memo: What ``transposed`` and ``biases`` made.
    """

    height: int
    table: HostArray
    columns: HostArray
    weights: HostArray
    bias: HostArray
    nnz: int

    memo: dict[str, HostArray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes held for weights and indices (int32 once bound)."""
        arrays = self.table.nbytes + self.weights.nbytes + self.bias.nbytes
        extra = sum(array.nbytes for array in self.memo.values())
        return arrays + 4 * self.columns.size + extra

    def transposed(self, shape: tuple[int, ...]) -> HostArray:
        """Return dense weights ``[input, output]`` as one flat array, made once.

        Rows are padded with zeros to a multiple of a cache line.
        """
        if "transposed" not in self.memo:
            outputs, inputs = shape[:2]
            wide = aligned_zeros((inputs, round_up(outputs, LINE)), np.float32)
            for row, rows, _, count, at in self.table.tolist():
                run = self.weights[at : at + count * self.height]
                wide[:, row : row + rows] = run.reshape(count, self.height)[:, :rows]
            self.memo["transposed"] = wide.reshape(-1)
        return self.memo["transposed"]

    def biases(self, outputs: int) -> HostArray:
        """Return the bias of each output, made once."""
        if "biases" not in self.memo:
            bias = np.zeros(outputs, np.float32)
            packed = self.bias.reshape(-1, self.height)
            for run, (row, rows) in enumerate(self.table[:, [ROW, ROWS]].tolist()):
                bias[row : row + rows] = packed[run, :rows]
            self.memo["biases"] = bias
        return self.memo["biases"]


def pack(
    weights: HostArray, bias: HostArray | None, spec: ConvSpec, block: int | None
) -> Packed:
    """Pack blocks of *block* rows (None: every column), group after group."""
    a_group = weights.shape[0] // spec.groups
    shared = TALLEST if block is None else block
    height = min(shared, TALLEST, 1 << (a_group - 1).bit_length())
    kept = kept_weights(weights, spec.groups, block)
    table: list[tuple[int, ...]] = []
    columns, values = [], []
    offsets = used = 0
    for start in _starts(weights.shape[0], a_group, shared):
        stop = min(start + shared, (start // a_group + 1) * a_group)
        group = start // a_group
        local = np.flatnonzero(kept[start])
        at_offset = offsets
        if block is None and start % a_group:  # the same columns as the run before
            at_offset = table[-1][OFFSET]
        else:
            columns.append(local + group * kept[start].size)
            offsets += local.size
        for row in range(start, stop, height):
            rows = min(height, stop - row)
            run = np.zeros((local.size, height), np.float32)
            flat = weights[row : row + rows].reshape(rows, -1)
            run[:, :rows] = flat[:, local].T
            table.append((row, rows, at_offset, local.size, used))
            values.append(run.reshape(-1))
            used += run.size
    runs = np.array(table, np.int64)
    biases = _biases(runs, bias, height)
    nnz = int(kept.sum())
    return Packed(height, runs, np.concatenate(columns), _join(values), biases, nnz)


def _starts(rows: int, a_group: int, shared: int) -> list[int]:
    """Return the first row of each block; blocks do not straddle groups."""
    return [
        start
        for group in range(0, rows, a_group)
        for start in range(group, group + a_group, shared)
    ]


def _biases(runs: HostArray, bias: HostArray | None, height: int) -> HostArray:
    packed = np.zeros((runs.shape[0], height), np.float32)
    if bias is not None:
        for place, (row, rows) in zip(packed, runs[:, [ROW, ROWS]], strict=True):
            place[:rows] = bias[row : row + rows]
    return packed.reshape(-1)


def _join(values: list[HostArray]) -> HostArray:
    """Return the pieces as one aligned array."""
    out = aligned_empty(sum(piece.size for piece in values), np.float32)
    return np.concatenate(values, out=out)


def cut(packed: Packed, most: int) -> list[tuple[int, int]]:
    """Return runs (from, to) of pieces of at most *most* weights, or of one run."""
    pieces, first, size = [], 0, 0
    sizes = packed.table[:, COUNT] * packed.height
    for run, weights in enumerate(sizes.tolist()):
        if run > first and size + weights > most:
            pieces.append((first, run))
            first, size = run, 0
        size += weights
    return [*pieces, (first, packed.table.shape[0])]
