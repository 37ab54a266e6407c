"""Operations on matrices of the server, written down before they are sent.

An expression knows its shape and type and what it is made of, and nothing of networks.
Several that share parts go in one request, in which each part is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from nnz import _rules as rules
from nnz._matrices import floats
from nnz._scipy_names import ScipyNames
from nnz._selections import Selection, both, size_of
from nnz._tensors import Array

_NORMS = {None: "fro", "fro": "fro", 1: "1", "1": "1", np.inf: "inf", "inf": "inf",
          "max": "max"}  # fmt: skip
#: The same of a transpose.
_TURNED = {"1": "inf", "inf": "1"}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation.

    Args:
        op: Its name on the server.
        matrices: Ids of stored ones, or what makes them.
        params: Of the operation.
        inputs: Dense operands, or what makes them.
    """

    op: str
    matrices: tuple[Node | str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Node | Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A vector, a block of columns or a number that an operation will give.

    Args:
        node: What makes it.
        shape: Its extents; () for a number.
        dtype: Of the matrix that it is about; None where that does not matter.
        conjugated: Whether its numbers are the conjugates of what comes.
    """

    node: Node
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None = None
    conjugated: bool = False


@runtime_checkable
class HasExpression(Protocol):
    """A handle of a matrix."""

    def lazy(self) -> Expression:
        """The matrix as an expression."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expression(ScipyNames):
    """A sparse matrix that is on the server, or will be.

    ``@``, ``+``, ``-``, products with numbers, ``T``, ``H``, ``[rows, columns]`` and
    the methods give further expressions. `Client.chain` computes them.

    Args:
        source: Id of a stored matrix, or what makes one.
        stored_shape: Rows and columns of that one.
        dtype: Type of its entries.
        transposed: This is the transpose of it.
        conjugated: Its entries are the conjugates.
    """

    source: Node | str
    stored_shape: tuple[int, int]
    dtype: np.dtype[Any]
    transposed: bool = False
    conjugated: bool = False

    #: numpy leaves operators to us instead of making arrays of objects.
    __array_ufunc__ = None
    #: Without it ``A[0]``, ``A[1]`` and so on would be tried.
    __iter__ = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        m, n = self.stored_shape
        return (n, m) if self.transposed else (m, n)

    @property
    def T(self) -> Expression:  # noqa: N802 (numpy's name)
        """The transpose."""
        return replace(self, transposed=not self.transposed)

    @property
    def H(self) -> Expression:  # noqa: N802 (scipy's name)
        """The conjugate transpose."""
        return self.T.conj()

    def conj(self) -> Expression:
        """The same with conjugate entries; itself when they are real."""
        return replace(self, conjugated=self.dtype.kind == "c" and not self.conjugated)

    def lazy(self) -> Expression:
        """Itself."""
        return self

    def plain(self) -> Expression:
        """The same without a view: a transpose becomes an operation."""
        if self.transposed:
            turned = {"conjugate": True} if self.conjugated else {}
            node = Node("transpose", (self.source,), turned)
            return Expression(node, self.shape, self.dtype)
        return self.T.plain().T.plain() if self.conjugated else self

    def __matmul__(self, x: Operand) -> Any:
        """``A @ B`` with a matrix, ``A @ x`` with a vector or columns."""
        if isinstance(x, HasExpression):
            return self.times(x.lazy())
        return self.applied(x)

    def times(
        self,
        other: HasExpression,
        *,
        semiring: str | None = None,
        mask: HasExpression | None = None,
    ) -> Expression:
        """``A @ B``, or only its entries at the places that a mask stores.

        Args:
            other: B.
            semiring: What adds and multiplies: ``plus_times`` (None), ``min_plus``,
                ``max_times`` or ``or_and``.
            mask: Of the shape of the product; its values do not matter.

        Raises:
            ValueError: Their shapes do not fit.
        """
        other = other.lazy()
        if self.shape[1] != other.shape[0]:
            raise ValueError(
                f"a matrix of shape {self.shape} cannot be multiplied with one of "
                f"shape {other.shape}"
            )
        a, b = self.plain(), other.plain()
        shape, sources = (a.shape[0], b.shape[1]), (a.source, b.source)
        params = {} if semiring is None else {"semiring": semiring}
        if mask is None:
            return self._new(Node("spgemm", sources, params), shape, other.dtype)
        wanted = mask.lazy().plain()
        if wanted.shape != shape:
            raise ValueError(f"the mask has shape {wanted.shape}; {shape} is right")
        node = Node("spgemm", (*sources, wanted.source), params)
        return self._new(node, shape, other.dtype)

    def applied(self, x: Dense | ArrayLike, *, semiring: str | None = None) -> Dense:
        """``A @ x``, x of shape ``(n,)`` or ``(n, k)``, perhaps over a semiring.

        Raises:
            ValueError: It does not fit.
        """
        rules.real_only(self.dtype)
        operand: Node | Array
        if isinstance(x, Dense):
            shape, operand = x.shape, x.node
            if len(shape) not in (1, 2) or shape[0] != self.shape[1]:
                raise ValueError(
                    f"a matrix of shape {self.shape} does not multiply {shape}"
                )
        else:
            operand = rules.operand(self.shape, self.dtype, x)
            shape = operand.shape
        params: dict[str, Any] = {"transpose": True} if self.transposed else {}
        if semiring is not None:
            params["semiring"] = semiring
        op = "spmv" if len(shape) == 1 else "spmm"
        node = Node(op, (self.source,), params, {"x": operand})
        return Dense(node, (self.shape[0], *shape[1:]))

    def __add__(self, other: HasExpression) -> Expression:
        """``A + B``."""
        if not isinstance(other, HasExpression):
            return NotImplemented
        return self._sum(other.lazy(), 1.0)

    def __sub__(self, other: HasExpression) -> Expression:
        """``A - B``."""
        if not isinstance(other, HasExpression):
            return NotImplemented
        return self._sum(other.lazy(), -1.0)

    def _sum(self, other: Expression, factor: float) -> Expression:
        a, b = self, other
        if a.shape != b.shape:
            raise ValueError(f"shapes {a.shape} and {b.shape} cannot be added")
        if (a.transposed, a.conjugated) != (b.transposed, b.conjugated):
            a, b = a.plain(), b.plain()
        params = {} if factor == 1 else {"beta": factor}
        node = Node("add", (a.source, b.source), params)
        made = a._new(node, a.stored_shape, b.dtype)
        return replace(made, transposed=a.transposed, conjugated=a.conjugated)

    def __mul__(self, factor: float) -> Expression:
        """``A * 2``: every entry times a number; see ``@`` for products."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number):
            return NotImplemented
        if np.iscomplexobj(factor):
            raise TypeError("the factor of a matrix is a real number")
        if not np.isfinite(factor):
            raise ValueError(f"the factor of a matrix is {factor}; it must be finite")
        return self._kept(Node("scale", (self.source,), {"alpha": float(factor)}))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Expression:
        """``A / 2``."""
        return self * (1.0 / divisor)

    def __neg__(self) -> Expression:
        """``-A``."""
        return self * -1.0

    def __getitem__(self, key: Any) -> Expression:
        """``A[rows, columns]``: slices, one list beside a slice, or ``np.ix_``.

        Raises:
            IndexError: Numbers are outside, or the key would not give a matrix.
        """
        picked = both(key, self.shape)
        if self.transposed:
            picked = picked[::-1]
        params, inputs = {}, {}
        for name, one in zip(("rows", "columns"), picked, strict=True):
            if isinstance(one, slice):
                params[name] = [one.start, one.stop, one.step]
            elif one is not None:
                inputs[name] = one
        node = Node("submatrix", (self.source,), params, inputs)
        extents = zip(picked, self.stored_shape, strict=True)
        rows, columns = (_extent(one, extent) for one, extent in extents)
        return replace(self, source=node, stored_shape=(rows, columns))

    def scale(
        self, rows: ArrayLike | None = None, columns: ArrayLike | None = None
    ) -> Expression:
        """``diag(rows) @ A @ diag(columns)``; None leaves that side as it is.

        Raises:
            ValueError: Factors do not fit.
        """
        rules.real_only(self.dtype)
        given = (rows, columns)
        inputs = {}
        for name, factors, size in zip(
            ("rows", "columns"), given, self.shape, strict=True
        ):
            if factors is None:
                continue
            array = floats(factors)
            if array.shape != (size,):
                raise ValueError(f"{name} has shape {array.shape}; ({size},) is right")
            turned = {"rows": "columns", "columns": "rows"}
            inputs[turned[name] if self.transposed else name] = array
        return self._kept(Node("scale", (self.source,), {}, inputs))

    def sddmm(self, x: ArrayLike, y: ArrayLike) -> Expression:
        """``x[i] . y[j]`` at each entry (i, j): x is ``(m, k)``, y ``(n, k)``.

        Raises:
            ValueError: They do not fit.
        """
        rules.real_only(self.dtype)
        a, b = floats(x), floats(y)
        m, n = self.shape
        if a.ndim != 2 or b.ndim != 2 or (len(a), len(b)) != (m, n):
            raise ValueError(
                f"x and y have shapes {a.shape} and {b.shape}; ({m}, k) and ({n}, k) "
                "are right"
            )
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"x has {a.shape[1]} columns and y {b.shape[1]}")
        pair = (b, a) if self.transposed else (a, b)
        node = Node("sddmm", (self.source,), {}, dict(zip("xy", pair, strict=True)))
        return replace(self._kept(node), conjugated=False)

    def solve_triangular(
        self, b: ArrayLike | Dense, *, lower: bool = True, unit_diagonal: bool = False
    ) -> Dense:
        """X of ``T x = b``, T the named triangle: b is ``(n,)`` or ``(n, k)``.

        Raises:
            ValueError: It does not fit, or the matrix is not square.
        """
        n = self.shape[0]
        if self.shape[1] != n:
            raise ValueError(f"a matrix of shape {self.shape} has no triangles")
        rules.real_only(self.dtype)
        operand = b.node if isinstance(b, Dense) else floats(b)
        shape = b.shape if isinstance(b, Dense) else np.shape(b)
        if len(shape) not in (1, 2) or shape[0] != n:
            raise ValueError(f"b has shape {shape}; ({n},) or ({n}, k) is right")
        params = {"lower": lower, "unit_diagonal": unit_diagonal}
        source = self.plain().source
        return Dense(Node("triangular_solve", (source,), params, {"b": operand}), shape)

    def norm(self, kind: float | str | None = None) -> Dense:
        """Frobenius (None, "fro"), 1, inf, or "max": the largest magnitude.

        Raises:
            ValueError: Another one.
        """
        if kind not in _NORMS:
            raise ValueError(f"the norm is {kind!r}; 'fro', 1, inf and 'max' are right")
        name = _NORMS[kind]
        if self.transposed:
            name = _TURNED.get(name, name)
        return Dense(Node("norm", (self.source,), {"kind": name}), ())

    def sum(self, axis: int) -> Dense:
        """Sums of the columns (axis 0, ``(n,)``) or of the rows (axis 1, ``(m,)``).

        Raises:
            ValueError: Another axis.
        """
        if axis not in (0, 1, -1, -2):
            raise ValueError(f"axis is {axis!r}; 0 and 1 are right")
        stored = (axis % 2) ^ self.transposed
        node = Node("sums", (self.source,), {"axis": int(stored)})
        return Dense(node, (self.shape[1 - axis % 2],), self.dtype, self.conjugated)

    def diagonal(self) -> Dense:
        """The entries (i, i), ``(min(m, n),)``; 0 where none is stored."""
        node = Node("diagonal", (self.source,))
        return Dense(node, (min(self.shape),), self.dtype, self.conjugated)

    def _new(
        self, node: Node, shape: tuple[int, int], other: np.dtype[Any]
    ) -> Expression:
        return Expression(node, shape, np.result_type(self.dtype, other))

    def _kept(self, node: Node) -> Expression:
        """What an operation gives that leaves shape and view as they are."""
        return replace(self, source=node)

    def __repr__(self) -> str:
        """Shape and what comes last."""
        last = self.source if isinstance(self.source, str) else self.source.op
        return f"Expression({last!r}, shape={self.shape})"


Operand = HasExpression | Dense | ArrayLike
Wanted = Expression | Dense


def _extent(one: Selection, extent: int) -> int:
    return extent if one is None else size_of(one, extent)


def kept_view(one: Wanted) -> Wanted:
    """The same, but a view of a stored matrix becomes an operation."""
    if isinstance(one, Expression) and isinstance(one.source, str):
        return one.plain()
    return one
