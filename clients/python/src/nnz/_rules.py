"""Decisions that both clients share and that need no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from nnz._errors import (
    JobCancelledError,
    JobFailedError,
    ProtocolError,
    RequestTimeoutError,
)
from nnz._graphs import EigenResult, GraphResult
from nnz._matrices import floats
from nnz._models import JobInfo, MatrixInfo, ModelInfo, SolveResult
from nnz._programs import LpResult
from nnz._tensors import Array, as_tensor, dtype_of

if TYPE_CHECKING:
    from nnz._expressions import Expression, HasExpression

H = TypeVar("H")

#: Seconds that the server may hold back the answer about a job; it allows 60.
LONG_POLL = 30.0
#: The same when somebody watches the progress.
WATCHED_POLL = 1.0


def feeds(
    info: ModelInfo, given: Mapping[str, ArrayLike] | ArrayLike
) -> dict[str, Array]:
    """Arrays by input name; what is no array yet takes the declared type.

    Raises:
        ValueError: One bare array for a model that has several inputs.
    """
    if not isinstance(given, Mapping):
        if len(info.inputs) != 1:
            names = ", ".join(spec.name for spec in info.inputs)
            raise ValueError(
                f"{info.name} has {len(info.inputs)} inputs ({names}); "
                "give a dict of arrays by name"
            )
        given = {info.inputs[0].name: given}
    declared = {spec.name: spec.datatype for spec in info.inputs}
    return {name: _typed(value, declared.get(name)) for name, value in given.items()}


def _typed(value: ArrayLike, datatype: str | None) -> Array:
    if datatype is None or isinstance(value, np.ndarray | np.generic):
        return as_tensor(value)
    return as_tensor(value, dtype_of(datatype))


def matrix_dtype(info: MatrixInfo) -> np.dtype[Any]:
    """The numpy type of a matrix, whichever way the server writes it."""
    try:
        return np.dtype(info.dtype)
    except TypeError:
        return dtype_of(info.dtype)


def operand(shape: tuple[int, int], dtype: np.dtype[Any], x: ArrayLike) -> Array:
    """A dense operand in the matrix's own type.

    Raises:
        TypeError: Complex numbers for a real matrix, a sparse matrix, objects or text.
        ValueError: It does not fit the matrix.
    """
    if hasattr(x, "tocsr"):
        raise TypeError(
            "a scipy matrix is not on the server; put it there with "
            "client.matrices.put, or send its toarray()"
        )
    array = np.asarray(x)
    if dtype.kind != "c" or array.dtype.kind != "c":
        array = floats(array)
    if array.ndim not in (1, 2) or array.shape[0] != shape[1]:
        raise ValueError(
            f"a matrix of shape {shape} multiplies ({shape[1]},) or ({shape[1]}, k), "
            f"not {array.shape}"
        )
    return array.astype(dtype, copy=False)


def bare_operand(
    shape: tuple[int, int], dtype: np.dtype[Any], x: ArrayLike, *more: object
) -> Array:
    """A dense operand, of whose product no part is picked and which has no label.

    Raises:
        TypeError: Some are given, or as `operand`.
        ValueError: It does not fit the matrix.
    """
    if any(one is not None for one in more):
        raise TypeError("a mask and a name are for products of two matrices")
    return operand(shape, dtype, x)


def numbers(dtype: np.dtype[Any], x: Array, conjugated: bool) -> Array:
    """Results of a matrix as numbers: of a complex one they come as pairs.

    Args:
        dtype: Of the matrix.
        x: What came.
        conjugated: Whether the matrix is seen with conjugate entries.
    """
    if dtype.kind != "c":
        return x
    z: Array = np.ascontiguousarray(x, np.float64).view(np.complex128)[..., 0]
    return z.conj() if conjugated else z


def real_only(dtype: np.dtype[Any]) -> None:
    """Refuse dense operands of complex matrices in expressions.

    Raises:
        TypeError: It is complex.
    """
    if dtype.kind == "c":
        raise TypeError(
            "expressions take dense operands of real matrices alone; A @ x multiplies "
            "a complex one"
        )


def one_dimensional(x: Array) -> Array:
    """The operand of matvec."""
    if x.ndim != 1:
        raise ValueError(f"matvec takes ({x.shape[0]},), not {x.shape}; see matmat")
    return x


def two_dimensional(x: Array) -> Array:
    """The operand of matmat."""
    if x.ndim != 2:
        raise ValueError(f"matmat takes ({x.shape[0]}, k), not {x.shape}; see matvec")
    return x


def transposed(x: ArrayLike) -> Array:
    """The left operand of ``x @ A``, turned."""
    return np.asarray(x).T


def matrix_repr(kind: str, info: MatrixInfo, transposed: bool) -> str:
    """What a matrix handle looks like."""
    turn = ".T" if transposed else ""
    return f"{kind}({info.id!r}, shape={info.shape}, nnz={info.nnz}){turn}"


class Deadline:
    """How long to let the server hold back the next answer about a job.

    Args:
        timeout: Seconds in all; None for no end.
        now: Monotonic clock.
    """

    def __init__(self, timeout: float | None, *, now: float) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else now + timeout

    def slice(self, info: JobInfo, progress: object, *, now: float) -> float:
        """Seconds of the next wait.

        Raises:
            RequestTimeoutError: The time is over.
        """
        most = LONG_POLL if progress is None else WATCHED_POLL
        if self._end is None:
            return most
        if now >= self._end:
            raise RequestTimeoutError(
                f"job {info.id} is still {info.status} after {self._timeout:g} s"
            )
        return min(most, max(self._end - now, 0.001))


def succeeded(info: JobInfo) -> None:
    """Check how a job ended.

    Raises:
        JobFailedError: It failed.
        JobCancelledError: It was cancelled.
    """
    if info.status == "failed":
        raise JobFailedError(f"job {info.id} failed: {info.error or 'no reason given'}")
    if info.status == "cancelled":
        raise JobCancelledError(f"job {info.id} was cancelled")


def result_of(
    info: JobInfo, outputs: dict[str, Array]
) -> SolveResult | LpResult | GraphResult | EigenResult:
    """The solution and its numbers, as the kind of the job has them.

    Raises:
        ProtocolError: The server left something out.
    """
    try:
        if info.kind == "lp":
            return LpResult.of(outputs, info.summary)
        if info.kind == "graph":
            return GraphResult.of(outputs, info.summary)
        if info.kind == "eigs":
            return EigenResult.of(outputs, info.summary)
        return SolveResult.of(outputs["x"], info.summary)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"the result of job {info.id} lacks {error}; it has the tensors "
            f"{sorted(outputs)} and the numbers {sorted(info.summary)}"
        ) from error


def made_by(info: JobInfo) -> MatrixInfo:
    """The matrix that a job made.

    Raises:
        ProtocolError: The server does not say.
    """
    try:
        return MatrixInfo.of(info.summary["matrix"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"job {info.id} lacks its matrix: {error!r}") from error


def solve_request(
    b: ArrayLike,
    x0: ArrayLike | None,
    matrix: MatrixInfo | None,
    parameters: Mapping[str, Any],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Inputs and parameters of a job that solves a linear system.

    Raises:
        ValueError: The right-hand side or the guess does not fit the matrix.
    """
    inputs = {"b": floats(b)} | ({} if x0 is None else {"x0": floats(x0)})
    right = inputs["b"]
    for name, block in inputs.items():
        axis = 0 if name == "b" else 1
        n = block.shape[:1] if matrix is None else (matrix.shape[axis],)
        if block.ndim not in (1, 2) or block.shape != (*n, *right.shape[1:]):
            rows = "n" if matrix is None else matrix.shape[axis]
            other = f" or ({rows}, k)" if name == "b" else ""
            columns = right.shape[1] if right.ndim == 2 else ""
            one = f"({rows}, {columns})" if columns != "" else f"({rows},)"
            raise ValueError(f"{name} has shape {block.shape}; {one}{other} is right")
    return inputs, dict(parameters)


def handle(other: object, kind: type[H]) -> H:
    """The other operand of a sum.

    Raises:
        TypeError: It is no matrix on the server.
    """
    if not isinstance(other, kind):
        raise TypeError(
            f"a matrix on the server adds another one, not {type(other).__name__}; put "
            "it there first"
        )
    return other


def factor(number: object) -> float:
    """A number by which every entry is multiplied.

    Raises:
        TypeError: It is none, or complex.
    """
    right = isinstance(number, int | float | np.integer | np.floating)
    if isinstance(number, bool) or not right:
        raise TypeError(
            f"a matrix on the server is multiplied by real numbers, not "
            f"{type(number).__name__}; a product of matrices is A @ B"
        )
    return float(cast("float", number))


def stored_id(one: Expression) -> str:
    """The id of a matrix that is stored as it is.

    Raises:
        ValueError: It is a view.
    """
    if not isinstance(one.source, str) or one.transposed or one.conjugated:
        raise ValueError("this is for stored matrices; a view becomes one by stored()")
    return one.source


def id_of(matrix: HasExpression | str) -> str:
    """The id of a matrix that is given as a handle or by its id.

    Raises:
        ValueError: The handle is a view.
    """
    return matrix if isinstance(matrix, str) else stored_id(matrix.lazy())
