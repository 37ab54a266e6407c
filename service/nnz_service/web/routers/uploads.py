"""/v1/uploads: large files in pieces, across broken connections."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from nnz_service.errors import MalformedError, UnsupportedMediaError
from nnz_service.gateway.ownership import owner_of
from nnz_service.repository.uploads import Upload
from nnz_service.web.answers import Json
from nnz_service.web.bodies import content_window, stream_body
from nnz_service.web.deps import Served, caller_of, name_resource
from nnz_service.web.openapi import answers, empty, file_body
from nnz_service.web.schemas.v1 import UploadOut

router = APIRouter(tags=["matrices"])

UploadId = Annotated[str, Path(description="As its beginning answered it.")]
OFFSET, LENGTH = "Upload-Offset", "Upload-Length"
_DIGITS = re.compile(r"[0-9]{1,18}")
_NUMBER = {"schema": {"type": "integer", "minimum": 0}}


def _header(name: str, meaning: str, *, required: bool) -> dict[str, Any]:
    place = {"in": "header", "name": name, "required": required}
    return {**place, "description": meaning, **_NUMBER}


_STATE = {
    OFFSET: {"description": "Bytes that are there.", **_NUMBER},
    LENGTH: {"description": "Bytes that it will have, if known.", **_NUMBER},
}


def _stated(responses: dict[int | str, dict[str, Any]], status: int) -> Any:
    """Say which headers an answer has besides."""
    responses[status]["headers"] = _STATE
    return responses


@router.post(
    "/v1/uploads",
    status_code=201,
    responses=_stated(
        answers(UploadOut, "Begun.", 400, 413, 429, status=201), status=201
    ),
    openapi_extra={
        "parameters": [_header(LENGTH, "Bytes that it will have.", required=False)]
    },
)
async def begin_upload(request: Request, parts: Served) -> Response:
    """Begin an upload that comes in pieces.

    Send the pieces by PATCH, ask by HEAD how far it got where a connection was cut, and
    make a matrix of it by `POST /v1/matrices?upload=<id>`. It is given up a day after
    its last piece.
    """
    length = _number(request, LENGTH)
    owner, limit = owner_of(caller_of(request)), parts.limits.max_upload
    begin = parts.repository.uploads.begin
    upload = await asyncio.to_thread(begin, owner, length, limit)
    name_resource(request, upload.id)
    return Json(_row(upload), status_code=201, headers=_headers(upload))


@router.patch(
    "/v1/uploads/{upload_id}",
    status_code=204,
    responses=_stated(
        empty("It is there.", 400, 404, 408, 409, 413, 415, 429, status=204), status=204
    ),
    openapi_extra=file_body(
        "application/partial-upload",
        parameters=(_header(OFFSET, "Where the piece begins.", required=True),),
    ),
)
async def append(request: Request, parts: Served, upload_id: UploadId) -> Response:
    """Add a piece, of any size, behind what is there.

    Of a piece that is cut, what came stays. A 409 says that `Upload-Offset` is not the
    number of bytes that are there, or that another piece is still coming.
    """
    offset = _number(request, OFFSET)
    if offset is None:
        raise MalformedError(f"{OFFSET} is missing: the bytes that are there already")
    if content_window(request) is not None:
        raise UnsupportedMediaError(
            "a piece has no Content-Encoding; compress the file itself"
        )
    owner, store = owner_of(caller_of(request)), parts.repository.uploads
    limit = parts.limits.max_upload
    with store.appending(upload_id, owner, offset, limit) as write:
        await stream_body(request, write)
    upload = await asyncio.to_thread(store.find, upload_id, owner)
    return Response(status_code=204, headers=_headers(upload))


@router.head(
    "/v1/uploads/{upload_id}",
    status_code=204,
    responses=_stated(empty("How far it is.", 404, status=204), status=204),
)
async def look(request: Request, parts: Served, upload_id: UploadId) -> Response:
    """Say how many bytes are there: the next piece begins behind them."""
    owner = owner_of(caller_of(request))
    upload = await asyncio.to_thread(parts.repository.uploads.find, upload_id, owner)
    return Response(status_code=204, headers=_headers(upload))


@router.delete(
    "/v1/uploads/{upload_id}",
    status_code=204,
    responses=empty("It is gone.", 404, status=204),
)
async def drop_upload(request: Request, parts: Served, upload_id: UploadId) -> Response:
    """Give an upload up."""
    owner = owner_of(caller_of(request))
    await asyncio.to_thread(parts.repository.uploads.delete, upload_id, owner)
    return Response(status_code=204)


def _row(upload: Upload) -> dict[str, Any]:
    names = ("id", "offset", "length", "expires")
    return {name: getattr(upload, name) for name in names}


def _headers(upload: Upload) -> dict[str, str]:
    found = {OFFSET: str(upload.offset), "Cache-Control": "no-store"}
    return found if upload.length is None else {**found, LENGTH: str(upload.length)}


def _number(request: Request, name: str) -> int | None:
    text = request.headers.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text.strip()):
        raise MalformedError(f"{name} is {text[:40]!r}; it must be a number of bytes")
    return int(text)
