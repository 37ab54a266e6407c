"""A dict of arrays as one blob: npz without pickle, the same bytes every time."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import MalformedError
from nnz_service.repository.blobs import BlobStore
from nnz_service.repository.records import Blob

_BROKEN = (AttributeError, ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile)


def save(blobs: BlobStore, arrays: Mapping[str, NDArray[Any]]) -> Blob:
    """Store arrays; equal arrays under equal names give the same blob."""
    path = blobs.staged(".npz")
    try:
        write(path, arrays)
        return blobs.adopt(path)
    finally:
        path.unlink(missing_ok=True)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays into a file, names sorted, uncompressed."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{k: arrays[k] for k in sorted(arrays)})


def load(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays back, all of them or some.

    Raises:
        MalformedError: when the file is not a bundle.
    """
    try:
        # Opened here: NumPy leaks the file when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as bundle:
            return {name: bundle[name] for name in names or bundle.files}
    except _BROKEN as error:
        raise MalformedError(f"not a bundle of arrays: {error}") from error
