"""/v2/models: what a servable takes and gives, whether it is ready, infer on it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response

from nnz_service.dataplane import Reply
from nnz_service.errors import ImpossibleError
from nnz_service.gateway.parameters import order_of, refuse_sequences
from nnz_service.gateway.servables import oip_config, oip_metadata, target
from nnz_service.gateway.tracing import Passage
from nnz_service.web.answers import Json, tensor_answer
from nnz_service.web.bodies import parse_body, read_body
from nnz_service.web.codecs import Body, TensorRequest, read_raw
from nnz_service.web.deps import Parts, Served, caller_of, visible_rows
from nnz_service.web.fields import field
from nnz_service.web.lent import fetch
from nnz_service.web.names import VERSION, Name, Version
from nnz_service.web.openapi import answers, empty, tensor_answers, tensor_body
from nnz_service.web.schemas.oip import (
    InferenceOut,
    ModelConfig,
    ModelMetadata,
    StatisticsOut,
    TensorsIn,
)
from nnz_service.web.stages import stages_of

router = APIRouter(tags=["inference"])

_MODEL = "/v2/models/{name}"
_VERSIONED = "/v2/models/{name}/versions/{version}"
_OF_VERSION = {"parameters": [VERSION]}
_EXAMPLE = {
    "id": "1",
    "inputs": [
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 0.5, -2.0]}
    ],
    "outputs": [{"name": "y"}],
}


@router.get("/v2/models/stats", responses=answers(StatisticsOut, "Counters.", 503))
async def all_statistics(request: Request, parts: Served) -> Response:
    """Count the requests, rows and runs of every servable, and their times."""
    found = await _statistics(request, parts, {})
    rows = await visible_rows(request, parts, found["model_stats"])
    return Json({"model_stats": rows})


@router.get(
    f"{_VERSIONED}/stats",
    responses=answers(StatisticsOut, "Counters.", 404, 503),
    openapi_extra=_OF_VERSION,
)
@router.get(f"{_MODEL}/stats", responses=answers(StatisticsOut, "Counters.", 404, 503))
async def statistics(
    request: Request, parts: Served, name: Name, version: Version = None
) -> Response:
    """Count the requests, rows and runs of one servable, and their times."""
    return Json(await _statistics(request, parts, target(name, version)))


@router.head(f"{_VERSIONED}/ready", include_in_schema=False)
@router.head(f"{_MODEL}/ready", include_in_schema=False)
@router.get(
    f"{_VERSIONED}/ready",
    response_class=Response,
    responses=empty("It can be inferred on.", 404, 503),
    openapi_extra=_OF_VERSION,
)
@router.get(
    f"{_MODEL}/ready",
    response_class=Response,
    responses=empty("It can be inferred on.", 404, 503),
)
async def model_ready(
    request: Request, parts: Served, name: Name, version: Version = None
) -> Response:
    """Say whether a servable is resident."""
    await parts.call(request, "metadata", target(name, version))
    return Response()


@router.get(
    f"{_VERSIONED}/config",
    responses=answers(ModelConfig, "Configuration.", 404, 503),
    openapi_extra=_OF_VERSION,
)
@router.get(
    f"{_MODEL}/config", responses=answers(ModelConfig, "Configuration.", 404, 503)
)
async def config(
    request: Request, parts: Served, name: Name, version: Version = None
) -> Response:
    """Describe a servable as a Triton model configuration."""
    reply = await parts.call(request, "metadata", target(name, version))
    return Json(oip_config(reply.result))


@router.get(
    _VERSIONED,
    responses=answers(ModelMetadata, "Signature.", 404, 503),
    openapi_extra=_OF_VERSION,
)
@router.get(_MODEL, responses=answers(ModelMetadata, "Signature.", 404, 503))
async def metadata(
    request: Request, parts: Served, name: Name, version: Version = None
) -> Response:
    """Describe the inputs and outputs of a servable."""
    reply = await parts.call(request, "metadata", target(name, version))
    return Json(oip_metadata(reply.result))


@router.post(
    f"{_VERSIONED}/infer",
    responses=tensor_answers(InferenceOut, 404),
    openapi_extra=tensor_body(TensorsIn, {"infer": _EXAMPLE}, VERSION),
)
@router.post(
    f"{_MODEL}/infer",
    responses=tensor_answers(InferenceOut, 404),
    openapi_extra=tensor_body(TensorsIn, {"infer": _EXAMPLE}),
)
async def infer(
    request: Request, parts: Served, name: Name, version: Version = None
) -> Response:
    """Apply a model to tensors, or a matrix to rows.

    Outputs come as JSON unless `binary_data_output` or an output's `binary_data`
    asks for bytes. NaN and infinity have no JSON form: an output that holds one is
    a 422 that says so. `shared_memory_region`, `shared_memory_byte_size` and
    `shared_memory_offset` of an input or output name a place in shared memory that
    the client has registered. `timeout` (microseconds) shortens the deadline;
    `priority` is 1 (first) to 9, 5 where nothing is said; `deterministic` asks for the
    bits of a run without company. `X-Batch-Size` in the answer counts the rows of the
    run that the request was part of.
    """
    params = target(name, version)
    stages = stages_of(request)
    body = await read_body(request, parts.limits.max_body)
    if body.header == 0:
        asked = await _raw(request, parts, params, body)
    else:
        asked = await parse_body(request, body, parts.limits.max_json, lent=True)
        asked = await fetch(request, parts, body, asked)
    refuse_sequences(asked.parameters)
    params |= order_of(asked.parameters, caller_of(request))
    stages.shorten(asked.timeout)
    if asked.outputs:
        params["outputs"] = [wanted.name for wanted in asked.outputs]
    began = time.perf_counter_ns()
    reply = await parts.call(request, "infer", params, asked.tensors)
    passed = began, time.perf_counter_ns()
    stages.servable = name
    with stages.measure("encode"):
        response = await _answer(request, parts, reply, asked)
    if parts.controls.tracing.active:
        await _trace(request, parts, reply, asked, passed)
    return response


async def _trace(
    request: Request,
    parts: Parts,
    reply: Reply,
    asked: TensorRequest,
    passed: tuple[int, int],
) -> None:
    """Write a trace of the request, if it is its turn."""
    name, version = reply.result["name"], reply.result["version"]
    tracing = parts.controls.tracing
    if tracing.samples(name):
        arrived = int(stages_of(request).began * 1e9)
        passage = Passage(arrived, *passed, reply.timings)
        own = asked.id or stages_of(request).request_id
        await asyncio.to_thread(tracing.record, name, version, own, passage)


async def _answer(
    request: Request, parts: Parts, reply: Reply, asked: TensorRequest
) -> Response:
    head: dict[str, Any] = {
        "model_name": reply.result["name"],
        "model_version": reply.result["version"],
    }
    if asked.id is not None:
        head["id"] = asked.id
    accept = field(request.scope, b"accept-encoding") or ""
    return await tensor_answer(
        head,
        reply.tensors,
        asked,
        accept_encoding=accept,
        batch=reply.result.get("batch"),
        regions=parts.controls.regions,
    )


async def _raw(
    request: Request, parts: Parts, params: dict[str, Any], body: Body
) -> TensorRequest:
    """Read a body without JSON: the bytes of a servable's only input."""
    info = (await parts.call(request, "metadata", params)).result
    if len(info["inputs"]) != 1:
        names = ", ".join(row["name"] for row in info["inputs"])
        raise ImpossibleError(
            f"{params['name']} has the inputs {names}; a raw body "
            "(Inference-Header-Content-Length: 0) can carry only one"
        )
    row = info["inputs"][0]
    shape = list(row["shape"])
    if info["max_batch_size"] and shape.count(-1) > 1:
        shape[0] = 1
    return read_raw(body, row["name"], row["datatype"], shape)


async def _statistics(
    request: Request, parts: Parts, params: dict[str, Any]
) -> dict[str, Any]:
    reply = await parts.call(request, "stats", params)
    return {"model_stats": reply.result["model_stats"]}
