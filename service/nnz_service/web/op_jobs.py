"""What jobs of the kinds `op` and `factorize` need, checked before they are written."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import MatrixRecord, Owner, Repository
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

#: Parameters that are numbers, complex ones as pairs.
_FACTORS = frozenset({"alpha", "beta"})


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
    for key in sorted(_FACTORS & params.keys()):
        _check_factor(key, params[key])
    records = [
        matrix_of(op, repository, params, owner, key)
        for key in ("matrix", "other", "mask")
        if key in known and (key != "mask" or key in params)
    ]
    _check_shapes(op, [record.shape for record in records])
    for key in sorted(_FACTORS & params.keys()):
        if isinstance(params[key], list):
            _check_complex(key, params[key], records)
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


def _check_factor(name: str, value: object) -> None:
    """Check a number, or a pair of them that is a complex one."""
    parts = value if isinstance(value, list) and len(value) == 2 else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | float):
            raise MalformedError(
                f"parameters.{name} is {value!r:.60}, but must be a number, or "
                "[real, imaginary]"
            )


def _check_complex(name: str, value: object, matrices: list[MatrixRecord]) -> None:
    """Refuse a complex factor where all numbers are real."""
    if all(matrix.dtype != "C128" for matrix in matrices):
        real = "matrix is" if len(matrices) == 1 else "matrices are"
        raise ImpossibleError(
            f"parameters.{name} is {value!r:.60}, but the {real} real"
        )


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
