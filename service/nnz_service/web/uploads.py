"""Files that callers send: to disk under a limit, then read by a process apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request

from nnz_service.dataplane import Tensors
from nnz_service.errors import (
    ConflictError,
    MalformedError,
    NotFoundError,
    ServiceError,
    UnsupportedMediaError,
)
from nnz_service.gateway.ownership import owner_of
from nnz_service.gateway.residence import MATRIX_VERSION, forget, load
from nnz_service.repository import Blob, MatrixRecord, ModelRecord, Owner, matrix_id
from nnz_service.repository.blobs import BlobWriter
from nnz_service.repository.intake import inspect
from nnz_service.repository.records import check_name, check_version
from nnz_service.repository.uploads import Upload
from nnz_service.web.bodies import (
    HEADER_LENGTH,
    header_length,
    parse_body,
    read_body,
    stream_body,
)
from nnz_service.web.deps import Parts, caller_of, unless_gone

ONNX = "application/octet-stream"
CSR = "application/x-nnz-csr"
MATRIX_MARKET = "text/x-matrix-market"
MPS = "application/x-mps"
#: Media types of a matrix, and the one under which the intake knows them.
MATRIX_TYPES = {
    "application/x-npz": "application/x-npz",
    MATRIX_MARKET: MATRIX_MARKET,
    "application/x-matrix-market": MATRIX_MARKET,
    "application/gzip": "application/gzip",
    CSR: CSR,
    # A linear program: its matrix, with costs and bounds beside it; plain or gzip.
    MPS: MPS,
    "text/x-mps": MPS,
}


async def take_model(
    request: Request, parts: Parts, name: str, version: str | None
) -> tuple[ModelRecord, bool]:
    """Store an uploaded model and make it resident.

    A model that the worker cannot load is forgotten again.

    Returns:
        The record and whether it is new.

    Raises:
        ImpossibleError: The name is not usable, or the file not a model that runs.
        ConflictError: That version is there with other content.
    """
    check_name(name)
    if version is not None:
        check_version(version)
    with await _receive(request, parts) as upload:
        owner = caller_of(request).id
        work = inspect("model", upload.path, media_type=ONNX, out=None, owner=owner)
        info = await unless_gone(request, work)
        blob = await asyncio.to_thread(upload.commit)
    put = parts.repository.put_model
    async with parts.turns.of(name):
        record, new = await asyncio.to_thread(put, name, version, blob, info)
        try:
            await load(parts, name, record.version)
        except ServiceError:
            if new:
                await forget(parts, name, record.version)
            raise
    return record, new


async def take_matrix(
    request: Request, parts: Parts, name: str | None, owner: Owner
) -> tuple[MatrixRecord, bool]:
    """Store an uploaded matrix in its resident form and make it resident.

    Of what the worker cannot load the owner loses what they got just before: all of
    it, or their share.

    Returns:
        The record and whether it is new.

    Raises:
        UnsupportedMediaError: The content type is not that of a matrix.
        InvalidMatrixError: The file is not a matrix, or breaks its own rules.
    """
    media_type = _matrix_type(request)
    with await _receive(request, parts) as upload:
        blob, info = await _read_matrix(request, parts, upload.path, media_type)
    return await keep_matrix(parts, matrix_id(blob.sha256), blob, info, name, owner)


async def take_uploaded(
    request: Request, parts: Parts, identity: str, name: str | None, owner: Owner
) -> tuple[MatrixRecord, bool]:
    """Make a matrix, as `take_matrix` does, of what came in pieces; then that goes.

    Whoever asks again, because the answer did not arrive, gets the same matrix.

    Raises:
        NotFoundError: There is no such upload.
        ConflictError: It is not complete, or a piece is still coming.
        UnsupportedMediaError, InvalidMatrixError: As of a file that came whole.
    """
    media_type, store = _matrix_type(request), parts.repository.uploads
    try:
        with store.held(identity, owner) as (upload, path):
            _check_complete(upload)
            blob, info = await _read_matrix(request, parts, path, media_type)
            key = matrix_id(blob.sha256)
            kept = await keep_matrix(parts, key, blob, info, name, owner)
            made = kept[0].id
            await asyncio.to_thread(store.finish, identity, owner, made, media_type)
    except NotFoundError:
        if (before := await _made(parts, identity, owner, media_type)) is None:
            raise
        return before, False
    return kept


async def _made(
    parts: Parts, identity: str, owner: Owner, request: str
) -> MatrixRecord | None:
    """Return what such a request made of an upload before, if one did.

    Raises:
        NotFoundError: That is gone.
    """
    became = parts.repository.uploads.became
    found = await asyncio.to_thread(became, identity, owner, request)
    if found is None:
        return None
    return await asyncio.to_thread(parts.repository.matrix, found, owner)


def _check_complete(upload: Upload) -> None:
    if upload.length not in (None, upload.offset) or not upload.offset:
        raise ConflictError(
            f"{upload.offset} of {upload.length or 'more than 0'} bytes are there; "
            "send the rest"
        )


async def _read_matrix(
    request: Request, parts: Parts, path: Path, media_type: str
) -> tuple[Blob, dict[str, Any]]:
    """Have a file read; returns the resident form and what it says of itself."""
    out = await asyncio.to_thread(parts.repository.blobs.staged)
    try:
        owner = caller_of(request).id
        work = inspect("matrix", path, media_type=media_type, out=out, owner=owner)
        info = await unless_gone(request, work)
        blob = await asyncio.to_thread(parts.repository.blobs.adopt, out)
    finally:
        out.unlink(missing_ok=True)
    return blob, info


async def take_values(
    request: Request,
    parts: Parts,
    base: MatrixRecord,
    name: str | None,
    pattern: str | None,
) -> tuple[MatrixRecord, bool]:
    """Store a matrix that has other values than one that is there, at its places.

    Returns:
        The record and whether it is new.

    Raises:
        InvalidInputError: The body is not the values of such a matrix.
        ConflictError: The places are not those of `pattern`.
    """
    body = await read_body(request, parts.limits.max_body)
    asked = await parse_body(request, body, parts.limits.max_json)
    params = {"pattern": pattern}
    return await _revalued(request, parts, base, name, params, asked.tensors)


async def take_uploaded_values(
    request: Request,
    parts: Parts,
    base: MatrixRecord,
    name: str | None,
    pattern: str | None,
    identity: str,
) -> tuple[MatrixRecord, bool]:
    """Do what `take_values` does with a body that came in pieces; then that goes.

    Whoever asks again, because the answer did not arrive, gets the same matrix.

    Raises:
        NotFoundError: There is no such upload.
        ConflictError: It is not complete, or the places are not those of `pattern`.
        MalformedError, InvalidInputError: As of a body that came whole.
    """
    store, owner = parts.repository.uploads, owner_of(caller_of(request))
    asked = f"values of {base.id}"
    try:
        with store.held(identity, owner) as (upload, path):
            _check_complete(upload)
            header = header_length(request)
            if not header:
                raise MalformedError(
                    f"values of an upload need {HEADER_LENGTH}: the length of its JSON "
                    "part"
                )
            params = {"pattern": pattern, "file": str(path), "header": header}
            kept = await _revalued(request, parts, base, name, params, {})
            await asyncio.to_thread(store.finish, identity, owner, kept[0].id, asked)
    except NotFoundError:
        if (before := await _made(parts, identity, owner, asked)) is None:
            raise
        return before, False
    return kept


async def _revalued(
    request: Request,
    parts: Parts,
    base: MatrixRecord,
    name: str | None,
    asked: Mapping[str, Any],
    tensors: Tensors,
) -> tuple[MatrixRecord, bool]:
    places = base.pattern or base.sha256
    out = await asyncio.to_thread(parts.repository.blobs.staged)
    params = {**asked, "name": base.id, "out": str(out), "blob": places}
    try:
        reply = await parts.call(request, "revalue", params, tensors)
        blob = await asyncio.to_thread(parts.repository.blobs.adopt, out)
    finally:
        out.unlink(missing_ok=True)
    info = {**reply.result["info"], "pattern": places}
    identity = matrix_id(reply.result["sha256"])
    owner = owner_of(caller_of(request))
    return await keep_matrix(parts, identity, blob, info, name, owner)


async def keep_matrix(
    parts: Parts,
    identity: str,
    blob: Blob,
    info: Mapping[str, Any],
    name: str | None,
    owner: Owner,
) -> tuple[MatrixRecord, bool]:
    """Record a matrix whose resident form is stored, and make it resident.

    Returns:
        The record and whether it is new.

    Raises:
        ServiceError: The worker cannot load it; then it is forgotten.
    """
    put = parts.repository.put_matrix
    async with parts.turns.of(identity):
        record, new = await asyncio.to_thread(put, blob, info, name, owner, identity)
        try:
            await load(parts, record.id, MATRIX_VERSION)
        except ServiceError:
            if new:
                share = Owner(owner.id, all=not owner.id)
                await forget(parts, record.id, MATRIX_VERSION, share)
            raise
    return record, new


async def _receive(request: Request, parts: Parts) -> BlobWriter:
    """Write the body to a file beside the blobs; the caller closes it."""
    writer = parts.repository.blobs.writer
    upload = await asyncio.to_thread(writer, parts.limits.max_upload)
    try:
        await stream_body(request, upload.write)
        if not upload.size:
            raise MalformedError("the body is empty; send the file as the body")
        await asyncio.to_thread(upload.flush)
    except BaseException:
        upload.__exit__(None, None, None)
        raise
    return upload


def _matrix_type(request: Request) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in MATRIX_TYPES:
        raise UnsupportedMediaError(
            f"Content-Type {given!r} is not that of a matrix; use one of "
            f"{', '.join(MATRIX_TYPES)}"
        )
    if given != CSR:
        return MATRIX_TYPES[given]
    length = header_length(request)
    if not length:
        raise MalformedError(
            f"{CSR} needs Inference-Header-Content-Length: the length of the JSON part"
        )
    return f"{CSR}; header={length}"
