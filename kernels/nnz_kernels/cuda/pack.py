"""Weights as the kernels read them, made on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from nnz_kernels.api.conv import kept_weights
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import round_up

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Packed(Generic[A]):
    """Weights of a layer.

    Attributes:
        values: What is multiplied, in the order that a kernel reads.
        nnz: How many weights that are.
        columns: Of each offset that a kernel reads the column (input channel, tap) of
            the whole layer, -1 for none; stays on the host.
        indptr: Of each block row where its blocks begin.
        order: Block rows, the longest first.
        channels: Of each block row its first output channel, and how many it has.
        masks: Of fragments with zeros the bits that are not.
        rows: Block rows.
        pitch: Floats from one column of dense weights to the next; of dense fragments
            the steps of a row.
    """

    values: A
    nnz: int
    columns: HostArray
    indptr: A | None = None
    order: A | None = None
    channels: A | None = None
    masks: A | None = None
    rows: int = 0
    pitch: int = 0

    def map(self, move: Callable[[A], B], /) -> Packed[B]:
        """Return the same weights with each array moved."""
        indptr, order, channels, masks = (
            None if one is None else move(one)
            for one in (self.indptr, self.order, self.channels, self.masks)
        )
        return Packed(
            move(self.values), self.nnz, self.columns, indptr, order, channels, masks,
            self.rows, self.pitch,
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of 32 bits an index, however often it is bound."""
        held: tuple[Any, ...] = (
            self.values, self.indptr, self.order, self.channels, self.masks,
        )  # fmt: skip
        arrays = sum(int(one.nbytes) for one in held if one is not None)
        return arrays + 4 * int(self.columns.size)


def pack_blocks(weights: HostArray, groups: int, block: int) -> Packed[HostArray]:
    """Keep blocks of output channels in which any weight is not zero.

    Args:
        weights: ``(oc, ic / groups, kh, kw)``.
        groups: A block never crosses one.
        block: Output channels of a block; the last of a group may have fewer.
    """
    oc = weights.shape[0]
    a_group, depth = oc // groups, int(np.prod(weights.shape[1:]))
    lines = -(-a_group // block)
    padded = np.zeros((groups, lines * block, depth), np.float32)
    padded[:, :a_group] = weights.reshape(groups, a_group, depth)
    blocks = padded.reshape(groups * lines, block, depth)
    kept = (blocks != 0).any(axis=1)
    row, column = np.nonzero(kept)
    lengths = kept.sum(axis=1)
    first = np.arange(lines) * block
    channels = np.stack([first, np.minimum(block, a_group - first)], axis=1)
    starts = np.arange(groups)[:, None, None] * a_group * np.array([1, 0])
    return Packed(
        values=np.ascontiguousarray(blocks[row, :, column]),
        nnz=int(kept_weights(weights, groups, block).sum()),
        columns=row // lines * depth + column,
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        order=np.argsort(-lengths, kind="stable").astype(np.int32),
        channels=(channels + starts).reshape(-1, 2).astype(np.int32),
        rows=groups * lines,
    )


def pack_columns(weights: HostArray, groups: int) -> Packed[HostArray]:
    """Lay dense weights out column by column, output channels side by side."""
    oc = weights.shape[0]
    a_group, depth = oc // groups, int(np.prod(weights.shape[1:]))
    pitch = round_up(a_group, 4)
    values = np.zeros((groups, depth, pitch), np.float32)
    flat = weights.reshape(groups, a_group, depth)
    values[:, :, :a_group] = flat.transpose(0, 2, 1)
    return Packed(values, weights.size, np.arange(groups * depth), pitch=pitch)


def pack_rows(weights: HostArray) -> Packed[HostArray]:
    """Keep dense 1x1 weights as a row-major matrix."""
    rows = np.ascontiguousarray(weights.reshape(weights.shape[0], -1))
    return Packed(rows, weights.size, np.arange(0))


def pack_depthwise(weights: HostArray) -> Packed[HostArray]:
    """Keep the taps of each channel as they are."""
    taps = int(np.prod(weights.shape[2:]))
    return Packed(np.ascontiguousarray(weights), weights.size, np.arange(taps))


#: Columns of a fragment.
STEP = 16


def pack_fragments(blocks: Packed[HostArray]) -> Packed[HostArray]:
    """Lay blocks of 4, 8 or 16 channels out as fragments of tensor cores.

    Each row gets columns to whole steps of 16: zeros, whose offsets say that there is
    no column.
    """
    if blocks.indptr is None:
        raise TypeError("only blocks become fragments")
    count, block = blocks.values.shape
    lengths = np.diff(blocks.indptr)
    steps = -(-lengths // STEP)
    starts = np.concatenate([[0], np.cumsum(steps)])
    row = np.repeat(np.arange(lengths.size), lengths)
    place = starts[row] * STEP + np.arange(count) - blocks.indptr[row]
    columns = np.full(starts[-1] * STEP, -1)
    columns[place] = blocks.columns
    values = np.zeros((starts[-1] * STEP, block), np.float32)
    values[place] = blocks.values
    tiles = values.reshape(-1, STEP, block).transpose(0, 2, 1)
    return replace(
        blocks, values=_as_fragments(tiles), columns=columns,
        indptr=starts.astype(np.int32),
    )  # fmt: skip


def pack_dense_fragments(weights: HostArray, groups: int) -> Packed[HostArray]:
    """Lay dense weights out as fragments: rows of 16 channels, all columns in steps."""
    oc = weights.shape[0]
    a_group, depth = oc // groups, int(np.prod(weights.shape[1:]))
    lines, steps = -(-a_group // STEP), -(-depth // STEP)
    padded = np.zeros((groups, lines * STEP, steps * STEP), np.float32)
    padded[:, :a_group, :depth] = weights.reshape(groups, a_group, depth)
    tiles = padded.reshape(groups * lines, STEP, steps, STEP).transpose(0, 2, 1, 3)
    first = np.arange(lines) * STEP
    channels = np.stack([first, np.minimum(STEP, a_group - first)], axis=1)
    starts = np.arange(groups)[:, None, None] * a_group * np.array([1, 0])
    columns = np.full((groups, steps * STEP), -1)
    columns[:, :depth] = np.arange(groups * depth).reshape(groups, depth)
    return Packed(
        values=_as_fragments(tiles.reshape(-1, STEP, STEP)),
        nnz=weights.size,
        columns=columns.ravel(),
        channels=(channels + starts).reshape(-1, 2).astype(np.int32),
        rows=lines,
        pitch=steps,
    )


def pack_bitmap(weights: HostArray, groups: int) -> Packed[HostArray]:
    """Lay weights out as fragments of which only what is not zero is stored.

    A fragment's four masks cover its quarters in the order of a lane's registers; bit
    ``8 r + c`` stands for row r and column c of one.
    """
    dense = pack_dense_fragments(weights, groups)
    quarters = dense.values.reshape(-1, 32, 4, 2).transpose(0, 2, 1, 3)
    bits = quarters.reshape(-1, 4, 64)
    kept = bits != 0
    masks = np.packbits(kept, axis=-1, bitorder="little").reshape(-1).view(np.uint64)
    counts = kept.sum(axis=(1, 2))
    return replace(
        dense, values=bits[kept], nnz=int(counts.sum()), masks=masks,
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    )  # fmt: skip


def _as_fragments(tiles: HostArray) -> HostArray:
    """Order tiles ``(steps, channels, 16 columns)`` as lanes hold them.

    A lane's registers have two columns each: of a channel and the eighth after it where
    there are 16, then the same eight columns on. Source: PTX ISA, fragments of
    mma.m16n8k16 for elements of 16 bits.
    """
    steps, channels, _ = tiles.shape
    if channels == STEP:
        split = tiles.reshape(steps, 2, 8, 2, 4, 2).transpose(0, 2, 4, 3, 1, 5)
    else:
        split = tiles.reshape(steps, channels, 2, 4, 2).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(split).reshape(-1)


def as_elements(values: HostArray, precision: str) -> HostArray:
    """Round float32 values to a precision, to nearest with ties to even.

    Returns:
        float32, float16, or the bits of bfloat16 as uint16.
    """
    if precision == "fp32":
        return values
    if precision == "fp16":
        with np.errstate(over="ignore"):  # beyond its range is an infinity
            return values.astype(np.float16)
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    nan = np.isnan(values)
    rounded[nan] = bits[nan] >> 16 | 0x40
    return rounded.astype(np.uint16)
