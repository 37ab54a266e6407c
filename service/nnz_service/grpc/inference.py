"""Apply a model to tensors, or a matrix to rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from nnz_service.dataplane import Reply
from nnz_service.gateway.datatypes import datatype_of
from nnz_service.gateway.parameters import order_of, refuse_sequences, timeout_of
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.requests import read_request
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
    (microseconds), `priority` and `deterministic` are as over HTTP.

    Args:
        call: Whose deadline holds for this request.
        request: Without its `raw_input_contents`.
        raw: These.

    Raises:
        ServiceError: What was wrong with it, or what the worker refused.
    """
    params = await call.servable(request.model_name, request.model_version)
    if request.ByteSize() > _ON_THE_LOOP:
        asked = await asyncio.to_thread(read_request, request, raw)
    else:
        asked = read_request(request, raw)
    refuse_sequences(asked.parameters)
    params |= order_of(asked.parameters, call.caller)
    microseconds = timeout_of(asked.parameters)
    call.shorten(microseconds / 1e6 if microseconds else None)
    if asked.outputs:
        params["outputs"] = list(asked.outputs)
    reply = await call.ask("infer", params, asked.tensors)
    final = bool(asked.parameters.get(_ASKS_FOR_FINAL))
    return _written(reply, request.id, final=final)


def _written(reply: Reply, request_id: str, *, final: bool) -> bytes:
    output = m.ModelInferResponse.InferOutputTensor
    response = m.ModelInferResponse(
        model_name=reply.result["name"],
        model_version=reply.result["version"],
        id=request_id,
        outputs=[
            output(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
            for name, array in reply.tensors.items()
        ],
    )
    if final:
        response.parameters[_FINAL].bool_param = True
    flat = (np.ascontiguousarray(a).reshape(-1) for a in reply.tensors.values())
    return join(response, (array.view(np.uint8).data for array in flat))
