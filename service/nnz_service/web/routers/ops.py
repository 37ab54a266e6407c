"""/v1/ops: one operation, answered now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from nnz_service.errors import MalformedError, NotFoundError
from nnz_service.gateway.ownership import check_servable
from nnz_service.gateway.parameters import order_of
from nnz_service.web.answers import tensor_answer
from nnz_service.web.bodies import parse_body, read_body
from nnz_service.web.deps import Served, caller_of
from nnz_service.web.openapi import tensor_answers, tensor_body
from nnz_service.web.schemas.oip import TensorsIn
from nnz_service.web.schemas.v1 import OpOut
from nnz_service.web.stages import stages_of

router = APIRouter(tags=["ops"])

_PRODUCT = frozenset({"matrix", "transpose"})
#: Operations and the parameters that each takes.
OPS: dict[str, frozenset[str]] = {
    "spmv": _PRODUCT,
    "spmm": _PRODUCT,
    "axpy": frozenset({"r", "size", "zeros", "duplicates"}),
    "dot": frozenset({"size", "duplicates", "zeros"}),
}
_ALWAYS = frozenset({"binary_data_output", "timeout", "priority", "deterministic"})
_EXAMPLE = {
    "parameters": {"matrix": "m-0123456789abcdef"},
    "inputs": [
        {"name": "x", "shape": [3], "datatype": "FP64", "data": [1.0, 2.0, 3.0]}
    ],
}


@router.post(
    "/v1/ops/{op}",
    responses=tensor_answers(OpOut, 404),
    openapi_extra=tensor_body(TensorsIn, _EXAMPLE),
)
async def apply(
    request: Request,
    parts: Served,
    op: Annotated[str, Path(description="spmv, spmm, axpy or dot.")],
) -> Response:
    """Apply an operation to tensors.

    * `spmv`: `matrix`, `transpose`; input `x` [n] -> `y` [m].
    * `spmm`: the same with `x` [n, k] -> `y` [m, k].
    * `axpy`: `r`, `size`, `zeros` (keep, drop_exact), `duplicates` (sum, error,
      last); inputs `u.indices u.values v.indices v.values` -> `w.indices w.values`,
      w = u + r v.
    * `dot`: the same inputs -> `dot` [1], FP64.

    `timeout` (microseconds), `priority` (1 first, 9 last) and `deterministic` are as in
    infer; products that wait for one matrix become one, and `X-Batch-Size` says of how
    many columns.

    Outputs are binary when an input was, unless `binary_data_output` says otherwise.
    """
    if op not in OPS:
        raise NotFoundError(f"there is no op {op[:40]!r}; there are {', '.join(OPS)}")
    stages = stages_of(request)
    body = await read_body(request, parts.limits.max_body)
    asked = await parse_body(request, body, parts.limits.max_json)
    params = _parameters(op, asked.parameters)
    params |= order_of(asked.parameters, caller_of(request))
    matrix = params.get("matrix", "")
    await check_servable(parts.repository, caller_of(request), matrix)
    stages.shorten(asked.timeout)
    reply = await parts.call(request, "op", params, asked.tensors)
    stages.servable = matrix
    with stages.measure("encode"):
        head: dict[str, Any] = {"op": op}
        if asked.id is not None:
            head["id"] = asked.id
        return await tensor_answer(
            head,
            reply.tensors,
            asked,
            accept_encoding=request.headers.get("accept-encoding", ""),
            binary_default=asked.binary,
            batch=reply.result.get("batch"),
        )


def _parameters(op: str, given: dict[str, Any]) -> dict[str, Any]:
    """Check what can be checked without the matrix."""
    unknown = given.keys() - OPS[op] - _ALWAYS
    if unknown:
        raise MalformedError(
            f"{op} has no parameter {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted(OPS[op]))}"
        )
    params = {"op": op} | {key: given[key] for key in OPS[op] & given.keys()}
    if "matrix" in OPS[op] and not isinstance(params.get("matrix"), str):
        raise MalformedError(f"{op} needs parameters.matrix, the id of a matrix")
    if not isinstance(params.get("transpose", False), bool):
        raise MalformedError("parameters.transpose must be true or false")
    return params
