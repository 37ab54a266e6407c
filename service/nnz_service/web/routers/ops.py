"""/v1/ops: operations, answered now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nnz_service.errors import MalformedError, NotFoundError
from nnz_service.gateway.ownership import check_servable
from nnz_service.gateway.parameters import order_of
from nnz_service.web import examples, sparse
from nnz_service.web.answers import tensor_answer
from nnz_service.web.bodies import parse_body, read_body
from nnz_service.web.chains import apply_chain
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.deps import Parts, Served, caller_of
from nnz_service.web.fields import field
from nnz_service.web.openapi import tensor_answers, tensor_body
from nnz_service.web.schemas.v1 import ChainIn, ChainOut, OpIn, OpOut
from nnz_service.web.sparse import (
    SPARSE_OPS,
    Preflight,
    apply_sparse,
    check_outputs,
    check_semiring,
)
from nnz_service.web.stages import stages_of

router = APIRouter(tags=["ops"])

_PRODUCT = frozenset({"matrix", "transpose", "semiring"})
#: Operations and the parameters that each takes.
OPS: dict[str, frozenset[str]] = {
    "spmv": _PRODUCT,
    "spmm": _PRODUCT,
    "axpy": frozenset({"r", "size", "zeros", "duplicates"}),
    "dot": frozenset({"size", "duplicates", "zeros"}),
}
#: Tensors that come of each operation.
OUTPUTS: dict[str, tuple[str, ...]] = sparse.OUTPUTS | {
    "spmv": ("y",),
    "spmm": ("y",),
    "axpy": ("w.indices", "w.values"),
    "dot": ("dot",),
}
_ALWAYS = frozenset({"binary_data_output", "timeout", "priority", "deterministic"})


@router.post(
    "/v1/ops",
    responses=tensor_answers(ChainOut, 404),
    openapi_extra=tensor_body(ChainIn, {"chain": examples.CHAIN}),
)
async def chain(
    request: Request,
    parts: Served,
    preflight: Annotated[
        bool | None, Query(description="Only say what the steps would cost.")
    ] = None,
) -> Response:
    """Apply several operations, one after the other, to resident matrices and tensors.

    Each of `steps` is an operation on resident matrices as below, or `spmv` or `spmm`,
    with the parameters that it has there, and

    * `as`: the name of its result, `step1`, `step2` and so on if not given;
    * `matrix`, `other`: ids, or names of earlier steps that give a matrix;
    * `inputs`: its dense operands, each the name of a tensor of the request or of an
      earlier step that gives one, such as `{"x": "v"}`;
    * `keep`: whether the result belongs to the answer; of the last step it does;
    * `name`: a label for a matrix that is kept.

    What is kept comes back under the name of its step: matrices, now resident, in
    `matrices`, others as tensors. Everything else is forgotten and never stored. A step
    that cannot be done is named. The limits of one operation
    hold for all steps together; `preflight` bounds their cost without doing anything.
    """
    body = await read_body(request, parts.limits.max_body)
    asked = await parse_body(request, body, parts.limits.max_json, least=0)
    return await apply_chain(request, parts, asked, preflight)


@router.post(
    "/v1/ops/{op}",
    responses={
        201: {"model": OpOut, "description": "The matrix that it made is new."},
        **tensor_answers(OpOut, 404),
    },
    openapi_extra=tensor_body(OpIn, examples.OPS),
)
async def apply(
    request: Request,
    parts: Served,
    op: Annotated[str, Path(description="One of those below.")],
    preflight: Annotated[
        Preflight | None,
        Query(description="Only say what it would cost, of resident matrices."),
    ] = None,
) -> Response:
    """Apply an operation to tensors.

    * `spmv`: `matrix`, `transpose`, `semiring`; input `x` [n] -> `y` [m].
    * `spmm`: the same with `x` [n, k] -> `y` [m, k].
    * `axpy`: `r`, `size`, `zeros` (keep, drop_exact), `duplicates` (sum, error,
      last); inputs `u.indices u.values v.indices v.values` -> `w.indices w.values`,
      w = u + r v.
    * `dot`: the same inputs -> `dot` [1], FP64.

    A `semiring` says what adds and multiplies: plus_times (the usual), min_plus
    (shortest paths; of real matrices, and a row without entries gives inf), max_times
    (for numbers that are not negative) or or_and (reachability, in ones and zeros).

    Tensors of a complex matrix have one axis more, the last, of length 2: real and
    imaginary part, FP64. So `x` is [n, 2] or [n, k, 2]; `alpha` and `beta` may be
    [real, imaginary].

    Of resident matrices `matrix` and `other`, into a resident matrix, whose id is in
    `matrix.id` of the answer: `spgemm` (`semiring`; `mask`, the id of a matrix whose
    places of the product alone are computed), `add` (`alpha`, `beta`), `transpose`
    (`conjugate`), `scale` (`alpha`; inputs `rows`, `columns`), `submatrix` (`rows`,
    `columns`: [start, stop, step], or integer inputs), `sddmm` (inputs `x` [m, k], `y`
    [n, k]).
    Into tensors: `triangular_solve` (`lower`, `unit_diagonal`; `b` -> `x`), `norm`
    (`kind`: 1, inf, fro, max), `sums` (`axis`), `diagonal`. With `preflight` true (or
    exact), also in the query, they say what they would cost and do nothing.

    `timeout` (microseconds), `priority` (1 first, 9 last) and `deterministic` are as in
    infer; products that wait for one matrix become one, and `X-Batch-Size` says of how
    many columns.

    Outputs are binary when an input was, unless `binary_data_output` says otherwise.
    `outputs` may name some of them; the others do not go out.
    """
    if op not in OPS and op not in SPARSE_OPS:
        names = ", ".join([*OPS, *SPARSE_OPS])
        raise NotFoundError(f"there is no op {op[:40]!r}; there are {names}")
    body = await read_body(request, parts.limits.max_body)
    least = 1 if op in OPS else 0
    asked = await parse_body(request, body, parts.limits.max_json, least=least)
    check_outputs(op, asked, OUTPUTS.get(op, ()), "its result is a matrix")
    if op in SPARSE_OPS:
        return await apply_sparse(request, parts, op, asked, preflight)
    if preflight:
        raise MalformedError(f"{op} has no preflight; {', '.join(SPARSE_OPS)} have")
    return await _computed(request, parts, op, asked)


async def _computed(
    request: Request, parts: Parts, op: str, asked: TensorRequest
) -> Response:
    """Do one of `OPS`."""
    stages = stages_of(request)
    params = _parameters(op, asked.parameters)
    params |= order_of(asked.parameters, caller_of(request))
    matrix = params.get("matrix", "")
    await check_servable(parts.repository, caller_of(request), matrix)
    stages.shorten(asked.timeout)
    # Over another semiring products cannot be joined, nor added on a device.
    kind = "sparse" if "semiring" in params else "op"
    reply = await parts.call(request, kind, params, asked.tensors)
    stages.servable = matrix
    with stages.measure("encode"):
        head = {"op": op} | ({} if asked.id is None else {"id": asked.id})
        return await tensor_answer(
            head,
            reply.tensors,
            asked,
            accept_encoding=field(request.scope, b"accept-encoding") or "",
            binary_default=asked.binary,
            batch=reply.result.get("batch"),
        )


def _parameters(op: str, given: Mapping[str, Any]) -> dict[str, Any]:
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
    check_semiring(op, given)
    if params.get("semiring") == "plus_times":
        del params["semiring"]
    return params
