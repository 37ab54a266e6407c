"""What an operation on resident matrices works on, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnz_kernels.api.semirings import SEMIRINGS
from nnz_kernels.api.sparse import Semiring, SemiringOps, SparseOps
from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra.pairs import from_pairs
from nnz_service.errors import InvalidInputError

Matrix = Csr[HostArray]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an operation costs.

    Args:
        work: Entries touched or multiplied, whichever are more.
        flops: Floating-point operations.
        nnz: Entries of the result, or numbers of a dense one.
        exact: Whether it has so many; else at most.
        nbytes: Of the result, with so many entries.
    """

    work: int
    flops: int
    nnz: int
    exact: bool
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        """As a caller sees it."""
        return {
            "flops": self.flops,
            "output_nnz": self.nnz,
            "output_nnz_exact": self.exact,
            "output_bytes": self.nbytes,
        }


@dataclass(frozen=True, slots=True)
class Operands:
    """What an operation works on.

    Args:
        a: The matrix, canonical.
        b: The other matrix, canonical; None where there is none.
        mask: Whose pattern says what of a product is wanted; None for all of it.
        tensors: Dense operands by name.
        params: Of the request.
        kernels: What computes.
        threads: At most; None for all.
    """

    a: Matrix
    b: Matrix | None = None
    tensors: Mapping[str, HostArray] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    kernels: Any = None
    threads: int | None = None
    mask: Matrix | None = None

    @property
    def ops(self) -> SparseOps[HostArray]:
        """The kernels, with their types."""
        found: SparseOps[HostArray] = self.kernels
        return found

    @property
    def semirings(self) -> SemiringOps[HostArray]:
        """The kernels, as those of semirings."""
        found: SemiringOps[HostArray] = self.kernels
        return found

    @property
    def other(self) -> Matrix:
        """The other matrix.

        Raises:
            InvalidInputError: There is none.
        """
        if self.b is None:
            raise InvalidInputError("parameter 'other' must be the id of a matrix")
        return self.b

    def pair(self) -> tuple[Matrix, Matrix]:
        """Return both matrices with the wider of their types."""
        a, b = self.a, self.other
        value = np.result_type(a.data, b.data)
        index = np.result_type(a.indices, b.indices)
        return _typed(a, value, index), _typed(b, value, index)

    def dense(self, name: str, *, ndim: int = 1) -> HostArray:
        """Return a dense operand in the type of the matrix.

        For a complex matrix it comes as pairs, along one axis more.

        Raises:
            InvalidInputError: It is missing, or has other axes, or is not real.
        """
        if name not in self.tensors:
            raise InvalidInputError(f"the input {name!r} is missing")
        x, pairs = self.tensors[name], self.paired
        fits = x.ndim == ndim + pairs and (not pairs or x.shape[-1] == 2)
        if not fits or x.dtype.kind not in "biuf":
            what = " and, last, 2 for real and imaginary parts" if pairs else ""
            raise InvalidInputError(
                f"{name} is {x.dtype} of shape {list(x.shape)}, but must be real "
                f"numbers along {ndim} axes{what}"
            )
        if pairs:
            return from_pairs(x)
        with np.errstate(over="ignore"):  # beyond the type it is infinite, as in numpy
            return np.ascontiguousarray(x, self.a.data.dtype)

    @property
    def paired(self) -> bool:
        """Whether dense operands and results are of pairs."""
        return bool(self.a.data.dtype.kind == "c")

    @property
    def semiring(self) -> Semiring:
        """What adds and multiplies.

        Raises:
            InvalidInputError: There is no such semiring.
        """
        value = self.params.get("semiring", "plus_times")
        if value not in SEMIRINGS:
            raise InvalidInputError(
                f"semiring is {value!r:.60}, but must be one of {', '.join(SEMIRINGS)}"
            )
        found: Semiring = value
        return found

    def flag(self, name: str, default: bool) -> bool:
        """Return a parameter that is true or false.

        Raises:
            InvalidInputError: It is neither.
        """
        value = self.params.get(name, default)
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} is {value!r}, but must be true or false")
        return value

    def number(self, name: str) -> complex:
        """Return a parameter that is a number, or a pair of them; 1 if it is not given.

        Raises:
            InvalidInputError: It is neither.
        """
        value = self.params.get(name, 1.0)
        parts = value if isinstance(value, list) and len(value) == 2 else [value]
        if any(isinstance(x, bool) or not isinstance(x, int | float) for x in parts):
            raise InvalidInputError(
                f"{name} is {value!r:.80}, but must be a number, or [real, imaginary]"
            )
        try:
            return complex(*parts) if len(parts) == 2 else float(value)
        except OverflowError:
            raise InvalidInputError(f"{name} is too large for a float64") from None


def _typed(a: Matrix, value: np.dtype[Any], index: np.dtype[Any]) -> Matrix:
    return Csr(
        a.indptr.astype(index, copy=False), a.indices.astype(index, copy=False),
        a.data.astype(value, copy=False), a.shape,
    )  # fmt: skip
