"""A sparse matrix on the server, held by a program with a loop."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _matrix_calls as matrix_calls
from nnz import _rules as rules
from nnz._expressions import Dense, Expression
from nnz._factors import AsyncFactors
from nnz._matrices import ScipyMatrix, to_scipy
from nnz._models import MatrixInfo
from nnz._scipy_names import AsyncScipyNames
from nnz._sending import AsyncSend
from nnz._tensors import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class AsyncMatrix(AsyncScipyNames):
    """A sparse matrix on the server; see `nnz.Matrix`.

    ``await (A @ x)`` and ``await A.matvec(x)`` multiply; several at once are answered
    together. ``await (A @ B)`` and ``await A[1:, ::2]`` give matrices; ``A @ B.lazy()``
    is an expression, and nothing to wait for.
    """

    #: numpy leaves ``x @ A`` to us instead of making an array of objects.
    __array_ufunc__ = None
    #: Without it ``A[0]``, ``A[1]`` and so on would be tried.
    __iter__ = None
    ndim = 2

    def __init__(
        self,
        send: AsyncSend,
        info: MatrixInfo,
        transposed: bool = False,
        conjugated: bool = False,
    ) -> None:
        self._send = send
        self.info = info
        self._transposed, self._conjugated = transposed, conjugated
        self.shape = info.shape[::-1] if transposed else info.shape
        self.dtype = rules.matrix_dtype(info)

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.info.nnz

    @property
    def T(self) -> AsyncMatrix:  # noqa: N802 (numpy's name)
        """The transpose; nothing is sent or copied."""
        return AsyncMatrix(
            self._send, self.info, not self._transposed, self._conjugated
        )

    @property
    def H(self) -> AsyncMatrix:  # noqa: N802 (scipy's name)
        """The conjugate transpose; nothing is sent or copied."""
        return self._viewed(self.lazy().H)

    def conj(self) -> AsyncMatrix:
        """The matrix of conjugate entries; nothing is sent or copied."""
        return self._viewed(self.lazy().conj())

    def lazy(self) -> Expression:
        """The matrix as an expression, of which `AsyncClient.chain` computes others."""
        return Expression(
            self.id, self.info.shape, self.dtype, self._transposed, self._conjugated
        )

    async def matvec(self, x: ArrayLike) -> Array:
        """``A x``: x of shape ``(n,)`` or ``(n, 1)``; the answer has the same form."""
        vector = rules.operand(self.shape, self.dtype, x)
        if vector.ndim == 2 and vector.shape[1] == 1:
            return (await self._product(vector[:, 0]))[:, None]
        return await self._product(rules.one_dimensional(vector))

    async def rmatvec(self, y: ArrayLike) -> Array:
        """``A^H y``: y of shape ``(m,)`` or ``(m, 1)``."""
        return await self.H.matvec(y)

    async def matmat(self, x: ArrayLike) -> Array:
        """``A X``: X of shape ``(n, k)``."""
        operand = rules.operand(self.shape, self.dtype, x)
        return await self._product(rules.two_dimensional(operand))

    async def rmatmat(self, y: ArrayLike) -> Array:
        """``A^H Y``: Y of shape ``(m, k)``."""
        return await self.H.matmat(y)

    @overload
    def __matmul__(self, x: AsyncMatrix) -> Coroutine[Any, Any, AsyncMatrix]: ...
    @overload
    def __matmul__(self, x: Expression) -> Expression: ...
    @overload
    def __matmul__(self, x: Dense) -> Dense: ...
    @overload
    def __matmul__(self, x: ArrayLike) -> Coroutine[Any, Any, Array]: ...
    def __matmul__(self, x: AsyncMatrix | Expression | Dense | ArrayLike) -> Any:
        """``A @ x`` for a vector ``(n,)``, the columns of ``(n, k)``, or a matrix."""
        if isinstance(x, Expression | Dense):
            return self.lazy() @ x
        if isinstance(x, AsyncMatrix):
            return self._computed(self.lazy().times(x.lazy()))
        return self._product(rules.operand(self.shape, self.dtype, x))

    async def __rmatmul__(self, x: ArrayLike) -> Array:
        """``x @ A`` for a vector ``(m,)`` or the rows of ``(k, m)``."""
        turned = self.T
        operand = rules.operand(turned.shape, self.dtype, rules.transposed(x))
        return (await turned._product(operand)).T

    @overload
    def __add__(self, other: AsyncMatrix) -> Coroutine[Any, Any, AsyncMatrix]: ...
    @overload
    def __add__(self, other: Expression) -> Expression: ...
    def __add__(
        self, other: AsyncMatrix | Expression
    ) -> Coroutine[Any, Any, AsyncMatrix] | Expression:
        """``A + B``: entries that cancel stay stored."""
        if isinstance(other, Expression):
            return self.lazy() + other
        return self._computed(self.lazy() + rules.handle(other, AsyncMatrix).lazy())

    @overload
    def __sub__(self, other: AsyncMatrix) -> Coroutine[Any, Any, AsyncMatrix]: ...
    @overload
    def __sub__(self, other: Expression) -> Expression: ...
    def __sub__(
        self, other: AsyncMatrix | Expression
    ) -> Coroutine[Any, Any, AsyncMatrix] | Expression:
        """``A - B``."""
        if isinstance(other, Expression):
            return self.lazy() - other
        return self._computed(self.lazy() - rules.handle(other, AsyncMatrix).lazy())

    async def __mul__(self, factor: float) -> AsyncMatrix:
        """``A * 2``: every entry times a real number."""
        return await self._computed(self.lazy() * rules.factor(factor))

    async def __rmul__(self, factor: float) -> AsyncMatrix:
        """``2 * A``."""
        return await self._computed(self.lazy() * rules.factor(factor))

    async def __truediv__(self, divisor: float) -> AsyncMatrix:
        """``A / 2``."""
        return await self._computed(self.lazy() / rules.factor(divisor))

    async def __neg__(self) -> AsyncMatrix:
        """``-A``."""
        return await self._computed(-self.lazy())

    async def __getitem__(self, key: Any) -> AsyncMatrix:
        """``A[rows, columns]``; see `nnz.Matrix`."""
        return await self._computed(self.lazy()[key])

    @overload
    async def product(
        self,
        other: AsyncMatrix,
        *,
        semiring: str | None = None,
        mask: AsyncMatrix | None = None,
        name: str | None = None,
    ) -> AsyncMatrix: ...
    @overload
    async def product(
        self, other: ArrayLike, *, semiring: str | None = None
    ) -> Array: ...
    async def product(
        self,
        other: AsyncMatrix | ArrayLike,
        *,
        semiring: str | None = None,
        mask: AsyncMatrix | None = None,
        name: str | None = None,
    ) -> AsyncMatrix | Array:
        """``A @ B`` over a semiring, or only those entries that a mask stores.

        Args:
            other: B, or x of shape ``(n,)`` or ``(n, k)``.
            semiring: What adds and multiplies: ``plus_times`` (None), ``min_plus``
                (shortest paths), ``max_times`` or ``or_and`` (reachability).
            mask: Of the shape of the product; only entries where it stores one are
                computed, whatever their values.
            name: A label for the matrix.

        Raises:
            ValueError: Shapes do not fit.
        """
        if not isinstance(other, AsyncMatrix):
            x = rules.bare_operand(self.shape, self.dtype, other, mask, name)
            return await self._product(x, semiring)
        product = self.lazy().times(other, semiring=semiring, mask=mask)
        return await self._computed(product, name)

    async def scale(
        self,
        rows: ArrayLike | None = None,
        columns: ArrayLike | None = None,
        *,
        name: str | None = None,
    ) -> AsyncMatrix:
        """``diag(rows) @ A @ diag(columns)``; None leaves that side as it is."""
        return await self._computed(self.lazy().scale(rows, columns), name)

    async def sddmm(
        self, x: ArrayLike, y: ArrayLike, *, name: str | None = None
    ) -> AsyncMatrix:
        """``x[i] . y[j]`` at each entry (i, j): x is ``(m, k)``, y ``(n, k)``."""
        return await self._computed(self.lazy().sddmm(x, y), name)

    async def stored(self, *, name: str | None = None) -> AsyncMatrix:
        """A matrix of its own in place of a view such as ``A.T``; else itself."""
        plain = self.lazy().plain()
        if isinstance(plain.source, str):
            return self
        return await self._computed(plain, name)

    async def solve_triangular(
        self, b: ArrayLike, *, lower: bool = True, unit_diagonal: bool = False
    ) -> Array:
        """X of ``T x = b``, T one triangle of A; see `nnz.Matrix`."""
        solved = self.lazy().solve_triangular(
            b, lower=lower, unit_diagonal=unit_diagonal
        )
        return await self._send(chain_calls.array(solved))

    async def diagonal(self) -> Array:
        """The entries (i, i), ``(min(m, n),)``; 0 where none is stored."""
        return await self._send(chain_calls.array(self.lazy().diagonal()))

    async def sum(self, axis: int | None = None) -> Array | complex:
        """Sums of columns (axis 0), of rows (axis 1), or of all entries (None)."""
        sums = await self._send(
            chain_calls.array(self.lazy().sum(1 if axis is None else axis))
        )
        return sums.sum().item() if axis is None else sums

    async def norm(self, kind: float | str | None = None) -> float:
        """Frobenius (None, "fro"), 1, inf, or "max": the largest magnitude."""
        return await self._send(chain_calls.number(self.lazy().norm(kind)))

    async def factorize(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as Matrix's)
    ) -> AsyncFactors:
        """LU factors that stay on the server; see `nnz.Matrix.factorize`."""
        return await AsyncFactors.make(self._send, (await self.stored()).info, timeout)

    async def preflight(
        self,
        op: str,
        other: AsyncMatrix | None = None,
        *,
        exact: bool = False,
        inputs: Mapping[str, ArrayLike] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """What an operation would cost; see `nnz.Matrix.preflight`."""
        ids = [rules.stored_id(one.lazy()) for one in (self, other) if one is not None]
        return await self._send(
            chain_calls.preflight_op(
                op,
                ids[0],
                ids[1] if other is not None else None,
                inputs or {},
                parameters,
                exact=exact,
            )
        )

    async def to_scipy(self) -> csr_array[Any]:
        """Fetch the entries; needs scipy."""
        parts = await self._send(chain_calls.entries_of(self.info))
        return to_scipy(parts, self.info.shape, self._transposed, self._conjugated)

    async def spy(self, size: int = 512) -> bytes:
        """Draw where the entries are; a PNG file of `size` pixels."""
        return await self._send(matrix_calls.spy(self.id, size))

    async def with_values(
        self, values: ScipyMatrix | ArrayLike, *, name: str | None = None
    ) -> AsyncMatrix:
        """A new matrix with other values at the same places; see `nnz.Matrix`."""
        matrix_id = rules.stored_id(self.lazy())
        info = await self._send(matrix_calls.put_values(matrix_id, values, name))
        return AsyncMatrix(self._send, info)

    async def load(self) -> None:
        """Make it resident now instead of at its next use."""
        self.info = await self._send(matrix_calls.reside(self.id, "load"))

    async def unload(self) -> None:
        """Free its memory on the server; its next use loads it again."""
        self.info = await self._send(matrix_calls.reside(self.id, "unload"))

    async def pin(self) -> None:
        """Keep it resident whatever else is loaded; for admins."""
        self.info = await self._send(matrix_calls.reside(self.id, "pin"))

    async def unpin(self) -> None:
        """Let it go when others need the memory; for admins."""
        self.info = await self._send(matrix_calls.reside(self.id, "unpin"))

    async def delete(self) -> None:
        """Remove it from the server."""
        await self._send(calls.delete_matrix(self.id))

    async def _product(self, x: Array, semiring: str | None = None) -> Array:
        view = self._transposed, self._conjugated
        return await self._send(matrix_calls.product(self.id, x, *view, semiring))

    async def _computed(self, one: Expression, name: str | None = None) -> AsyncMatrix:
        info = await self._send(chain_calls.matrix(one, name))
        return AsyncMatrix(self._send, info, one.transposed, one.conjugated)

    def _viewed(self, one: Expression) -> AsyncMatrix:
        return AsyncMatrix(self._send, self.info, one.transposed, one.conjugated)

    def __repr__(self) -> str:
        """Id, shape and entries."""
        return rules.matrix_repr("AsyncMatrix", self.info, self._transposed)
