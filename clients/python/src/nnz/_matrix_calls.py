"""Endpoints of single matrices and of uploads in pieces, as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from nnz import _matrices, _tensors
from nnz._calls import Answer, Call, _given, _output, _path, _reader
from nnz._content import READING, of_part
from nnz._errors import (
    ConflictError,
    ConnectError,
    NnzError,
    ProtocolError,
    UnavailableError,
)
from nnz._models import MatrixInfo
from nnz._rules import numbers
from nnz._tensors import Array

#: Files from here on go in pieces, so that a cut connection costs one piece at most.
LARGE = 64 << 20
PIECE = 16 << 20
#: Pieces in a row of which nothing arrived before it is given up.
PATIENCE = 5

#: Bytes that are there, bytes in all.
Progress = Callable[[int, int], object]
Plan = Generator[Call[Any], Any, MatrixInfo]


def product(
    matrix_id: str,
    x: Array,
    transpose: bool,
    conjugate: bool,
    semiring: str | None = None,
) -> Call[Array]:
    """A resident matrix times a vector ``(n,)`` or the columns of ``(n, k)``.

    Complex numbers cross as pairs along a last axis.
    """
    op = "spmv" if x.ndim == 1 else "spmm"
    paired = x.dtype.kind == "c"
    if paired:  # conj(A) x is the conjugate of A conj(x)
        z = np.ascontiguousarray(x.conj() if conjugate else x)
        x = z.view(np.float64).reshape(*z.shape, 2)
    parameters = {"matrix": matrix_id, "transpose": transpose, "semiring": semiring}
    headers, content = _tensors.encode({"x": x}, parameters=parameters)

    def parse(answer: Answer) -> Array:
        y = _output("y")(answer)
        return numbers(np.dtype(np.complex128), y, conjugate) if paired else y

    return Call("POST", f"/v1/ops/{op}", parse, headers=headers, content=content)


def spy(matrix_id: str, size: int) -> Call[bytes]:
    """A picture of where the entries are."""
    return Call(
        "GET",
        _path("v1", "matrices", matrix_id, "spy"),
        lambda answer: bytes(answer.body),
        params=_given(size=size),
    )


def put_values(
    matrix_id: str, source: _matrices.ScipyMatrix | ArrayLike, name: str | None
) -> Call[MatrixInfo]:
    """Other values at the places of a matrix: a new matrix."""
    data, pattern = _matrices.values(source)
    headers, content = _tensors.encode({"data": data})
    return Call(
        "PUT",
        _path("v1", "matrices", matrix_id, "values"),
        _reader(MatrixInfo.of),
        params=_given(name=name, pattern=pattern),
        headers=headers,
        content=content,
    )


def reside(matrix_id: str, verb: str) -> Call[MatrixInfo]:
    """Load, unload, pin or unpin a matrix."""
    path = _path("v1", "matrices", matrix_id, verb)
    return Call("POST", path, _reader(MatrixInfo.of))


def in_pieces(
    source: str | os.PathLike[str],
    name: str | None,
    progress: Progress | None = None,
    resume: str | None = None,
) -> Plan:
    """Put a file in pieces; yields calls, takes their results or errors.

    After a piece that failed the server is asked how much of it came. An error that
    ends it has the upload's id in its details, with which it can be resumed.
    """
    path = Path(source)
    length = path.stat().st_size
    upload = (yield _begin(length)) if resume is None else resume
    try:
        yield from _sent(path, length, upload, progress, look=resume is not None)
        info: MatrixInfo = yield _finish(upload, path, name)
    except NnzError as error:
        error.details["upload"] = upload
        raise
    return info


def _sent(
    path: Path, length: int, upload: str, progress: Progress | None, *, look: bool
) -> Generator[Call[Any], Any, None]:
    """Send what is not there yet."""
    fruitless, offset = 0, 0
    if look:
        offset = yield _look(upload)
    while offset < length:
        before = offset
        try:
            offset = yield _piece(upload, path, offset)
        except (ConnectError, ConflictError, UnavailableError):
            fruitless += 1
            if fruitless > PATIENCE:
                raise
            offset = yield _look(upload)
        if offset > before:
            fruitless = 0
        if progress is not None:
            progress(offset, length)


def goes_in_pieces(
    source: _matrices.MatrixSource, progress: object, resume: object
) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a source is a file that goes in pieces: large, or somebody watches.

    Raises:
        TypeError: Progress of something that is no file is asked for.
    """
    watched = progress is not None or resume is not None
    if watched and not isinstance(source, str | os.PathLike):
        raise TypeError("progress and resume are for files; this is a matrix in memory")
    return watched or is_large(source)


def is_large(
    source: _matrices.MatrixSource,
) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a source is a file that goes in pieces."""
    if not isinstance(source, str | os.PathLike):
        return False
    path = Path(source)
    return path.is_file() and path.stat().st_size >= LARGE


def _begin(length: int) -> Call[str]:
    return Call(
        "POST",
        "/v1/uploads",
        _reader(lambda data: str(data["id"])),
        headers={"Upload-Length": str(length)},
    )


def _piece(upload: str, path: Path, offset: int) -> Call[int]:
    return Call(
        "PATCH",
        _path("v1", "uploads", upload),
        _offset,
        headers={
            "Content-Type": "application/partial-upload",
            "Upload-Offset": str(offset),
        },
        content=of_part(path, offset, PIECE),
        idempotent=False,  # what came of it stays
    )


def _look(upload: str) -> Call[int]:
    return Call("HEAD", _path("v1", "uploads", upload), _offset)


def _finish(upload: str, path: Path, name: str | None) -> Call[MatrixInfo]:
    return Call(
        "POST",
        "/v1/matrices",
        _reader(MatrixInfo.of),
        params=_given(name=name, upload=upload),
        headers=_as_stored(_matrices.file_headers(path)),
        wait=READING,
    )


def _as_stored(headers: Mapping[str, str]) -> dict[str, str]:
    """A compressed file stays one: the pieces are not decompressed on their way."""
    if "Content-Encoding" in headers:
        return {"Content-Type": "application/gzip"}
    return dict(headers)


def _offset(answer: Answer) -> int:
    try:
        return int(answer.headers["upload-offset"])
    except (KeyError, ValueError) as error:
        raise ProtocolError(
            "the answer about an upload does not say how much is there",
            status=answer.status,
        ) from error
