"""Pieces of the interface's description that FastAPI cannot derive by itself.

Routes read raw bodies (why: a client may send no Content-Type at all, and tensors
are bytes), so what they take and give is described here by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from nnz_service.web.schemas.oip import ErrorOut

_REASONS = {
    400: "The request cannot be read.",
    401: "The API key is missing or not known.",
    403: "The API key does not allow this.",
    404: "There is no such thing.",
    408: "The body stopped arriving.",
    409: "The state of the thing does not allow this.",
    413: "The body, or what it decompresses to, passes the limit; or the key would "
    "keep more bytes of matrices than it may.",
    415: "The content type or encoding is unknown.",
    422: "Well-formed, but impossible: shapes, types or values.",
    429: "The server is full; try again after Retry-After seconds.",
    500: "A fault of the server; its log has the request id.",
    501: "The protocol has it, this server does not, or was told not to.",
    503: "Starting, draining or not loaded; try again after Retry-After seconds.",
    504: "The deadline passed.",
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which a retry may succeed.",
        "schema": {"type": "integer"},
    }
}
HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = {
    "description": "Length of the JSON part in bytes, uncompressed, when binary "
    "tensors follow it.",
    "schema": {"type": "integer", "minimum": 0},
}

_BATCH = {
    "description": "Rows of the run on the device that the request was part of.",
    "schema": {"type": "integer", "minimum": 0},
}

Spec = dict[str, Any]
Responses = dict[int | str, Spec]

_BYTES = {"type": "string", "format": "binary"}
_SECURITY: Spec = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `nnz keys create`, or the value of NNZ_API_KEY; "
        "needed only when the server has one.",
    }
}


def errors(*codes: int) -> Responses:
    """Describe the error answers of a route; 401, 403, 500 go without saying."""
    found: Responses = {}
    for code in sorted({401, 403, 500, *codes}):
        found[code] = {"model": ErrorOut, "description": _REASONS[code]}
        if code in (429, 503):
            found[code]["headers"] = _RETRY_AFTER
    return found


def answers(model: Any, description: str, *codes: int, status: int = 200) -> Responses:
    """Describe a JSON success and the errors that may come instead."""
    return {status: {"model": model, "description": description}, **errors(*codes)}


def empty(description: str, *codes: int, status: int = 200) -> Responses:
    """Describe a success without a body."""
    return {status: {"description": description}, **errors(*codes)}


def tensor_answers(model: type[BaseModel], *codes: int) -> Responses:
    """Describe an answer with tensors, as JSON or with a binary tail."""
    content = {
        "application/octet-stream": {"schema": _BYTES},
    }
    return {
        200: {
            "model": model,
            "description": "Tensors: JSON alone, or JSON and then the bytes of each "
            "binary output in order.",
            "content": content,
            "headers": {HEADER_LENGTH: _LENGTH, "X-Batch-Size": _BATCH},
        },
        **errors(400, 408, 413, 415, 422, 429, 503, 504, *codes),
    }


def event_answers(model: type[BaseModel], *codes: int) -> Responses:
    """Describe a stream of server-sent events with JSON of this model."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": _reference(model),
    }
    text = {"type": "string"}
    event = {
        "type": "object",
        "properties": {"event": text, "id": text, "data": data},
        "required": ["event", "id", "data"],
    }
    return {
        200: {
            "description": f"Events; the data of each is a {model.__name__}.",
            "content": {"text/event-stream": {"itemSchema": event}},
        },
        204: {"description": "It has ended, and that was told before."},
        **errors(*codes),
    }


def header_parameter() -> Spec:
    """Describe the header that says where the JSON part of a body ends."""
    return {"in": "header", "name": HEADER_LENGTH, "required": False, **_LENGTH}


def idempotency_parameter() -> Spec:
    """Describe the header that makes a submission safe to repeat."""
    return {
        "in": "header",
        "name": "Idempotency-Key",
        "required": False,
        "description": "The same key and body give the same job; the same key with "
        "another body is a 422.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    }


def tensor_body(
    model: type[BaseModel], examples: Mapping[str, Spec], *more: Spec
) -> Spec:
    """Describe a body with tensors.

    Args:
        model: Its JSON part.
        examples: Bodies by a name for people.
        *more: Further parameters.
    """
    encoding = {"type": "string", "enum": ["gzip", "deflate", "identity"]}
    return {
        "parameters": [
            header_parameter(),
            {
                "in": "header",
                "name": "Content-Encoding",
                "description": "How the body is compressed, if it is.",
                "schema": encoding,
            },
            *more,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _reference(model),
                    "examples": {n: {"value": one} for n, one in examples.items()},
                },
                "application/octet-stream": {"schema": _BYTES},
            },
        },
    }


def json_body(model: type[BaseModel]) -> Spec:
    """Describe a plain JSON body that may be left out."""
    content = {"application/json": {"schema": _reference(model)}}
    return {"requestBody": {"required": False, "content": content}}


def file_body(*media_types: str, parameters: tuple[Spec, ...] = ()) -> Spec:
    """Describe an uploaded file."""
    content = {kind: {"schema": _BYTES} for kind in media_types}
    return {
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": content},
    }


def _reference(model: type[BaseModel]) -> Spec:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> Spec:
    """Build the whole description once; `bodies` are models that only routes name."""
    if app.openapi_schema is None:
        spec = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        components = spec.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        _, extra = models_json_schema(
            [(model, "validation") for model in bodies],
            ref_template="#/components/schemas/{model}",
        )
        schemas.update(extra["$defs"])
        components["securitySchemes"] = _SECURITY
        spec["security"] = [{}, {"key": []}]
        _drop_default_errors(spec, schemas)
        app.openapi_schema = spec
    return app.openapi_schema


def _drop_default_errors(spec: Spec, schemas: Spec) -> None:
    """Remove FastAPI's own 422: here a parameter that cannot be read is a 400."""
    for path in spec["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
