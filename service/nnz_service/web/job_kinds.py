"""Which jobs there are and what each one needs, checked before it is written down."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import EVERYBODY, Owner, Repository
from nnz_service.solving import MAX_COLUMNS, RECTANGULAR, SolveSettings
from nnz_service.web.chain_jobs import check_chain
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.graph_jobs import check_eigs, check_graph
from nnz_service.web.job_params import (
    check_known,
    check_real,
    check_square,
    matrix_of,
)
from nnz_service.web.lp_jobs import check_lp
from nnz_service.web.op_jobs import check_factorize, check_op

KINDS = ("cg", "solve", "lp", "op", "factorize", "graph", "eigs", "chain")
_SOLVE_PARAMETERS = frozenset(field.name for field in fields(SolveSettings)) | {
    "matrix"
}
_CG_PARAMETERS = _SOLVE_PARAMETERS - {"method", "restart"}
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
            f"there is no kind of job {kind[:40]!r}; there are {', '.join(KINDS)}"
        )
    params = {k: v for k, v in asked.parameters.items() if k not in _ABOUT_THE_ANSWER}
    if kind == "chain":
        steps = asked.fields.get("steps")
        return kind, check_chain(repository, params, steps, asked.tensors, owner)
    checks = {
        "lp": check_lp,
        "op": check_op,
        "factorize": check_factorize,
        "graph": check_graph,
        "eigs": check_eigs,
    }
    if (apart := checks.get(kind)) is not None:
        apart(repository, params, asked.tensors, owner)
    else:
        _check_solve(kind, repository, params, asked.tensors, owner)
    return kind, params


def _check_solve(
    kind: str,
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    allowed = _CG_PARAMETERS if kind == "cg" else _SOLVE_PARAMETERS
    check_known(kind, params, allowed)
    settings = SolveSettings.of(params)
    record = matrix_of(kind, repository, params, owner)
    check_real(kind, record)
    rows, columns = record.shape
    if settings.method not in RECTANGULAR:
        check_square(settings.method, record)
    if "b" not in tensors or not tensors.keys() <= {"b", "x0"}:
        raise InvalidInputError(
            f"{kind} takes the inputs b and, if there is a guess, x0; got {[*tensors]}"
        )
    b = tensors["b"]
    _check_vectors("b", b, (rows, *b.shape[1:]))
    if "x0" in tensors:
        _check_vectors("x0", tensors["x0"], (columns, *b.shape[1:]))
    count = b.shape[1] if b.ndim == 2 else 1
    settings.check_workspace((rows, columns), record.nnz, count)


def _check_vectors(name: str, block: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Check (n,) or (n, k)."""
    if block.dtype.kind != "f" or block.dtype.itemsize < 4:
        raise InvalidInputError(f"{name} is {block.dtype}; it must be FP32 or FP64")
    if block.ndim not in (1, 2) or block.shape != shape:
        wanted = f"[{shape[0]}] or [{shape[0]}, k]" if name == "b" else f"{[*shape]}"
        raise InvalidInputError(
            f"{name} has shape {list(block.shape)}; the matrix needs {wanted}"
        )
    if block.ndim == 2 and not 1 <= block.shape[1] <= MAX_COLUMNS:
        raise InvalidInputError(
            f"{name} has {block.shape[1]} columns; there must be 1 to {MAX_COLUMNS}"
        )
    bad = np.argwhere(~np.isfinite(block))
    if bad.size:
        at = ", ".join(str(i) for i in bad[0])
        raise InvalidInputError(
            f"{name} holds {len(bad)} NaN or infinite values, the first at {at}"
        )
