"""Apply a model to tensors, or a matrix to rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnz_service.dataplane import Reply
from nnz_service.gateway import lent
from nnz_service.gateway.datatypes import datatype_of
from nnz_service.gateway.parameters import order_of, refuse_sequences, timeout_of
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.requests import Asked, read_request
from nnz_service.grpc.wire import join

#: Reading a description with more than this happens outside the event loop.
_ON_THE_LOOP = 1 << 16
#: Of streams: the client wants to be told which response is the last to its request.
_ASKS_FOR_FINAL, _FINAL = "triton_enable_empty_final_response", "triton_final_response"


async def infer(
    call: Call, request: m.ModelInferRequest, raw: Sequence[memoryview]
) -> bytes:
    """Answer one request with a written ModelInferResponse.

    Outputs come as `raw_output_contents`, whatever form the inputs had. `timeout`
    (microseconds), `priority`, `deterministic` and the places in shared memory are as
    over HTTP.

    Args:
        call: Whose deadline holds for this request.
        request: Without its `raw_input_contents`.
        raw: These.

    Raises:
        ServiceError: What was wrong with it, or what the worker refused.
    """
    params = await call.servable(request.model_name, request.model_version)
    call.account.servable = request.model_name, request.model_version
    with call.account.measure("parse"):
        if request.ByteSize() > _ON_THE_LOOP:
            asked = await asyncio.to_thread(read_request, request, raw)
        else:
            asked = read_request(request, raw)
    if asked.places:
        sent = request.ByteSize() + sum(piece.nbytes for piece in raw)
        asked = await _fetched(call, asked, sent)
    refuse_sequences(asked.parameters)
    params |= order_of(asked.parameters, call.caller)
    microseconds = timeout_of(asked.parameters)
    call.shorten(microseconds / 1e6 if microseconds else None)
    if asked.outputs:
        params["outputs"] = list(asked.outputs)
    reply = await call.ask("infer", params, asked.tensors)
    call.account.batch = reply.result.get("batch")
    with call.account.measure("encode"):
        return await _written(call, reply, request.id, asked)


async def _fetched(call: Call, asked: Asked, sent: int) -> Asked:
    """Read the inputs that lie in shared memory; they count as part of the message."""
    regions, limit = call.parts.controls.regions, call.parts.limits.max_body
    size = lent.check_places(
        call.caller, regions, asked.places, asked.lent, sent, limit
    )
    if call.held is not None:
        with call.account.admission():
            call.held.grow(size)
    with call.account.measure("receive"):
        read = await lent.read_inputs(regions, asked.lent)
    return replace(asked, tensors=asked.tensors | read, lent={})


async def _written(call: Call, reply: Reply, request_id: str, asked: Asked) -> bytes:
    response = m.ModelInferResponse(
        model_name=reply.result["name"],
        model_version=reply.result["version"],
        id=request_id,
    )
    pieces = []
    for name, array in reply.tensors.items():
        output = response.outputs.add(
            name=name, datatype=datatype_of(array.dtype), shape=array.shape
        )
        flat = np.ascontiguousarray(array).reshape(-1)
        if (place := asked.outputs.get(name)) is None:
            pieces.append(flat.view(np.uint8).data)
            continue
        told = await lent.deliver(call.parts.controls.regions, place, flat, name)
        for key, value in told.items():
            kind = "string_param" if isinstance(value, str) else "int64_param"
            setattr(output.parameters[key], kind, value)
        # Clients count tensors by their outputs.
        pieces.append(memoryview(b""))
    if asked.parameters.get(_ASKS_FOR_FINAL):
        response.parameters[_FINAL].bool_param = True
    return join(response, pieces)
