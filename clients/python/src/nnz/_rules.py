"""Decisions that both clients share and that need no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnz._errors import (
    JobCancelledError,
    JobFailedError,
    ProtocolError,
    RequestTimeoutError,
)
from nnz._matrices import floats
from nnz._models import CgResult, JobInfo, MatrixInfo, ModelInfo
from nnz._tensors import Array, as_tensor, dtype_of

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
        TypeError: Complex numbers, objects or text.
        ValueError: It does not fit the matrix.
    """
    array = floats(x)
    if array.ndim not in (1, 2) or array.shape[0] != shape[1]:
        raise ValueError(
            f"a matrix of shape {shape} multiplies ({shape[1]},) or ({shape[1]}, k), "
            f"not {array.shape}"
        )
    return array.astype(dtype, copy=False)


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


def cg_result(info: JobInfo, outputs: dict[str, Array]) -> CgResult:
    """The solution and its numbers.

    Raises:
        ProtocolError: The server left something out.
    """
    try:
        return CgResult.of(outputs["x"], info.summary)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"the result of job {info.id} lacks {error}; it has the tensors "
            f"{sorted(outputs)} and the numbers {sorted(info.summary)}"
        ) from error


def cg_request(
    b: ArrayLike,
    x0: ArrayLike | None,
    matrix: MatrixInfo | None,
    parameters: Mapping[str, Any],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Inputs and parameters of a conjugate-gradient job.

    Raises:
        ValueError: The right-hand side does not fit the matrix.
    """
    inputs = {"b": floats(b)} | ({} if x0 is None else {"x0": floats(x0)})
    for name, vector in inputs.items():
        expected = vector.shape if matrix is None else (matrix.shape[0],)
        if vector.ndim != 1 or vector.shape != expected:
            rows = "n" if matrix is None else matrix.shape[0]
            raise ValueError(f"{name} has shape {vector.shape}; ({rows},) is right")
    return inputs, dict(parameters)
