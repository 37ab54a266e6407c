"""Which jobs there are and what each one needs, checked before it is written down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import EVERYBODY, Owner, Repository
from nnz_service.web.codecs import TensorRequest

KINDS = ("cg",)
_CG_PARAMETERS = frozenset({"matrix", "rtol", "atol", "maxiter", "preconditioner"})
_PRECONDITIONERS = ("none", "jacobi")
#: Parameters of the protocol that say nothing about the work.
_ABOUT_THE_ANSWER = frozenset({"binary_data_output", "timeout", "priority"})


def check(
    repository: Repository, asked: TensorRequest, owner: Owner = EVERYBODY
) -> tuple[str, dict[str, Any]]:
    """Return the kind and the parameters of a job that can run for `owner`.

    Raises:
        MalformedError: The kind is missing, or a parameter has the wrong type.
        NotFoundError: The matrix is not stored, or not theirs.
        ImpossibleError: The kind is unknown, or shapes, types or values do not fit.
    """
    kind = asked.fields.get("kind")
    if not isinstance(kind, str):
        raise MalformedError(f"'kind' must name the job: one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ImpossibleError(
            f"there is no job {kind[:40]!r}; there are {', '.join(KINDS)}"
        )
    params = {k: v for k, v in asked.parameters.items() if k not in _ABOUT_THE_ANSWER}
    _check_cg(repository, params, asked.tensors, owner)
    return kind, params


def _check_cg(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    unknown = params.keys() - _CG_PARAMETERS
    if unknown:
        raise MalformedError(
            f"cg has no parameter {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted(_CG_PARAMETERS))}"
        )
    for name in ("rtol", "atol"):
        _check_tolerance(name, params.get(name, 0.0))
    _check_choices(params)
    matrix = params.get("matrix")
    if not isinstance(matrix, str):
        raise MalformedError("cg needs parameters.matrix, the id of a matrix")
    rows, columns = repository.matrix(matrix, owner).shape
    if rows != columns:
        raise ImpossibleError(
            f"cg needs a square matrix; {matrix} is {rows} x {columns}"
        )
    if "b" not in tensors or not tensors.keys() <= {"b", "x0"}:
        raise InvalidInputError(
            f"cg takes the inputs b and, if there is a guess, x0; got {[*tensors]}"
        )
    for name, vector in tensors.items():
        _check_vector(name, vector, rows)


def _check_tolerance(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"parameters.{name} is {value!r}; it must be a number")
    if not (math.isfinite(value) and value >= 0):
        raise ImpossibleError(f"parameters.{name} is {value}; it must be 0 or more")


def _check_choices(params: dict[str, Any]) -> None:
    limit = params.get("maxiter", 1)
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise MalformedError(f"parameters.maxiter is {limit!r}; it must be a number")
    if not 0 < limit < 2**31:
        raise ImpossibleError(f"parameters.maxiter is {limit}; it must be 1 or more")
    preconditioner = params.get("preconditioner", "none")
    if preconditioner not in _PRECONDITIONERS:
        raise ImpossibleError(
            f"parameters.preconditioner is {preconditioner!r}; there are "
            f"{', '.join(_PRECONDITIONERS)}"
        )


def _check_vector(name: str, vector: NDArray[Any], size: int) -> None:
    if vector.dtype.kind != "f" or vector.dtype.itemsize < 4:
        raise InvalidInputError(f"{name} is {vector.dtype}; it must be FP32 or FP64")
    if vector.shape != (size,):
        raise InvalidInputError(
            f"{name} has shape {list(vector.shape)}; the matrix needs [{size}]"
        )
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        raise InvalidInputError(
            f"{name} holds {bad.size} NaN or infinite values, the first at {bad[0]}"
        )
