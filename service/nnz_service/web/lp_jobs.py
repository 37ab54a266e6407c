"""What a job of kind `lp` needs, checked before it is written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import MatrixRecord, Owner, Repository, bundles
from nnz_service.web.job_params import check_known, check_real

METHODS = ("auto", "pdhg", "highs")
_TOLERANCES = ("eps_rel", "eps_abs")
#: Tolerances below this are beyond float64.
_FINEST = 1e-14
_PARAMETERS = frozenset(
    {"matrix", "method", "max_iterations", "time_limit", "offset"}
    | {*_TOLERANCES, "maximize", "polish", "presolve", "start"}
)
#: Inputs, by what their length must be; bounds may be infinite.
_ROWS, _COLUMNS = ("lc", "uc", "y0"), ("c", "lv", "uv", "x0")
_BOUNDS = ("lc", "uc", "lv", "uv")
_LOWER = ("lc", "lv")
#: What counts as infinite in bounds.
_INFINITE = 1e20
_STARTS = ("x0", "y0")


def check_lp(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    """Refuse what could not be solved.

    Raises:
        MalformedError: A parameter is unknown, or has the wrong type.
        NotFoundError: The matrix is not stored, or not theirs.
        ImpossibleError: Shapes, types or values do not fit.
    """
    check_known("lp", params, _PARAMETERS)
    _check_numbers(params)
    _check_choices(params)
    matrix = params.get("matrix")
    if not isinstance(matrix, str):
        raise MalformedError(
            "lp needs parameters.matrix, the id of a matrix or of a stored MPS file"
        )
    record = repository.matrix(matrix, owner)
    check_real("lp", record)
    rows, columns = record.shape
    unknown = tensors.keys() - {*_ROWS, *_COLUMNS}
    if unknown:
        raise InvalidInputError(
            f"lp has no input {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted((*_ROWS, *_COLUMNS)))}"
        )
    for name, vector in tensors.items():
        _check_vector(name, vector, rows if name in _ROWS else columns)
    for low, high in (("lc", "uc"), ("lv", "uv")):
        if low in tensors and high in tensors:
            _check_order(low, tensors[low], high, tensors[high])
    _check_start(params, [name for name in _STARTS if name in tensors])
    if "c" not in tensors and not _has_costs(record):
        raise InvalidInputError(
            "lp needs the costs as the input c: only a matrix was stored, not a program"
        )


def _has_costs(record: MatrixRecord) -> bool:
    """Say whether a program was stored.

    Where the file is damaged, or none can be opened now, the worker finds out.
    """
    try:
        return "c" in bundles.names(record.path)
    except (MalformedError, OSError):
        return True


def _check_start(params: Mapping[str, Any], given: list[str]) -> None:
    """Refuse a start that is no id, is told twice, or could not be used."""
    if "start" in params:
        if not isinstance(params["start"], str):
            raise MalformedError(
                f"parameters.start is {params['start']!r:.60}; it must be the id of a "
                "job"
            )
        if given:
            raise InvalidInputError(
                "parameters.start stands for x0 and y0; leave one or the other out"
            )
    elif not given:
        return
    if params.get("method") == "highs":
        raise InvalidInputError("a start is for the method pdhg, not for highs")
    if params.get("presolve"):
        raise InvalidInputError(
            "a start cannot be taken through presolve; leave one or the other out"
        )


def _check_numbers(params: Mapping[str, Any]) -> None:
    for name in (*_TOLERANCES, "polish", "time_limit", "offset", "max_iterations"):
        value = params.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MalformedError(f"parameters.{name} is {value!r}; it must be a number")
        if not math.isfinite(value):
            raise ImpossibleError(f"parameters.{name} is {value}; it must be finite")
    for name in _TOLERANCES:
        if not 0 <= params.get(name, 0) < 1:
            raise ImpossibleError(
                f"parameters.{name} is {params[name]}; it must be from 0 to below 1"
            )
    if sum(params.get(name, 1e-6) for name in _TOLERANCES) < _FINEST:
        raise ImpossibleError(
            "parameters.eps_rel and parameters.eps_abs are both almost 0; no float64 "
            "solution is so exact"
        )
    if not _FINEST <= params.get("polish", 0.5) < 1:
        raise ImpossibleError(
            f"parameters.polish is {params['polish']}; it must be from 1e-14 to below 1"
        )
    if not params.get("time_limit", 1) > 0:
        raise ImpossibleError("parameters.time_limit must be more than 0 seconds")
    limit = params.get("max_iterations", 1)
    if not isinstance(limit, int) or not 0 < limit < 2**53:
        raise ImpossibleError(
            f"parameters.max_iterations is {limit}; it must be a whole number from 1"
        )


def _check_choices(params: Mapping[str, Any]) -> None:
    for name in ("maximize", "presolve"):
        if not isinstance(params.get(name, False), bool):
            raise MalformedError(f"parameters.{name} must be true or false")
    method = params.get("method", "auto")
    if method not in METHODS:
        raise ImpossibleError(
            f"parameters.method is {method!r}; there are {', '.join(METHODS)}"
        )
    if method == "highs" and "polish" in params:
        raise ImpossibleError("parameters.polish is for the method pdhg, not for highs")


def _check_vector(name: str, vector: NDArray[Any], size: int) -> None:
    if vector.dtype.kind != "f" or vector.dtype.itemsize < 4:
        raise InvalidInputError(f"{name} is {vector.dtype}; it must be FP32 or FP64")
    if vector.shape != (size,):
        raise InvalidInputError(
            f"{name} has shape {list(vector.shape)}; the matrix needs [{size}]"
        )
    bad = np.isnan(vector) if name in _BOUNDS else ~np.isfinite(vector)
    if bad.any():
        right = "a NaN" if name in _BOUNDS else "a NaN or an infinity"
        raise InvalidInputError(f"{name} holds {right} at {int(np.argmax(bad))}")
    if name in _BOUNDS:
        _check_bound(name, vector)


def _check_bound(name: str, bound: NDArray[Any]) -> None:
    lower = name in _LOWER
    shut = bound >= _INFINITE if lower else bound <= -_INFINITE
    if shut.any():
        at = int(np.argmax(shut))
        right = "below infinity (1e20)" if lower else "above minus infinity (-1e20)"
        raise InvalidInputError(f"{name}[{at}] is {bound[at]}; it must be {right}")


def _check_order(low: str, lower: NDArray[Any], high: str, upper: NDArray[Any]) -> None:
    crossed = lower > upper
    if crossed.any():
        at = int(np.argmax(crossed))
        raise InvalidInputError(
            f"{low}[{at}] is {lower[at]}, but {high}[{at}] is {upper[at]}: a lower "
            "bound must not pass the upper one"
        )
