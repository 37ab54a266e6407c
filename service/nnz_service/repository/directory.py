"""The folder of models: `name.onnx` or `name/version/model.onnx`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.errors import ServiceError
from nnz_service.repository.catalog import Repository
from nnz_service.repository.intake import inspect
from nnz_service.repository.records import Blob, ModelRecord, check_name, check_version

ONNX = "application/octet-stream"


async def scan(repository: Repository, folder: Path | None) -> None:
    """Make the catalog agree with the folder; None is a folder without models.

    A file that cannot be served is recorded with the reason. A name that an uploaded
    model has already is left to that model.
    """
    known = {
        (record.name, record.version): record
        for record in repository.models()
        if record.source == "directory"
    }
    for name, version, path in find(folder):
        before = known.pop((name, version), None)
        blob = _hash(path)
        if before is not None and _is_good(before, blob):
            continue
        try:
            info = await _inspect(path)
            repository.put_directory_model(name, version, blob, info)
        except ServiceError as error:
            logs.logger().warning("model not served", path=str(path), reason=str(error))
    for name, version in known:
        repository.delete_model(name, version)


def find(folder: Path | None) -> Iterator[tuple[str, str, Path]]:
    """Name, version and file of every model in a folder; other files are passed over.

    Raises:
        ServiceError: when the folder cannot be read.
    """
    if folder is None:
        return
    try:
        entries = sorted(folder.resolve().iterdir())
    except OSError as error:
        raise ServiceError(f"cannot read the folder of models: {error}") from error
    for entry in entries:
        if entry.suffix == ".onnx" and entry.is_file():
            found = [(entry.stem, "1", entry)]
        elif entry.is_dir():
            paths = sorted(entry.glob("*/model.onnx"))
            found = [(entry.name, path.parent.name, path) for path in paths]
        else:
            found = []
        for name, version, path in found:
            try:
                yield check_name(name), check_version(version), path
            except ServiceError as error:
                logs.logger().warning("passed over", path=str(path), reason=str(error))


def _is_good(before: ModelRecord, blob: Blob) -> bool:
    same = (before.sha256, before.path) == (blob.sha256, blob.path)
    return same and before.reason is None


async def _inspect(path: Path) -> dict[str, Any]:
    try:
        return await inspect("model", path, media_type=ONNX, out=None)
    except ServiceError as error:
        logs.logger().warning("cannot be served", path=str(path), reason=str(error))
        return {"reason": str(error)}


def _hash(path: Path) -> Blob:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Blob(digest, path, path.stat().st_size)
