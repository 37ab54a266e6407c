"""/v1/matrices: resident operands, named by their content."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nnz_service.errors import ImpossibleError
from nnz_service.gateway.ownership import owner_of
from nnz_service.gateway.residence import MATRIX_VERSION, forget, states
from nnz_service.repository import MatrixRecord
from nnz_service.web.answers import Json
from nnz_service.web.deps import Served, caller_of, name_resource
from nnz_service.web.openapi import answers, empty, file_body, header_parameter
from nnz_service.web.schemas.v1 import MatricesOut, MatrixOut
from nnz_service.web.uploads import MATRIX_TYPES, take_matrix

router = APIRouter(tags=["matrices"])

MatrixId = Annotated[str, Path(description="As the upload answered it.")]
_MAX_NAME = 128
_UPLOAD_ERRORS = (400, 408, 413, 415, 422, 429, 503)


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
) -> Response:
    """Store a sparse matrix and make it resident.

    `application/x-npz` is what `scipy.sparse.save_npz` writes; Matrix Market files
    may be compressed (`Content-Encoding: gzip`, or `application/gzip` for .mtx.gz);
    `application/x-nnz-csr` is a tensor body with the inputs `indptr`, `indices` and
    `data` and `"parameters": {"shape": [m, n]}`. The same matrix has the same id
    whatever the format it came in.
    """
    if name is not None and (not 0 < len(name) <= _MAX_NAME or not name.isprintable()):
        raise ImpossibleError(
            f"a matrix name has 1 to {_MAX_NAME} printable characters"
        )
    record, new = await take_matrix(request, parts, name, owner_of(caller_of(request)))
    name_resource(request, record.id)
    row = _row(record, await states(parts))
    return Json(row, status_code=201 if new else 200)


@router.get("/v1/matrices", responses=answers(MatricesOut, "The matrices."))
async def list_matrices(request: Request, parts: Served) -> Response:
    """List the caller's matrices, newest first, and those of nobody in particular."""
    found = await states(parts)
    owner = owner_of(caller_of(request))
    records = await asyncio.to_thread(parts.repository.matrices, owner)
    return Json({"matrices": [_row(record, found) for record in records]})


@router.get(
    "/v1/matrices/{matrix_id}", responses=answers(MatrixOut, "The matrix.", 404)
)
async def get_matrix(request: Request, parts: Served, matrix_id: MatrixId) -> Response:
    """Describe one matrix."""
    owner = owner_of(caller_of(request))
    record = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    return Json(_row(record, await states(parts)))


@router.delete(
    "/v1/matrices/{matrix_id}",
    status_code=204,
    responses=empty("It is gone.", 404, status=204),
)
async def delete_matrix(
    request: Request, parts: Served, matrix_id: MatrixId
) -> Response:
    """Give a matrix up; with its last owner it goes from the worker and the disk."""
    owner = owner_of(caller_of(request))
    record = await asyncio.to_thread(parts.repository.matrix, matrix_id, owner)
    async with parts.turns.of(record.id):
        await forget(parts, record.id, owner=owner)
    return Response(status_code=204)


def _row(
    record: MatrixRecord, found: dict[tuple[str, str], tuple[str, str]]
) -> dict[str, Any]:
    state, reason = found.get((record.id, MATRIX_VERSION), ("UNAVAILABLE", ""))
    return {**record.to_json(), "state": state, "reason": reason}
