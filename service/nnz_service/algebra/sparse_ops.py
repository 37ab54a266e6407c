"""Operations on resident matrices that give matrices, vectors or numbers.

Each can be asked what it costs before it runs (`estimate`), and refuses to run when the
answer would not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnz_kernels.api.semirings import check_masked
from nnz_kernels.api.sparse import NORMS, Norm, check_sampled, check_scales, check_sum
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import DeviceError, KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.operands import Estimate, Operands
from nnz_service.algebra.operator import MAX_RESULT
from nnz_service.algebra.selections import check_scratch, picked, repeats
from nnz_service.errors import InvalidInputError, NotFoundError, TooLargeError

Answer = Csr[HostArray] | dict[str, HostArray]

#: Entries that an index of 32 bits counts.
_MOST_32 = 2**31 - 1

#: Columns that a forecast of a masked product counts at most.
_COUNTED = 1 << 24


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Args:
        matrices: How many it takes.
        params: Names of its parameters, besides `matrix` and `other`.
        inputs: Names of the dense operands that it may take.
        size: (work, flops, entries of the result, whether exactly, its rows or None for
            a dense result).
        run: Computes it.
    """

    matrices: int
    params: frozenset[str]
    inputs: frozenset[str]
    size: Callable[[Operands], tuple[int, int, int, bool, int | None]]
    run: Callable[[Operands], Answer]


def estimate(op: str, given: Operands) -> Estimate:
    """Return what an operation costs, in O(entries).

    Args:
        op: One of `OPERATIONS`.
        given: Its operands; the parameter `preflight` = "exact" counts where a bound
            would do, which costs about half of the operation.

    Raises:
        NotFoundError: There is no such operation.
        InvalidInputError: Operands do not fit.
    """
    operation = find(op)
    _check_names(op, operation, given)
    with _translated(op):
        work, flops, nnz, exact, rows = operation.size(given)
    item = given.a.data.dtype.itemsize
    if given.b is not None:
        item = max(item, given.b.data.dtype.itemsize)
    if rows is None:
        return Estimate(work, flops, nnz, exact, nnz * item)
    index = max(given.a.indices.itemsize, 8 if nnz > _MOST_32 else 4)
    return Estimate(work, flops, nnz, exact, nnz * (index + item) + (rows + 1) * index)


def admit(
    op: str, given: Operands, limit: int = MAX_RESULT, found: Estimate | None = None
) -> Estimate:
    """Return the estimate of an operation whose result fits.

    A bound that does not fit is replaced by the exact number.

    Args:
        op: One of `OPERATIONS`.
        given: Its operands.
        limit: Bytes.
        found: Its estimate, where that is there.

    Raises:
        TooLargeError: Its result takes more than `limit` bytes; the message has the
            numbers.
    """
    found = found or estimate(op, given)
    if found.nbytes > limit and not found.exact:
        params = {**given.params, "preflight": "exact"}
        found = estimate(op, replace(given, params=params))
    if found.nbytes > limit:
        raise TooLargeError(
            f"{op}: the result has {found.nnz} entries and takes {found.nbytes} bytes, "
            f"after {found.flops} floating-point operations; the limit is {limit} bytes"
        )
    return found


def check(op: str, given: Operands) -> None:
    """Refuse operands that do not fit each other, before an operation is cut.

    Raises:
        InvalidInputError: They do not fit.
    """
    with _translated(op):
        if op == "add":
            check_sum(*given.pair(), _factors(given))
        elif op == "scale":
            _factor(given)
            check_scales(given.a, *_sides(given))
        elif op == "sddmm":
            x, y = given.dense("x", ndim=2), given.dense("y", ndim=2)
            check_sampled(given.a, x, y)


def compute(op: str, given: Operands) -> Answer:
    """Do an operation that was admitted.

    Raises:
        InvalidInputError: Operands do not fit.
    """
    with _translated(op):
        return find(op).run(given)


def find(op: str) -> Operation:
    """Return an operation by its name.

    Raises:
        NotFoundError: There is none.
    """
    if op not in OPERATIONS:
        raise NotFoundError(
            f"there is no operation {op!r}; there are {', '.join(OPERATIONS)}"
        )
    return OPERATIONS[op]


class _translated:  # noqa: N801 - used like a function
    """Turn what the kernels refuse into what the service says."""

    def __init__(self, op: str) -> None:
        self._op = op

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MemoryError):
            raise TooLargeError(f"{self._op}: not enough memory: {error}") from error
        if isinstance(error, KernelError) and not isinstance(error, DeviceError):
            raise InvalidInputError(f"{self._op}: {error}") from error


def _check_names(op: str, operation: Operation, given: Operands) -> None:
    unknown = given.tensors.keys() - operation.inputs
    if unknown:
        takes = sorted(operation.inputs) or "none"
        raise InvalidInputError(f"{op} has no input {min(unknown)!r}; it takes {takes}")


def _product_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    a, b = given.pair()
    mask = given.mask
    check_masked(a, b, given.semiring, mask)
    size = given.ops.product_size(a, b)
    products = size.products
    nnz, exact, kept = size.bound, False, a.nnz + b.nnz
    if mask is not None:
        nnz, kept = min(nnz, mask.nnz), kept + mask.nnz
        if b.shape[1] <= _COUNTED:
            products = min(products, _dots(a, b, mask))
    elif given.params.get("preflight") == "exact":
        check_scratch(a.shape[0], "row")
        counts = given.ops.product_counts(a, b, threads=given.threads)
        nnz, exact = int(counts[-1]), True
    each = 8 if a.data.dtype.kind == "c" else 2
    return products + kept, each * products, nnz, exact, a.shape[0]


def _dots(a: Csr[HostArray], b: Csr[HostArray], mask: Csr[HostArray]) -> int:
    """Return what dots of rows and columns take for the entries of a mask."""
    columns = np.bincount(b.indices, minlength=b.shape[1])
    return a.nnz + int(columns[mask.indices].sum())


def _sum_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    nnz = given.a.nnz + given.other.nnz
    m, n = given.a.shape
    return nnz, 3 * nnz, min(nnz, m * n), False, m


def _kept_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    return given.a.nnz, 2 * given.a.nnz, given.a.nnz, True, given.a.shape[0]


def _turned_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    check_scratch(given.a.shape[1], "column")
    return sum(given.a.shape) + given.a.nnz, 0, given.a.nnz, True, given.a.shape[1]


def _taken_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    rows, columns = _chosen(given)
    a, (m, n) = given.a, given.a.shape
    high = repeats(rows, m, "row")
    counts = np.repeat(high, np.diff(a.indptr))
    work = a.nnz + m
    if columns is not None:
        counts *= repeats(columns, n, "column")[a.indices]
        work += 2 * (a.nnz + n)
    return work, 0, int(counts.sum()), True, int(high.sum())


def _sampled_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    width = given.dense("x", ndim=2).shape[1]
    nnz = given.a.nnz
    return nnz * max(width, 1), 2 * nnz * width, nnz, True, given.a.shape[0]


def _solve_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    b = _right(given)
    width = b.shape[1] if b.ndim == 2 else 1
    return given.a.nnz * width, 2 * given.a.nnz * width, b.size, True, None


def _sums_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    size = given.a.shape[1 - _axis(given)]
    return given.a.nnz + size, given.a.nnz, size, True, None


def _diagonal_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    return given.a.nnz, 0, min(given.a.shape), True, None


def _norm_size(given: Operands) -> tuple[int, int, int, bool, int | None]:
    side = {"1": (1, "column"), "inf": (0, "row")}.get(str(given.params.get("kind")))
    if side is not None:  # it has a sum for each
        check_scratch(given.a.shape[side[0]], side[1])
    return given.a.nnz, 2 * given.a.nnz, 1, True, None


def _chosen(given: Operands) -> tuple[Any, Any]:
    return picked(given.params, given.tensors, "rows"), picked(
        given.params, given.tensors, "columns"
    )


def _right(given: Operands) -> HostArray:
    axes = given.tensors["b"].ndim - given.paired if "b" in given.tensors else 1
    return given.dense("b", ndim=2 if axes == 2 else 1)


def _product(given: Operands) -> Answer:
    a, b = given.pair()
    semiring, mask, threads = given.semiring, given.mask, given.threads
    if semiring == "plus_times" and mask is None:
        return given.ops.spgemm(a, b, threads=threads)
    return given.semirings.semiring_product(a, b, semiring, mask, threads=threads)


def _sum(given: Operands) -> Answer:
    a, b = given.pair()
    alpha, beta = _factors(given)
    return given.ops.add(alpha, a, beta, b, threads=given.threads)


def _factors(given: Operands) -> tuple[complex, complex]:
    return given.number("alpha"), given.number("beta")


def _sides(given: Operands) -> list[HostArray | None]:
    return [
        given.dense(name) if name in given.tensors else None
        for name in ("rows", "columns")
    ]


def _factor(given: Operands) -> complex:
    alpha = given.number("alpha")
    if isinstance(alpha, complex) and not given.paired:
        raise InvalidInputError(f"alpha is {alpha}, but the matrix is real")
    return alpha


def _scaled(given: Operands) -> Answer:
    alpha = _factor(given)
    out = given.ops.scale(given.a, *_sides(given))
    if alpha == 1:
        return out
    with np.errstate(all="ignore"):
        return replace(out, data=out.data * out.data.dtype.type(alpha))


def _taken(given: Operands) -> Answer:
    rows, columns = _chosen(given)
    return given.ops.submatrix(given.a, rows, columns)


def _turned(given: Operands) -> Answer:
    conjugate = given.flag("conjugate", default=False)
    return given.ops.transpose(given.a, conjugate=conjugate, threads=given.threads)


def _sampled(given: Operands) -> Answer:
    x, y = given.dense("x", ndim=2), given.dense("y", ndim=2)
    return given.ops.sddmm(given.a, x, y, threads=given.threads)


def _solved(given: Operands) -> Answer:
    x = given.ops.triangular_solve(
        given.a,
        _right(given),
        lower=given.flag("lower", default=True),
        unit_diagonal=given.flag("unit_diagonal", default=False),
        threads=given.threads,
    )
    return {"x": x}


def _norm(given: Operands) -> Answer:
    kind = given.params.get("kind", "fro")
    if kind not in NORMS:
        raise InvalidInputError(
            f"kind is {kind!r:.80}, but must be one of {list(NORMS)}"
        )
    chosen: Norm = kind
    return {"norm": np.array([given.ops.norm(given.a, chosen)], np.float64)}


def _axis(given: Operands) -> int:
    axis = given.params.get("axis", 1)
    if not isinstance(axis, int) or isinstance(axis, bool) or axis not in (0, 1):
        raise InvalidInputError(f"axis is {axis!r:.80}, but must be 0 or 1")
    return axis


def _sums(given: Operands) -> Answer:
    return {"sums": given.ops.sums(given.a, _axis(given))}


def _diagonal(given: Operands) -> Answer:
    return {"diagonal": given.ops.diagonal(given.a)}


def _operation(
    matrices: int, params: str, inputs: str, size: Any, run: Any
) -> Operation:
    names = frozenset(params.split()), frozenset(inputs.split())
    return Operation(matrices, *names, size, run)


OPERATIONS: dict[str, Operation] = {
    "spgemm": _operation(2, "semiring mask", "", _product_size, _product),
    "add": _operation(2, "alpha beta", "", _sum_size, _sum),
    "scale": _operation(1, "alpha", "rows columns", _kept_size, _scaled),
    "submatrix": _operation(1, "rows columns", "rows columns", _taken_size, _taken),
    "transpose": _operation(1, "conjugate", "", _turned_size, _turned),
    "sddmm": _operation(1, "", "x y", _sampled_size, _sampled),
    "triangular_solve": _operation(1, "lower unit_diagonal", "b", _solve_size, _solved),
    "norm": _operation(1, "kind", "", _norm_size, _norm),
    "sums": _operation(1, "axis", "", _sums_size, _sums),
    "diagonal": _operation(1, "", "", _diagonal_size, _diagonal),
}
