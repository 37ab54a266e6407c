"""Entries that are sorted by row and column, and what those of one place add up to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.family import INDICES, VALUES
from nnz_kernels.cuda.sorting import bits_of, exclusive_sums, launch_flat, sort_pairs
from nnz_kernels.errors import DeviceLimitError


class Runs(NamedTuple):
    """Sorted entries.

    Attributes:
        bits: Of a column in a key.
        rows: The rows that they are of, int32; None for all.
        starts: Where the entries of each of these begin, int64, and where the last end.
        keys: (n,), number in that list and column.
        numbers: (n,), which entry each is.
        values: (n,), of the entries as they were.
        places: (n + 1,), runs that begin before each.
    """

    bits: int
    rows: DeviceArray | None
    starts: DeviceArray
    keys: DeviceArray
    numbers: DeviceArray
    values: DeviceArray
    places: DeviceArray


def sorted_runs(
    device: Device,
    keys: DeviceArray,
    numbers: DeviceArray,
    values: DeviceArray,
    bits: int,
    rows: DeviceArray | None,
    starts: DeviceArray,
) -> Runs:
    """Sort entries by their keys, and find where each key begins.

    Raises:
        DeviceLimitError: Rows and columns are too many for keys of 64 bits.
    """
    n, count = keys.size, starts.size - 1
    total = bits + bits_of(count)
    if total > 64:
        raise DeviceLimitError(
            f"{count} rows and columns of {bits} bits need keys of {total} bits, not 64"
        )
    keys, numbers = sort_pairs(device, keys, numbers, total)
    first = device.empty((n + 1,), np.int32)
    launch_flat(device, registry.find("find_runs"), n + 1, n, keys, first)
    places = exclusive_sums(device, first)
    return Runs(bits, rows, starts, keys, numbers, values, places)


def count_runs(device: Device, runs: Runs, counts: DeviceArray) -> None:
    """Write how many columns each row has to its place in *counts*, int64."""
    count = runs.starts.size - 1
    kernel = registry.find("count_runs")
    launch_flat(
        device, kernel, count, count, runs.rows, runs.starts, runs.places, counts
    )


def fill_runs(
    device: Device,
    runs: Runs,
    indptr: DeviceArray,
    indices: DeviceArray | None,
    data: DeviceArray,
    semiring: int = 0,
) -> None:
    """Write columns, if they are wanted, and sums to the rows of a result.

    Args:
        device: Where all lie.
        runs: Of some rows.
        indptr: Row pointers of the result, int64.
        indices: Its columns.
        data: Its values.
        semiring: That adds, by its place among `SEMIRINGS`.
    """
    n = runs.keys.size
    index = INDICES[np.dtype(np.int32) if indices is None else indices.dtype]
    launch_flat(
        device, registry.find("fill_runs", VALUES[data.dtype], index), n,
        n, runs.bits, semiring, runs.rows, runs.starts, runs.places, runs.keys,
        runs.numbers, runs.values, indptr, indices, data,
    )  # fmt: skip
