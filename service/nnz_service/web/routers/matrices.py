"""/v1/matrices: resident operands, named by their content."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nnz_service.errors import ImpossibleError, UnavailableError
from nnz_service.gateway.ownership import owner_of
from nnz_service.gateway.residence import (
    MATRIX_VERSION,
    forget,
    load,
    states,
    unload,
)
from nnz_service.repository import MatrixRecord
from nnz_service.repository.contents import arrays_of, size_of
from nnz_service.web.answers import Json, tensor_answer
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.deps import Parts, Served, caller_of, name_resource
from nnz_service.web.openapi import (
    answers,
    empty,
    errors,
    file_body,
    header_parameter,
    tensor_answers,
    tensor_body,
)
from nnz_service.web.schemas.oip import TensorsIn
from nnz_service.web.schemas.v1 import MatricesOut, MatrixContentOut, MatrixOut
from nnz_service.web.stages import stages_of
from nnz_service.web.uploads import (
    MATRIX_TYPES,
    take_matrix,
    take_uploaded,
    take_uploaded_values,
    take_values,
)

router = APIRouter(tags=["matrices"])

MatrixId = Annotated[str, Path(description="As the upload answered it.")]
_MAX_NAME = 128
#: For which a picture may be kept; a matrix never changes, but may be deleted.
_PICTURE_SECONDS = 3600
_VALUES = {
    "inputs": [{"name": "data", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}]
}
_UPLOAD_ERRORS = (400, 404, 408, 409, 413, 415, 422, 429, 503)


@router.post(
    "/v1/matrices",
    status_code=201,
    responses={
        200: {"model": MatrixOut, "description": "The same matrix was there."},
        **answers(MatrixOut, "Stored and resident.", *_UPLOAD_ERRORS, status=201),
    },
    openapi_extra=file_body(*MATRIX_TYPES, parameters=(header_parameter(),)),
)
async def put_matrix(
    request: Request,
    parts: Served,
    name: Annotated[str | None, Query(description="Only shown.")] = None,
    upload: Annotated[
        str | None, Query(description="An upload that came in pieces, for the body.")
    ] = None,
) -> Response:
    """Store a sparse matrix and make it resident.

    `application/x-npz` is what `scipy.sparse.save_npz` writes; Matrix Market files
    may be compressed (`Content-Encoding: gzip`, or `application/gzip` for .mtx.gz);
    `application/x-nnz-csr` is a tensor body with `"parameters": {"shape": [m, n]}` and
    the inputs `indptr`, `indices` and `data`, or `row`, `col` and `data` in any order,
    where duplicates are summed. `application/x-mps` is a linear program, plain or gzip:
    its matrix, with costs and bounds beside it for jobs `lp`. Complex entries have the
    datatype C64 or C128. The same matrix has the same id whatever the format it came
    in.
    """
    _check_name(name)
    owner = owner_of(caller_of(request))
    if upload is None:
        record, new = await take_matrix(request, parts, name, owner)
    else:
        record, new = await take_uploaded(request, parts, upload, name, owner)
    name_resource(request, record.id)
    row = _row(record, await states(parts))
    return Json(row, status_code=201 if new else 200)


@router.get("/v1/matrices", responses=answers(MatricesOut, "The matrices.", 503))
async def list_matrices(request: Request, parts: Served) -> Response:
    """List the caller's matrices, newest first, and those of nobody in particular."""
    found = await states(parts)
    owner = owner_of(caller_of(request))
    records = await asyncio.to_thread(parts.repository.matrices, owner)
    return Json({"matrices": [_row(record, found) for record in records]})


@router.get(
    "/v1/matrices/{matrix_id}", responses=answers(MatrixOut, "The matrix.", 404, 503)
)
async def get_matrix(request: Request, parts: Served, matrix_id: MatrixId) -> Response:
    """Describe one matrix: sizes, symmetry, rows, bandwidth.

    Facts that are not known yet are found now, if the worker is there, and kept.
    """
    owner = owner_of(caller_of(request))
    record = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    if record.facts is None:
        with contextlib.suppress(UnavailableError):
            found = await parts.call(request, "describe", {"name": record.id})
            facts = found.result["facts"]
            await asyncio.to_thread(parts.repository.note_facts, record.id, facts)
            record = replace(record, facts=facts)
    return Json(_row(record, await states(parts)))


@router.get(
    "/v1/matrices/{matrix_id}/spy",
    responses={
        200: {
            "description": "The picture.",
            "content": {"image/png": {"schema": {"type": "string"}}},
            "headers": {"Cache-Control": {"schema": {"type": "string"}}},
        },
        **errors(400, 404, 429, 503, 504),
    },
    response_class=Response,
)
async def spy(
    request: Request,
    parts: Served,
    matrix_id: MatrixId,
    size: Annotated[
        int, Query(ge=16, le=2048, description="Pixels of the longer side.")
    ] = 512,
) -> Response:
    """Draw where the entries of a matrix are, as PNG.

    White is empty; grey falls with the logarithm of the entries that a pixel holds.
    """
    owner = owner_of(caller_of(request))
    record = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    params = {"name": record.id, "size": size}
    picture = (await parts.call(request, "spy", params)).tensors["png"]
    kept = {"Cache-Control": f"private, max-age={_PICTURE_SECONDS}"}
    return Response(picture.tobytes(), media_type="image/png", headers=kept)


@router.get(
    "/v1/matrices/{matrix_id}/content",
    responses=tensor_answers(MatrixContentOut, 404),
)
async def get_content(request: Request, parts: Served, matrix_id: MatrixId) -> Response:
    """Return the entries of a matrix as the tensors `indptr`, `indices` and `data`.

    Compressed rows, columns ascending; `data` [nnz], or [nnz, 2] for real and imaginary
    parts. They are bytes behind a JSON header; with `Accept: application/json` they
    come as JSON numbers.
    """
    record = await _own(request, parts, matrix_id)
    reservation = stages_of(request).reservation
    if reservation is not None:  # as for the results of jobs
        reservation.grow(size_of(record))
    arrays = await asyncio.to_thread(arrays_of, record)
    binary = "application/json" not in request.headers.get("accept", "")
    return await tensor_answer(
        {"id": record.id, "shape": list(record.shape)},
        arrays,
        TensorRequest({}, {}, {}, (), binary),
        accept_encoding=request.headers.get("accept-encoding", ""),
        binary_default=binary,
    )


@router.put(
    "/v1/matrices/{matrix_id}/values",
    status_code=201,
    responses={
        200: {"model": MatrixOut, "description": "The same matrix was there."},
        **answers(
            MatrixOut,
            "Stored and resident.",
            504,
            *_UPLOAD_ERRORS,
            status=201,
        ),
    },
    openapi_extra=tensor_body(TensorsIn, {"values": _VALUES}),
)
async def put_values(
    request: Request,
    parts: Served,
    matrix_id: MatrixId,
    name: Annotated[str | None, Query(description="Of the new one.")] = None,
    pattern: Annotated[
        str | None, Query(description="Digest that the places must have.")
    ] = None,
    upload: Annotated[
        str | None, Query(description="An upload that came in pieces, for the body.")
    ] = None,
) -> Response:
    """Make a matrix of other values at the places of one that is there.

    The input `data` [nnz] holds the entries row by row, columns ascending; [nnz, 2]
    holds real and imaginary parts. The answer is a new matrix with an id of its own, as
    if it had been sent whole; the places are stored once for both, and the first one
    stays as it is. With `pattern`, the digest of the description, a 409 says that the
    places are not those that the caller thinks. A body beyond NNZ_MAX_BODY comes in
    pieces: `/v1/uploads`, then `?upload=<id>` with an empty body and the
    `Inference-Header-Content-Length` of what was uploaded.
    """
    _check_name(name)
    owner = owner_of(caller_of(request))
    base = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    if upload is None:
        record, new = await take_values(request, parts, base, name, pattern)
    else:
        record, new = await take_uploaded_values(
            request, parts, base, name, pattern, upload
        )
    name_resource(request, record.id)
    row = _row(record, await states(parts))
    return Json(row, status_code=201 if new else 200)


@router.post(
    "/v1/matrices/{matrix_id}/load",
    responses=answers(MatrixOut, "It is resident.", 404, 422, 503),
)
async def load_matrix(request: Request, parts: Served, matrix_id: MatrixId) -> Response:
    """Make a stored matrix resident now instead of at its next use."""
    record = await _own(request, parts, matrix_id)
    async with parts.turns.of(record.id):
        await load(parts, record.id, MATRIX_VERSION)
    return Json(_row(record, await states(parts)))


@router.post(
    "/v1/matrices/{matrix_id}/unload",
    responses=answers(MatrixOut, "It is not resident any more.", 404, 503),
)
async def unload_matrix(
    request: Request, parts: Served, matrix_id: MatrixId
) -> Response:
    """Free the memory of a matrix, pinned or not; its next use loads it again."""
    record = await _own(request, parts, matrix_id)
    async with parts.turns.of(record.id):
        await unload(parts, record.id, MATRIX_VERSION)
    return Json(_row(record, await states(parts)))


@router.post(
    "/v1/matrices/{matrix_id}/pin",
    responses=answers(MatrixOut, "It is resident and stays so.", 404, 409, 422, 503),
)
async def pin_matrix(request: Request, parts: Served, matrix_id: MatrixId) -> Response:
    """Keep a matrix resident whatever else is loaded, also across restarts.

    A 409 says that pinned matrices would take more than the budget (NNZ_MATRIX_BYTES).
    """
    return await _pin(request, parts, matrix_id, pinned=True)


@router.post(
    "/v1/matrices/{matrix_id}/unpin",
    responses=answers(MatrixOut, "It may go when memory is short.", 404, 503),
)
async def unpin_matrix(
    request: Request, parts: Served, matrix_id: MatrixId
) -> Response:
    """Let a matrix go when others need the memory."""
    return await _pin(request, parts, matrix_id, pinned=False)


@router.delete(
    "/v1/matrices/{matrix_id}",
    status_code=204,
    responses=empty("It is gone.", 404, 503, status=204),
)
async def delete_matrix(
    request: Request, parts: Served, matrix_id: MatrixId
) -> Response:
    """Give a matrix up; with its last owner it goes from the worker and the disk.

    So it does where an admin gives up one that is not theirs.
    """
    owner = owner_of(caller_of(request))
    record = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    async with parts.turns.of(record.id):
        await forget(parts, record.id, owner=owner)
    return Response(status_code=204)


async def _own(request: Request, parts: Parts, matrix_id: str) -> MatrixRecord:
    owner = owner_of(caller_of(request))
    return await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)


async def _pin(
    request: Request, parts: Parts, matrix_id: str, *, pinned: bool
) -> Response:
    record = await _own(request, parts, matrix_id)
    async with parts.turns.of(record.id):
        await parts.call(request, "pin", {"name": record.id, "pinned": pinned})
        await asyncio.to_thread(parts.repository.set_pinned, record.id, pinned)
    return Json(_row(replace(record, pinned=pinned), await states(parts)))


def _check_name(name: str | None) -> None:
    if name is not None and (not 0 < len(name) <= _MAX_NAME or not name.isprintable()):
        raise ImpossibleError(
            f"a matrix name has 1 to {_MAX_NAME} printable characters"
        )


def _row(
    record: MatrixRecord, found: dict[tuple[str, str], tuple[str, str]]
) -> dict[str, Any]:
    state, reason = found.get((record.id, MATRIX_VERSION), ("UNAVAILABLE", ""))
    return {**record.to_json(), "state": state, "reason": reason}
