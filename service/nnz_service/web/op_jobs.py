"""What jobs of the kinds `op` and `factorize` need, checked before they are written."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import Owner, Repository
from nnz_service.web.job_params import (
    check_known,
    check_real,
    check_square,
    matrix_of,
)
from nnz_service.web.sparse import SPARSE_OPS, check_label, check_semiring

#: Operations that are computed by runs of rows, and the dense operands of each.
JOB_OPS: dict[str, frozenset[str]] = {
    "spgemm": frozenset(),
    "add": frozenset(),
    "scale": frozenset({"rows", "columns"}),
    "sddmm": frozenset({"x", "y"}),
}


def check_op(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    """Refuse an operation that could not be done.

    Raises:
        MalformedError: A parameter is unknown, missing or of the wrong type.
        NotFoundError: A matrix is not stored, or not theirs.
        ImpossibleError: Shapes do not fit.
    """
    op = params.get("op")
    if not isinstance(op, str) or op not in JOB_OPS:
        raise MalformedError(
            f"parameters.op is {str(op)[:40]!r}; as a job there are "
            f"{', '.join(JOB_OPS)}"
        )
    known = SPARSE_OPS[op] - {"preflight"} | {"op"}
    check_known(op, params, known)
    check_label(params.get("name"))
    check_semiring(op, params)
    for key in {"alpha", "beta"} & params.keys():
        if isinstance(params[key], bool) or not isinstance(params[key], int | float):
            raise MalformedError(f"parameters.{key} must be a number")
    shapes = [
        matrix_of(op, repository, params, owner, key).shape
        for key in ("matrix", "other", "mask")
        if key in known and (key != "mask" or key in params)
    ]
    _check_shapes(op, shapes)
    if unknown := tensors.keys() - JOB_OPS[op]:
        raise InvalidInputError(f"{op} has no input {min(unknown)[:80]!r}")


def check_factorize(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    """Refuse what has no factors.

    Raises:
        MalformedError: A parameter is unknown or missing.
        NotFoundError: The matrix is not stored, or not theirs.
        ImpossibleError: The matrix is not square or not real.
        InvalidInputError: An input is sent.
    """
    check_known("factorize", params, {"matrix"})
    if tensors:
        raise InvalidInputError("factorize takes no inputs; solve does")
    record = matrix_of("factorize", repository, params, owner)
    check_square("factorize", record)
    check_real("factorize", record)


def _check_shapes(op: str, shapes: list[tuple[int, int]]) -> None:
    if op == "spgemm" and shapes[0][1] != shapes[1][0]:
        raise ImpossibleError(
            f"a matrix of shape {shapes[0]} cannot be multiplied with one of shape "
            f"{shapes[1]}"
        )
    if op == "spgemm" and shapes[2:] not in ([], [(shapes[0][0], shapes[1][1])]):
        raise ImpossibleError(
            f"the mask has shape {shapes[2]}, but the product has shape "
            f"{(shapes[0][0], shapes[1][1])}"
        )
    if op == "add" and shapes[0] != shapes[1]:
        raise ImpossibleError(
            f"a matrix of shape {shapes[0]} cannot be added to one of shape {shapes[1]}"
        )
