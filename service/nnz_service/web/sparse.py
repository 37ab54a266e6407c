"""Operations on resident matrices: their parameters, and their answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import Request, Response

from nnz_service.dataplane import Reply
from nnz_service.errors import InvalidInputError, MalformedError
from nnz_service.gateway.ownership import check_servable, owner_of
from nnz_service.gateway.parameters import order_of
from nnz_service.repository import Blob, matrix_id
from nnz_service.web.answers import Json, tensor_answer
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.deps import Parts, caller_of, name_resource
from nnz_service.web.fields import field
from nnz_service.web.stages import stages_of
from nnz_service.web.uploads import keep_matrix

_ONE = frozenset({"matrix", "name", "preflight"})
_TWO = _ONE | {"other"}
#: Operations and the parameters that each takes.
SPARSE_OPS: dict[str, frozenset[str]] = {
    "spgemm": _TWO | {"semiring", "mask"},
    "add": _TWO | {"alpha", "beta"},
    "scale": _ONE | {"alpha"},
    "submatrix": _ONE | {"rows", "columns"},
    "transpose": _ONE | {"conjugate"},
    "sddmm": _ONE,
    "triangular_solve": _ONE | {"lower", "unit_diagonal"},
    "norm": _ONE | {"kind"},
    "sums": _ONE | {"axis"},
    "diagonal": _ONE,
}
#: Parameters that name matrices; a mask need not be given.
MATRICES = frozenset({"matrix", "other", "mask"})
#: Tensors that come of each; where there are none, a matrix does.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "triangular_solve": ("x",),
    "norm": ("norm",),
    "sums": ("sums",),
    "diagonal": ("diagonal",),
}
#: Whether only the cost is asked for, and how well it has to be known.
Preflight = bool | Literal["exact"]
SEMIRINGS = ("plus_times", "min_plus", "or_and", "max_times")
_MAX_NAME = 128


async def apply_sparse(
    request: Request,
    parts: Parts,
    op: str,
    asked: TensorRequest,
    preflight: Preflight | None,
) -> Response:
    """Do one of `SPARSE_OPS`, or say what it would cost.

    Args:
        request: What was sent.
        parts: Of the application.
        op: Which one.
        asked: The body.
        preflight: What the query says of it, if anything.

    Raises:
        MalformedError: A parameter is unknown, missing or of the wrong type.
        NotFoundError: A matrix is not stored, or not theirs.
        ServiceError: What the worker answered.
    """
    caller, stages = caller_of(request), stages_of(request)
    params = _parameters(op, asked.parameters, preflight)
    name = params.pop("name", None)
    for key in MATRICES & params.keys():
        await check_servable(parts.repository, caller, params[key])
    params |= order_of(asked.parameters, caller)
    stages.shorten(asked.timeout)
    reply = await parts.call(request, "sparse", params, asked.tensors)
    stages.servable = params["matrix"]
    head: dict[str, Any] = {"op": op} | ({} if asked.id is None else {"id": asked.id})
    if params.get("preflight"):
        return Json(head | {"preflight": estimate_of(reply)})
    if "matrix" in reply.result:
        blob, info = made_blob(reply.result["matrix"], parts)
        record, new = await keep_matrix(
            parts, matrix_id(blob.sha256), blob, info, name, owner_of(caller)
        )
        name_resource(request, record.id)
        return Json(
            head | {"matrix": record.to_json()}, status_code=201 if new else 200
        )
    with stages.measure("encode"):
        return await tensor_answer(
            head,
            reply.tensors,
            asked,
            accept_encoding=field(request.scope, b"accept-encoding") or "",
            binary_default=asked.binary,
        )


def _parameters(
    op: str, given: Mapping[str, Any], query: Preflight | None
) -> dict[str, Any]:
    """Check what can be checked without the matrices."""
    known = SPARSE_OPS[op]
    always = {"binary_data_output", "timeout", "priority", "deterministic"}
    if unknown := given.keys() - known - always:
        raise MalformedError(
            f"{op} has no parameter {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted(known))}"
        )
    params = {"op": op} | {key: given[key] for key in known & given.keys()}
    for key in sorted({"matrix", "other"} & known):
        if not isinstance(params.get(key), str):
            raise MalformedError(f"{op} needs parameters.{key}, the id of a matrix")
    check_semiring(op, given)
    params["preflight"] = preflight_of(given, query)
    check_label(params.get("name"))
    return params


def check_semiring(op: str, given: Mapping[str, Any]) -> None:
    """Check what a product may be told besides its factors.

    Raises:
        MalformedError: There is no such semiring, or the mask is no id.
    """
    semiring = given.get("semiring", "plus_times")
    if semiring not in SEMIRINGS:
        raise MalformedError(
            f"parameters.semiring is {semiring!r:.60}, but must be one of "
            f"{', '.join(SEMIRINGS)}"
        )
    if not isinstance(given.get("mask", ""), str):
        raise MalformedError(f"{op} needs the id of a matrix as parameters.mask")


def preflight_of(given: Mapping[str, Any], query: Preflight | None) -> Preflight:
    """Return whether only the cost is asked for: true, false or exact.

    Args:
        given: Parameters of the body.
        query: What the query says, which goes before them.

    Raises:
        MalformedError: It is none of these.
    """
    preflight = given.get("preflight", False) if query is None else query
    if isinstance(preflight, bool):
        return preflight
    if preflight == "exact":
        return "exact"
    raise MalformedError("preflight must be true, false or exact")


def check_outputs(
    what: str, asked: TensorRequest, there: Collection[str], otherwise: str
) -> None:
    """Refuse outputs that will not come.

    Args:
        what: What is asked for them.
        asked: Names those that are wanted, or none.
        there: Names of those that come.
        otherwise: What comes where none does.

    Raises:
        InvalidInputError: There is no such output.
    """
    for wanted in asked.outputs:
        if wanted.name not in there:
            raise InvalidInputError(
                f"{what} has no output {wanted.name[:80]!r}; there are "
                f"{', '.join(there) or f'none: {otherwise}'}"
            )


def check_label(name: object) -> None:
    """Refuse what a matrix cannot be called.

    Raises:
        MalformedError: It is no text, or too long.
    """
    if name is not None and not (
        isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()
    ):
        raise MalformedError(
            f"parameters.name must be of 1 to {_MAX_NAME} printable characters"
        )


def estimate_of(reply: Reply) -> dict[str, Any]:
    """Return what a reply says of cost, less what every reply says."""
    return {k: v for k, v in reply.result.items() if k != "batch"}


def made_blob(made: Mapping[str, Any], parts: Parts) -> tuple[Blob, Mapping[str, Any]]:
    """Return the blob that the worker stored, and what it holds."""
    sha256 = str(made["sha256"])
    path: Path = parts.repository.blobs.path(sha256)
    return Blob(sha256, path, int(made["bytes"])), made
