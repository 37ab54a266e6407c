"""Sparse vectors on the device: one stable sort, then one pass over its runs.

An op on one vector is that on a batch of one. Costs O(n log size) of the entries, and
no order of the device's threads shows in a result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnz_kernels.api.vectors import (
    Duplicates,
    Zeros,
    check_factors,
    check_policies,
    check_vectors,
    duplicate_error,
)
from nnz_kernels.arrays import INDICES as INDEX_TYPES
from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import MOST_ROWS
from nnz_kernels.cuda.family import INDICES, VALUES, Family, as_int, types_of
from nnz_kernels.cuda.sorting import (
    bits_of,
    check_count,
    exclusive_sums,
    launch_flat,
    sort_pairs,
)
from nnz_kernels.cuda.structs import Pairs
from nnz_kernels.errors import DeviceLimitError, DTypeError, ShapeError
from nnz_kernels.formats import Ragged, SparseVector

_AXPY, _COMBINE = 0, 1
_ADD_UP, _TAKE_LAST = 0, 1

#: Of entry numbers: larger than any.
_NONE = 2**31 - 1


class Sorted(NamedTuple):
    """Entries of two operands in the order of (vector, index)."""

    sizes: Pairs
    keys: DeviceArray
    numbers: DeviceArray
    source: DeviceArray


class Sums(NamedTuple):
    """What each entry that comes first holds, and whether it is kept."""

    values: DeviceArray
    kept: DeviceArray


class Vectors(Family):
    """Operations on sparse vectors."""

    def axpy(
        self,
        u: SparseVector[DeviceArray],
        r: float,
        v: SparseVector[DeviceArray],
        /,
        *,
        workspace: Workspace | None = None,
        zeros: Zeros = "keep",
        duplicates: Duplicates = "sum",
    ) -> SparseVector[DeviceArray]:
        """Add as a batch of one."""
        us, vs = self._batch(u), self._batch(v)
        factors = np.array([r], np.float64)
        out = self.axpy_many(us, factors, vs, zeros=zeros, duplicates=duplicates)
        return SparseVector(out.indices, out.values, out.size)

    def dot(
        self,
        u: SparseVector[DeviceArray],
        v: SparseVector[DeviceArray],
        /,
        *,
        workspace: Workspace | None = None,
    ) -> float:
        """Multiply as a batch of one."""
        found = self.dot_many(self._batch(u), self._batch(v))
        return float(self.device.to_host(found)[0])

    def gather(self, x: DeviceArray, indices: DeviceArray, /) -> DeviceArray:
        """Read, and look for an index outside of *x* on the way."""
        if x.ndim != 1 or indices.ndim != 1:
            axes = f"{x.ndim} and {indices.ndim}"
            raise ShapeError(f"x and indices have {axes} axes, not 1")
        if indices.dtype not in INDEX_TYPES:
            raise DTypeError(f"indices are {indices.dtype}, but must be int32 or int64")
        out = self.device.empty(indices.shape, x.dtype)
        wrong = self._least()
        kernel = registry.find("vectors_gather", *types_of(x, indices))
        n = indices.size
        check_count(n, "indices")
        launch_flat(self.device, kernel, n, n, x.size, x, indices, out, wrong)
        at = as_int(self.device.to_host(wrong))
        if at != _NONE:
            index = as_int(self.device.to_host(indices.part(at, at + 1)))
            raise ShapeError(
                f"indices[{at}] is {index}, but must be from 0 to {x.size - 1}"
            )
        return out

    def scatter(self, u: SparseVector[DeviceArray], /) -> DeviceArray:
        """Add up duplicates, then write each entry to its place."""
        us = self._batch(u)
        out = self.device.zeros((u.size,), u.values.dtype)
        found = self._sorted(us, self._nothing_like(us))
        ones = self.device.to_device(np.ones(1, u.values.dtype))
        sums, _ = self._sums(us, us, found, ones, _AXPY, _ADD_UP, drop=False)
        kernel = registry.find("vectors_scatter", *types_of(u.values, u.indices))
        launch_flat(self.device, kernel, u.nnz, u.nnz, u.indices, *sums, out)
        return out

    def axpy_many(
        self,
        us: Ragged[DeviceArray],
        r: HostArray,
        vs: Ragged[DeviceArray],
        /,
        *,
        zeros: Zeros = "keep",
        duplicates: Duplicates = "sum",
        threads: int | None = None,
    ) -> Ragged[DeviceArray]:
        """Sort by (vector, index), add up runs, keep the order of first appearance."""
        check_vectors(us, vs)
        check_policies(zeros, duplicates)
        factors = check_factors(r, us.count, us.values.dtype)
        found = self._sorted(us, vs)
        policy = _TAKE_LAST if duplicates == "last" else _ADD_UP
        sums, repeated = self._sums(
            us, vs, found, self.device.to_device(factors), _AXPY, policy,
            drop=zeros == "drop_exact",
        )  # fmt: skip
        if (
            duplicates == "error"
            and (at := as_int(self.device.to_host(repeated))) != _NONE
        ):
            self._refuse(us, vs, found, at)
        return self._compact(us, vs, found, sums)

    def dot_many(
        self,
        us: Ragged[DeviceArray],
        vs: Ragged[DeviceArray],
        /,
        *,
        threads: int | None = None,
    ) -> DeviceArray:
        """Sort by (vector, index), multiply where both have an entry, sum in a tree."""
        check_vectors(us, vs)
        found = self._sorted(us, vs)
        n = us.nnz + vs.nnz
        products = self.device.empty((n,), np.float64)
        out = self.device.zeros((us.count,), np.float64)
        kernel = registry.find("vectors_dot", VALUES[us.values.dtype])
        launch_flat(
            self.device,
            kernel,
            n,
            found.sizes,
            us.values,
            vs.values,
            *found[1:],
            products,
        )
        self.device.launch(
            registry.find("vectors_sum", INDICES[us.indices.dtype]),
            (min(us.count, MOST_ROWS), 1, 1), (256, 1, 1),
            us.count, us.indptr, vs.indptr, products, out,
        )  # fmt: skip
        return out

    def combine(
        self,
        u0: SparseVector[DeviceArray],
        r: HostArray,
        vs: Ragged[DeviceArray],
        /,
        *,
        workspace: Workspace | None = None,
        zeros: Zeros = "keep",
    ) -> SparseVector[DeviceArray]:
        """Sort all entries by index, add up runs in the order of the vectors."""
        check_vectors(u0, vs)
        check_policies(zeros)
        factors = check_factors(r, vs.count, u0.values.dtype)
        us = self._batch(u0)
        found = self._sorted(us, vs, one=True)
        drop = zeros == "drop_exact"
        there = self.device.to_device(factors)
        sums, _ = self._sums(us, vs, found, there, _COMBINE, _ADD_UP, drop=drop)
        out = self._compact(us, vs, found, sums)
        return SparseVector(out.indices, out.values, out.size)

    # -- steps ----------------------------------------------------------------------

    def _batch(self, u: SparseVector[DeviceArray]) -> Ragged[DeviceArray]:
        """Return a vector as a batch of one."""
        ends = np.array([0, u.nnz], u.indices.dtype)
        return Ragged(self.device.to_device(ends), u.indices, u.values, u.size)

    def _nothing_like(self, us: Ragged[DeviceArray]) -> Ragged[DeviceArray]:
        """Return as many vectors without entries."""
        indptr = self.device.zeros(us.indptr.shape, us.indptr.dtype)
        none = us.indices.part(0, 0), us.values.part(0, 0)
        return Ragged(indptr, *none, us.size)

    def _sorted(
        self, us: Ragged[DeviceArray], vs: Ragged[DeviceArray], *, one: bool = False
    ) -> Sorted:
        n = us.nnz + vs.nnz
        check_count(n, "a batch of vectors")
        bits = bits_of(us.size)
        device, count = self.device, vs.count
        sizes = Pairs(count, us.nnz, vs.nnz, bits, int(one))
        keys = device.empty((n,), np.uint64)
        numbers, source = (device.empty((n,), np.int32) for _ in range(2))
        kernel = registry.find("vectors_pack", INDICES[us.indices.dtype])
        launch_flat(
            device, kernel, n,
            sizes, us.indptr, us.indices, vs.indptr, vs.indices, keys, numbers, source,
        )  # fmt: skip
        total = bits + (0 if one else bits_of(count))
        if total > 64:
            raise DeviceLimitError(
                f"{count} vectors of size {us.size} need keys of {total} bits, not 64"
            )
        return Sorted(sizes, *sort_pairs(device, keys, numbers, total), source)

    def _sums(
        self,
        us: Ragged[DeviceArray],
        vs: Ragged[DeviceArray],
        found: Sorted,
        factors: DeviceArray,
        mode: int,
        policy: int,
        *,
        drop: bool,
    ) -> tuple[Sums, DeviceArray]:
        n = found.sizes.nnz_u + found.sizes.nnz_v
        sums = Sums(
            self.device.empty((n,), us.values.dtype), self.device.empty((n,), np.int32)
        )
        repeated = self._least()
        kernel = registry.find("vectors_axpy", *types_of(us.values, us.indices))
        launch_flat(
            self.device, kernel,
            n, found.sizes, mode, policy, int(drop), vs.indptr, factors, us.values,
            vs.values, *found[1:], *sums, repeated,
        )  # fmt: skip
        return sums, repeated

    def _compact(
        self,
        us: Ragged[DeviceArray],
        vs: Ragged[DeviceArray],
        found: Sorted,
        sums: Sums,
    ) -> Ragged[DeviceArray]:
        device, n = self.device, us.nnz + vs.nnz
        indptr = device.zeros((vs.count + 1,), us.indptr.dtype)
        if n == 0:
            return Ragged(indptr, us.indices, us.values, us.size)
        places = exclusive_sums(device, sums.kept)
        last = (as_int(device.to_host(a.part(n - 1, n))) for a in (places, sums.kept))
        total = sum(last)
        indices = device.empty((total,), us.indices.dtype)
        values = device.empty((total,), us.values.dtype)
        launch_flat(
            device, registry.find("vectors_compact", *types_of(us.values, us.indices)),
            max(n, vs.count + 1), found.sizes, us.indptr, vs.indptr, us.indices,
            vs.indices, found.source, *sums, places, indptr, indices, values,
        )  # fmt: skip
        return Ragged(indptr, indices, values, us.size)

    def _least(self) -> DeviceArray:
        """Return where a kernel keeps the least of some numbers."""
        return self.device.to_device(np.array([_NONE], np.int32))

    def _refuse(
        self,
        us: Ragged[DeviceArray],
        vs: Ragged[DeviceArray],
        found: Sorted,
        number: int,
    ) -> None:
        """Raise the error of an index that is there twice."""
        source = as_int(self.device.to_host(found.source.part(number, number + 1)))
        name, many = ("v", vs) if source < 0 else ("u", us)
        at = source & 0x7FFFFFFF
        index = as_int(self.device.to_host(many.indices.part(at, at + 1)))
        starts = self.device.to_host(many.indptr)
        first = int(starts[np.searchsorted(starts, at, side="right") - 1])
        raise duplicate_error(f"{name}.indices", at - first, index)
