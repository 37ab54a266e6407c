"""Stable sorting and exclusive sums on the device, for the ops that need them."""

from __future__ import annotations

import numpy as np

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device, blocks_of
from nnz_kernels.cuda.family import INDICES
from nnz_kernels.errors import DeviceLimitError

#: Keys of a tile and digits of a pass, as in sort.cu.
_TILE, _DIGITS, _BITS = 2048, 256, 8

#: Numbers of a tile of a sum.
_SPAN = 1024

_BLOCK = (256, 1, 1)


def sort_pairs(
    device: Device, keys: DeviceArray, numbers: DeviceArray, bits: int
) -> tuple[DeviceArray, DeviceArray]:
    """Sort by the low *bits* of the keys; equal keys keep their order.

    A least-significant-digit radix sort, eight bits a pass, after Satish, Harris and
    Garland, "Designing efficient sorting algorithms for manycore GPUs" (2009).

    Args:
        device: Where both lie.
        keys: ``(n,)`` uint64; its content is lost.
        numbers: ``(n,)`` int32, carried along; its content is lost.
        bits: How many bits of a key count.
    """
    n = keys.size
    tiles = blocks_of(n, _TILE)
    counts = device.empty((_DIGITS * tiles,), np.int32)
    other = device.empty((n,), np.uint64), device.empty((n,), np.int32)
    here = keys, numbers
    for shift in range(0, bits, _BITS):
        grid = (tiles, 1, 1)
        count = registry.find("sort_count")
        device.launch(count, grid, _BLOCK, n, shift, here[0], counts)
        starts = exclusive_sums(device, counts)
        move = registry.find("sort_move")
        device.launch(move, grid, _BLOCK, n, shift, *here, starts, *other)
        here, other = other, here
    return here


def exclusive_sums(device: Device, x: DeviceArray) -> DeviceArray:
    """Return for each number of ``(n,)``, int32 or int64, the sum of those before."""
    y, kind = device.empty(x.shape, x.dtype), INDICES[x.dtype]
    tiles = blocks_of(x.size, _SPAN)
    totals = device.empty((max(tiles, 1),), x.dtype)
    grid = (tiles, 1, 1)
    scan = registry.find("scan_tiles", kind)
    device.launch(scan, grid, _BLOCK, x.size, x, y, totals)
    if tiles > 1:
        starts = exclusive_sums(device, totals)
        device.launch(registry.find("scan_add", kind), grid, _BLOCK, x.size, starts, y)
    return y


def check_count(count: int, what: str) -> None:
    """Refuse more than 31 bits can number.

    Raises:
        DeviceLimitError: *count* is 2**31 or more.
    """
    if count >= 2**31:
        raise DeviceLimitError(
            f"{what} has {count} entries; the device sorts up to 2**31 - 1"
        )


def bits_of(size: int) -> int:
    """Return the bits of an index below *size*."""
    return max(size - 1, 0).bit_length()


def launch_flat(
    device: Device, kernel: registry.Kernel, count: int, *values: object
) -> None:
    """Launch a thread for each of *count* elements."""
    device.launch(kernel, (blocks_of(count, 256), 1, 1), _BLOCK, *values)
