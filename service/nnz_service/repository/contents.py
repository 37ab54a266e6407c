"""The arrays of a stored matrix, from the one or two files that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.repository import bundles
from nnz_service.repository.records import MatrixRecord
from nnz_service.servable import COMPLEX_TYPES, DATATYPES

_PLACES = ("indptr", "indices")
_TYPES = DATATYPES | COMPLEX_TYPES


def size_of(record: MatrixRecord) -> int:
    """Bytes of the arrays that `arrays_of` returns."""
    index, item = _TYPES[record.index_dtype].itemsize, _TYPES[record.dtype].itemsize
    return record.nnz * (index + item) + (record.shape[0] + 1) * index


def arrays_of(record: MatrixRecord) -> dict[str, NDArray[Any]]:
    """Return indptr (m + 1,), indices (nnz,) and data (nnz,), rows sorted.

    Of complex entries data is (nnz, 2): real and imaginary parts.

    Raises:
        MalformedError: A file is damaged or gone.
    """
    places = record.path.parent / (record.pattern or record.path.name)
    found = bundles.load(places, _PLACES)
    data = bundles.load(record.path, ("data",))["data"]
    if data.dtype.kind == "c":
        data = data.astype(np.complex128).view(np.float64).reshape(-1, 2)
    return found | {"data": data}
