"""Files that callers send: to disk under a limit, then read by a process apart."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from nnz_service.errors import MalformedError, ServiceError, UnsupportedMediaError
from nnz_service.gateway.residence import MATRIX_VERSION, forget, load
from nnz_service.repository import MatrixRecord, ModelRecord, Owner, matrix_id
from nnz_service.repository.blobs import BlobWriter
from nnz_service.repository.intake import inspect
from nnz_service.repository.records import check_name, check_version
from nnz_service.web.bodies import header_length, stream_body
from nnz_service.web.deps import Parts, unless_gone

ONNX = "application/octet-stream"
CSR = "application/x-nnz-csr"
MATRIX_MARKET = "text/x-matrix-market"
#: Media types of a matrix, and the one under which the intake knows them.
MATRIX_TYPES = {
    "application/x-npz": "application/x-npz",
    MATRIX_MARKET: MATRIX_MARKET,
    "application/x-matrix-market": MATRIX_MARKET,
    "application/gzip": "application/gzip",
    CSR: CSR,
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
        work = inspect("model", upload.path, media_type=ONNX, out=None)
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
        out = await asyncio.to_thread(parts.repository.blobs.staged)
        try:
            work = inspect("matrix", upload.path, media_type=media_type, out=out)
            info = await unless_gone(request, work)
            blob = await asyncio.to_thread(parts.repository.blobs.adopt, out)
        finally:
            out.unlink(missing_ok=True)
    put = parts.repository.put_matrix
    async with parts.turns.of(matrix_id(blob.sha256)):
        record, new = await asyncio.to_thread(put, blob, info, name, owner)
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
