"""Products over semirings, the slow and obvious way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnz_kernels.api.semirings import (
    ZEROS,
    check_applied,
    check_masked,
)
from nnz_kernels.api.sparse import Semiring
from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr

#: Add and multiply, of NumPy's scalars; comparisons pass a NaN on.
_OPS: dict[Semiring, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "plus_times": (lambda x, y: x + y, lambda x, y: x * y),
    "min_plus": (lambda x, y: y if y < x or y != y else x, lambda x, y: x + y),
    "or_and": (
        lambda x, y: type(x)(x != 0 or y != 0),
        lambda x, y: type(x)(x != 0 and y != 0),
    ),
    "max_times": (lambda x, y: y if y > x or y != y else x, lambda x, y: x * y),
}


def semiring_product(
    a: Csr[HostArray],
    b: Csr[HostArray],
    semiring: Semiring,
    mask: Csr[HostArray] | None = None,
    /,
    *,
    threads: int | None = None,
) -> Csr[HostArray]:
    check_masked(a, b, semiring, mask)
    add, multiply = _OPS[semiring]
    rows: list[dict[int, Any]] = []
    for i in range(a.shape[0]):
        row: dict[int, Any] = {}
        wanted = None if mask is None else {j for j, _ in _row(mask, i)}
        for k, x in _row(a, i):
            for j, y in _row(b, k):
                if wanted is not None and j not in wanted:
                    continue
                with np.errstate(all="ignore"):
                    product = multiply(x, y)
                    row[j] = add(row[j], product) if j in row else product
        rows.append(row)
    entries = [(j, row[j]) for row in rows for j in sorted(row)]
    kind = np.result_type(a.indices, *(() if mask is None else (mask.indices,)))
    return Csr(
        np.cumsum([0, *map(len, rows)]).astype(kind),
        np.array([j for j, _ in entries], kind),
        np.array([x for _, x in entries], a.data.dtype),
        (a.shape[0], b.shape[1]),
    )


def semiring_spmv(
    a: Csr[HostArray],
    x: HostArray,
    semiring: Semiring,
    /,
    *,
    threads: int | None = None,
) -> HostArray:
    check_applied(a, x, semiring)
    add, multiply = _OPS[semiring]
    out = np.full(a.shape[0], ZEROS[semiring], a.data.dtype)
    with np.errstate(all="ignore"):
        for i in range(a.shape[0]):
            products = [multiply(value, x[j]) for j, value in _row(a, i)]
            for place, product in enumerate(products):
                out[i] = add(out[i], product) if place else product
    return out


def _row(a: Csr[HostArray], i: int) -> list[tuple[int, Any]]:
    places = range(a.indptr[i], a.indptr[i + 1])
    return [(int(a.indices[p]), a.data[p]) for p in places]
