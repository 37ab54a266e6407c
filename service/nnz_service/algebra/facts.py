"""What is worth knowing of a matrix, found once in O(nnz)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import csr_to_scipy, csr_transposed
from nnz_kernels.formats import Csr


def describe(a: Csr[HostArray]) -> dict[str, Any]:
    """Return facts of a matrix in canonical form, as JSON types.

    ``symmetry`` is of the numbers: symmetric, skew-symmetric, hermitian or none, where
    a stored zero is as good as none. ``pattern_symmetric`` is of the stored places.
    ``bandwidth`` counts diagonals beside the main one on which something is stored.
    ``zero_diagonal`` counts places of the main diagonal that are zero or not stored.
    ``pattern`` is a digest of shape and stored places: equal for equal patterns.
    """
    lengths = np.diff(a.indptr)
    rows = np.repeat(np.arange(a.shape[0]), lengths)
    apart = a.indices.astype(np.int64) - rows
    stored_on_diagonal = np.count_nonzero(a.data[apart == 0])
    # A transpose takes memory for each column, of which there may be any number.
    turned = csr_transposed(a) if a.shape[0] == a.shape[1] else None
    return {
        "symmetry": "none" if turned is None else _symmetry(a, turned),
        "pattern_symmetric": turned is not None and _same_pattern(a, turned),
        "row_nnz": {
            "min": int(lengths.min(initial=a.shape[1])) if lengths.size else 0,
            "mean": float(a.nnz / max(a.shape[0], 1)),
            "max": int(lengths.max(initial=0)),
            "empty": int(np.count_nonzero(lengths == 0)),
        },
        "bandwidth": {
            "lower": max(0, -int(apart.min(initial=0))),
            "upper": max(0, int(apart.max(initial=0))),
        },
        "zero_diagonal": min(a.shape) - int(stored_on_diagonal),
        "stored_zeros": int(a.nnz - np.count_nonzero(a.data)),
        "finite": bool(np.isfinite(a.data).all()),
        "pattern": pattern_digest(a),
    }


def pattern_digest(a: Csr[HostArray]) -> str:
    """Return 32 hex digits that say where entries are stored.

    SHA-256 of the shape as two little-endian int64, then indptr, then indices, in their
    canonical type: int32 where shape and number of entries fit, else int64.
    """
    found = hashlib.sha256(np.array(a.shape, "<i8").tobytes())
    for part in (a.indptr, a.indices):
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()[:32]


def _symmetry(a: Csr[HostArray], turned: Csr[HostArray]) -> str:
    """Compare the numbers of a square matrix with those of its transpose."""
    if not a.data.all():
        without = csr_to_scipy(a).copy()
        without.eliminate_zeros()
        a = Csr(without.indptr, without.indices, without.data, a.shape)
        turned = csr_transposed(a)
    if not _same_pattern(a, turned):
        return "none"
    if np.array_equal(a.data, turned.data):
        return "symmetric"
    if np.array_equal(a.data, -turned.data):
        return "skew-symmetric"
    if np.array_equal(a.data, np.conjugate(turned.data)):
        return "hermitian"
    return "none"


def _same_pattern(a: Csr[HostArray], b: Csr[HostArray]) -> bool:
    same = a.shape == b.shape and np.array_equal(a.indptr, b.indptr)
    return same and np.array_equal(a.indices, b.indices)
