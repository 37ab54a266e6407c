"""What the checks of all kinds of jobs ask of parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.repository import MatrixRecord, Owner, Repository


def check_known(kind: str, params: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse parameters that a job does not have.

    Raises:
        MalformedError: There is one.
    """
    if unknown := params.keys() - set(known):
        raise MalformedError(
            f"{kind} has no parameter {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted(known))}"
        )


def matrix_of(
    kind: str,
    repository: Repository,
    params: Mapping[str, Any],
    owner: Owner,
    key: str = "matrix",
) -> MatrixRecord:
    """Return the stored matrix that a parameter names.

    Raises:
        MalformedError: The parameter is missing, or no text.
        NotFoundError: The matrix is not stored, or not theirs.
    """
    name = params.get(key)
    if not isinstance(name, str):
        raise MalformedError(f"{kind} needs parameters.{key}, the id of a matrix")
    return repository.matrix(name, owner)


def check_square(what: str, matrix: MatrixRecord) -> int:
    """Return the rows of a square matrix.

    Raises:
        ImpossibleError: It is not square.
    """
    rows, columns = matrix.shape
    if rows != columns:
        raise ImpossibleError(
            f"{what} needs a square matrix; {matrix.id} is {rows} x {columns}"
        )
    return rows


def check_real(kind: str, matrix: MatrixRecord) -> None:
    """Refuse a job on complex numbers.

    Raises:
        ImpossibleError: The matrix holds some.
    """
    if matrix.dtype == "C128":
        raise ImpossibleError(
            f"{matrix.id} holds complex numbers, but {kind} needs a real matrix; its "
            "products, sums and triangular solves are among the ops"
        )


def check_count(
    params: Mapping[str, Any],
    name: str,
    least: int,
    most: int,
    *,
    needed: bool = False,
) -> None:
    """Check a whole number from `least` to `most`.

    Raises:
        MalformedError: It is no whole number.
        ImpossibleError: It is out of its range.
    """
    if name not in params and not needed:
        return
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedError(
            f"parameters.{name} is {value!r:.60}, but must be a whole number"
        )
    if not least <= value <= most:
        raise ImpossibleError(
            f"parameters.{name} is {value!r:.60}, but must be from {least} to {most}"
        )


def check_number(params: Mapping[str, Any], name: str, most: float) -> None:
    """Check a finite number from 0 to `most`.

    Raises:
        MalformedError: It is no number.
        ImpossibleError: It is out of its range.
    """
    value = params.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(
            f"parameters.{name} is {value!r:.60}, but must be a number"
        )
    if not (0 <= value <= most and value < math.inf):
        below = "or more" if most == math.inf else f"to {most:g}"
        raise ImpossibleError(f"parameters.{name} is {value!r:.60}; 0 {below} is right")
