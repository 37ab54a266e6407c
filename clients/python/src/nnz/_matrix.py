"""A sparse matrix on the server, held by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _matrix_calls as matrix_calls
from nnz import _rules as rules
from nnz._expressions import Dense, Expression
from nnz._factors import Factors
from nnz._matrices import ScipyMatrix, to_scipy
from nnz._models import MatrixInfo
from nnz._scipy_names import ScipyNames
from nnz._sending import Send
from nnz._tensors import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import LinearOperator


class Matrix(ScipyNames):
    """A sparse matrix on the server; only vectors travel.

    ``A @ x`` and ``A.T @ y`` multiply. ``A @ B``, ``A + B``, ``2 * A``, ``A[1:, ::2]``
    and the methods that give matrices are computed there at once, and their results
    stay there; `lazy` puts several into one request, ``A @ B.lazy()`` too. scipy's
    iterative solvers take a matrix as it is, or as `as_linear_operator()`.

    Args:
        send: How calls are sent.
        info: What the server said about it.
        transposed: This is the transpose of the stored matrix.
        conjugated: Its entries are the conjugates of those stored.
    """

    #: numpy leaves ``x @ A`` to us instead of making an array of objects.
    __array_ufunc__ = None
    #: Without it ``A[0]``, ``A[1]`` and so on would be tried.
    __iter__ = None
    ndim = 2

    def __init__(
        self,
        send: Send,
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
    def T(self) -> Matrix:  # noqa: N802 (numpy's name)
        """The transpose; nothing is sent or copied."""
        return Matrix(self._send, self.info, not self._transposed, self._conjugated)

    @property
    def H(self) -> Matrix:  # noqa: N802 (scipy's name)
        """The conjugate transpose; nothing is sent or copied."""
        return self._viewed(self.lazy().H)

    def conj(self) -> Matrix:
        """The matrix of conjugate entries; nothing is sent or copied."""
        return self._viewed(self.lazy().conj())

    def lazy(self) -> Expression:
        """The matrix as an expression, of which `Client.chain` computes others.

        Example:
            >>> a, p = A.lazy(), P.lazy()  # doctest: +SKIP
            >>> coarse = p.T @ a @ p  # nothing is sent yet  # doctest: +SKIP
            >>> C, d = client.chain(coarse, coarse.diagonal())  # doctest: +SKIP
        """
        return Expression(
            self.id, self.info.shape, self.dtype, self._transposed, self._conjugated
        )

    def matvec(self, x: ArrayLike) -> Array:
        """``A x``: x of shape ``(n,)`` or ``(n, 1)``; the answer has the same form."""
        vector = rules.operand(self.shape, self.dtype, x)
        if vector.ndim == 2 and vector.shape[1] == 1:
            return self._product(vector[:, 0])[:, None]
        return self._product(rules.one_dimensional(vector))

    def rmatvec(self, y: ArrayLike) -> Array:
        """``A^H y``: y of shape ``(m,)`` or ``(m, 1)``."""
        return self.H.matvec(y)

    def matmat(self, x: ArrayLike) -> Array:
        """``A X``: X of shape ``(n, k)``."""
        operand = rules.operand(self.shape, self.dtype, x)
        return self._product(rules.two_dimensional(operand))

    def rmatmat(self, y: ArrayLike) -> Array:
        """``A^H Y``: Y of shape ``(m, k)``."""
        return self.H.matmat(y)

    @overload
    def __matmul__(self, x: Matrix) -> Matrix: ...
    @overload
    def __matmul__(self, x: Expression) -> Expression: ...
    @overload
    def __matmul__(self, x: Dense) -> Dense: ...
    @overload
    def __matmul__(self, x: ArrayLike) -> Array: ...
    def __matmul__(self, x: Matrix | Expression | Dense | ArrayLike) -> Any:
        """``A @ x`` for a vector ``(n,)``, the columns of ``(n, k)``, or a matrix."""
        if isinstance(x, Expression | Dense):
            return self.lazy() @ x
        if isinstance(x, Matrix):
            return self._computed(self.lazy().times(x.lazy()))
        return self._product(rules.operand(self.shape, self.dtype, x))

    def __rmatmul__(self, x: ArrayLike) -> Array:
        """``x @ A`` for a vector ``(m,)`` or the rows of ``(k, m)``."""
        return (self.T @ rules.transposed(x)).T

    @overload
    def __add__(self, other: Matrix) -> Matrix: ...
    @overload
    def __add__(self, other: Expression) -> Expression: ...
    def __add__(self, other: Matrix | Expression) -> Matrix | Expression:
        """``A + B``: entries that cancel stay stored."""
        if isinstance(other, Expression):
            return self.lazy() + other
        return self._computed(self.lazy() + rules.handle(other, Matrix).lazy())

    @overload
    def __sub__(self, other: Matrix) -> Matrix: ...
    @overload
    def __sub__(self, other: Expression) -> Expression: ...
    def __sub__(self, other: Matrix | Expression) -> Matrix | Expression:
        """``A - B``."""
        if isinstance(other, Expression):
            return self.lazy() - other
        return self._computed(self.lazy() - rules.handle(other, Matrix).lazy())

    def __mul__(self, factor: float) -> Matrix:
        """``A * 2``: every entry times a real number."""
        return self._computed(self.lazy() * rules.factor(factor))

    def __rmul__(self, factor: float) -> Matrix:
        """``2 * A``."""
        return self._computed(self.lazy() * rules.factor(factor))

    def __truediv__(self, divisor: float) -> Matrix:
        """``A / 2``."""
        return self._computed(self.lazy() / rules.factor(divisor))

    def __neg__(self) -> Matrix:
        """``-A``."""
        return self._computed(-self.lazy())

    def __getitem__(self, key: Any) -> Matrix:
        """``A[rows, columns]``: slices, one list beside a slice, or ``np.ix_``.

        Raises:
            IndexError: Numbers are outside, or the key would not give a matrix.
        """
        return self._computed(self.lazy()[key])

    @overload
    def product(
        self,
        other: Matrix,
        *,
        semiring: str | None = None,
        mask: Matrix | None = None,
        name: str | None = None,
    ) -> Matrix: ...
    @overload
    def product(self, other: ArrayLike, *, semiring: str | None = None) -> Array: ...
    def product(
        self,
        other: Matrix | ArrayLike,
        *,
        semiring: str | None = None,
        mask: Matrix | None = None,
        name: str | None = None,
    ) -> Matrix | Array:
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
        if not isinstance(other, Matrix):
            x = rules.bare_operand(self.shape, self.dtype, other, mask, name)
            return self._product(x, semiring)
        product = self.lazy().times(other, semiring=semiring, mask=mask)
        return self._computed(product, name)

    def scale(
        self,
        rows: ArrayLike | None = None,
        columns: ArrayLike | None = None,
        *,
        name: str | None = None,
    ) -> Matrix:
        """``diag(rows) @ A @ diag(columns)``; None leaves that side as it is."""
        return self._computed(self.lazy().scale(rows, columns), name)

    def sddmm(self, x: ArrayLike, y: ArrayLike, *, name: str | None = None) -> Matrix:
        """``x[i] . y[j]`` at each entry (i, j): x is ``(m, k)``, y ``(n, k)``."""
        return self._computed(self.lazy().sddmm(x, y), name)

    def stored(self, *, name: str | None = None) -> Matrix:
        """A matrix of its own in place of a view such as ``A.T``; else itself."""
        plain = self.lazy().plain()
        return self if isinstance(plain.source, str) else self._computed(plain, name)

    def solve_triangular(
        self, b: ArrayLike, *, lower: bool = True, unit_diagonal: bool = False
    ) -> Array:
        """X of ``T x = b``, T one triangle of A: b is ``(n,)`` or ``(n, k)``.

        Args:
            b: Right-hand side.
            lower: Which triangle; the other one is not read.
            unit_diagonal: Take ones for the diagonal, whatever is stored.

        Raises:
            ImpossibleError: An entry of the diagonal is zero; it names the row.
        """
        solved = self.lazy().solve_triangular(
            b, lower=lower, unit_diagonal=unit_diagonal
        )
        return self._send(chain_calls.array(solved))

    def diagonal(self) -> Array:
        """The entries (i, i), ``(min(m, n),)``; 0 where none is stored."""
        return self._send(chain_calls.array(self.lazy().diagonal()))

    def sum(self, axis: int | None = None) -> Array | complex:
        """Sums of columns (axis 0), of rows (axis 1), or of all entries (None)."""
        sums = self._send(
            chain_calls.array(self.lazy().sum(1 if axis is None else axis))
        )
        return sums.sum().item() if axis is None else sums

    def norm(self, kind: float | str | None = None) -> float:
        """Frobenius (None, "fro"), 1, inf, or "max": the largest magnitude."""
        return self._send(chain_calls.number(self.lazy().norm(kind)))

    def factorize(self, *, timeout: float | None = None) -> Factors:
        """LU factors that stay on the server and solve one right-hand side at a time.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            ImpossibleError: The matrix is not square.
            JobFailedError: It is singular, or the factors take more memory than the
                server lends.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        return Factors.make(self._send, self.stored().info, timeout)

    def preflight(
        self,
        op: str,
        other: Matrix | None = None,
        *,
        exact: bool = False,
        inputs: Mapping[str, ArrayLike] | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """What an operation would cost; nothing is computed.

        Args:
            op: The server's name for it, such as ``spgemm``.
            other: The second matrix, where there is one.
            exact: Count the entries of the result where a bound would do.
            inputs: Dense operands by name.
            **parameters: Of the operation.

        Returns:
            ``flops``, ``output_nnz``, ``output_nnz_exact``, ``output_bytes``,
            ``seconds``, ``fits`` and the limits.

        Raises:
            ValueError: One is a view; `Client.preflight` takes expressions.
        """
        ids = [rules.stored_id(one.lazy()) for one in (self, other) if one is not None]
        return self._send(
            chain_calls.preflight_op(
                op,
                ids[0],
                ids[1] if other is not None else None,
                inputs or {},
                parameters,
                exact=exact,
            )
        )

    def as_linear_operator(self) -> LinearOperator:
        """The matrix as scipy sees operators; needs scipy."""
        from scipy.sparse.linalg import LinearOperator

        operator: LinearOperator = LinearOperator(
            self.shape,
            matvec=self.matvec,
            rmatvec=self.rmatvec,
            matmat=self.matmat,
            rmatmat=self.rmatmat,
            dtype=self.dtype,
        )
        return operator

    def to_scipy(self) -> csr_array[Any]:
        """Fetch the entries; needs scipy."""
        parts = self._send(chain_calls.entries_of(self.info))
        return to_scipy(parts, self.info.shape, self._transposed, self._conjugated)

    def spy(self, size: int = 512) -> bytes:
        """Draw where the entries are; a PNG file.

        Args:
            size: Pixels of the longer side, 16 to 2048.
        """
        return self._send(matrix_calls.spy(self.id, size))

    def with_values(
        self, values: ScipyMatrix | ArrayLike, *, name: str | None = None
    ) -> Matrix:
        """A new matrix on the server with other values at the same places.

        Args:
            values: A scipy matrix with the same stored places, which are checked, or an
                array ``(nnz,)``: row by row, columns ascending.
            name: A label for people.

        Raises:
            ConflictError: The places are others.
            ValueError: This is a view, such as ``A.T``.
        """
        matrix_id = rules.stored_id(self.lazy())
        info = self._send(matrix_calls.put_values(matrix_id, values, name))
        return Matrix(self._send, info)

    def load(self) -> None:
        """Make it resident now instead of at its next use."""
        self.info = self._send(matrix_calls.reside(self.id, "load"))

    def unload(self) -> None:
        """Free its memory on the server; its next use loads it again."""
        self.info = self._send(matrix_calls.reside(self.id, "unload"))

    def pin(self) -> None:
        """Keep it resident whatever else is loaded; for admins."""
        self.info = self._send(matrix_calls.reside(self.id, "pin"))

    def unpin(self) -> None:
        """Let it go when others need the memory; for admins."""
        self.info = self._send(matrix_calls.reside(self.id, "unpin"))

    def delete(self) -> None:
        """Remove it from the server."""
        self._send(calls.delete_matrix(self.id))

    def _product(self, x: Array, semiring: str | None = None) -> Array:
        view = self._transposed, self._conjugated
        return self._send(matrix_calls.product(self.id, x, *view, semiring))

    def _computed(self, one: Expression, name: str | None = None) -> Matrix:
        info = self._send(chain_calls.matrix(one, name))
        return Matrix(self._send, info, one.transposed, one.conjugated)

    def _viewed(self, one: Expression) -> Matrix:
        return Matrix(self._send, self.info, one.transposed, one.conjugated)

    def __repr__(self) -> str:
        """Id, shape and entries."""
        return rules.matrix_repr("Matrix", self.info, self._transposed)
