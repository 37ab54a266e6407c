"""A dict of arrays as one blob: npz without pickle, the same bytes every time."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import MalformedError
from nnz_service.repository.blobs import BlobStore
from nnz_service.repository.records import Blob

#: What passes, and says nothing about the file.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
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


def names(path: Path) -> list[str]:
    """Return the names of the arrays, of which none is read.

    Raises:
        MalformedError: when the file is not a bundle.
        OSError: when the machine has no descriptor or memory for it now.
    """
    with _opened(path) as bundle:
        return list(bundle.files)


def load(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays back, all of them or some.

    Raises:
        MalformedError: when the file is not a bundle.
        OSError: when the machine has no descriptor or memory for it now.
    """
    with _opened(path) as bundle:
        return {name: bundle[name] for name in names or bundle.files}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        # Opened here: NumPy leaks the file when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as bundle:
            yield bundle
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in _SCARCE:
            raise
        raise MalformedError(f"not a bundle of arrays: {error}") from error
