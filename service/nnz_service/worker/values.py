"""The call that gives a resident matrix other values: a new matrix, the same places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import as_entries
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.csr_body import read_arrays
from nnz_service.algebra.facts import pattern_digest
from nnz_service.algebra.files import write_values
from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import ConflictError, InvalidInputError
from nnz_service.servable import Servable, entry_type
from nnz_service.worker.calls import Params, text_of
from nnz_service.worker.looks import matrix_of

#: Bytes that are read for a value: twice what complex ones have, so that who sends too
#: many is told their shape.
_MOST = 32


def revalued(servable: Servable, params: Params, tensors: Tensors) -> Reply:
    """Write the values of a new matrix to a file.

    Args:
        servable: The matrix whose places are kept.
        params: `out`, the file; `blob`, the name of the one that holds the places;
            `pattern`, the digest that the places must have, if any; `file`, where the
            tensors are, and `header`, the length of its JSON part, if they are there.
        tensors: `data` [nnz] in stored order, or [nnz, 2] for real and imaginary parts.

    Returns:
        `sha256` of the whole new matrix and `info` about it.

    Raises:
        InvalidInputError, MalformedError: `data` is missing or does not fit.
        ConflictError: The places are others.
    """
    a = matrix_of(servable).operator.matrix
    expected = params.get("pattern")
    if expected is not None and expected != (found := pattern_digest(a)):
        raise ConflictError(
            f"the matrix stores its entries at other places: its pattern is {found}, "
            f"not {expected}"
        )
    if "file" in params:
        path, header = Path(params["file"]), int(params["header"])
        if (size := path.stat().st_size) > (most := header + _MOST * a.nnz):
            raise InvalidInputError(
                f"the upload has {size} bytes, but {a.nnz} values take at most {most}"
            )
        tensors, _ = read_arrays(path, header, axes=2)
    made = replace(a, data=_entries(a, tensors))
    digest = write_values(made, text_of(params, "blob"), Path(text_of(params, "out")))
    info = {
        "shape": [*made.shape],
        "nnz": made.nnz,
        "dtype": entry_type(made.data.dtype),
        "index_dtype": entry_type(made.indices.dtype),
    }
    return Reply({"sha256": digest, "info": info})


def _entries(a: Csr[HostArray], tensors: Tensors) -> HostArray:
    if set(tensors) != {"data"}:
        raise InvalidInputError(f"values come as one input data, not {[*tensors]}")
    data = tensors["data"]
    doubled = data.ndim == 2 and data.dtype.kind == "c"
    if doubled or data.shape not in ((a.nnz,), (a.nnz, 2)):
        raise InvalidInputError(
            f"data is {data.dtype} of shape {[*data.shape]}, but the matrix stores "
            f"{a.nnz} entries: "
            f"it must be [{a.nnz}], or [{a.nnz}, 2] for complex ones"
        )
    try:
        if data.ndim == 1:
            return np.ascontiguousarray(as_entries(data))
        pairs = np.ascontiguousarray(as_entries(data), np.float64)
    except KernelError as error:
        raise InvalidInputError(f"data: {error}") from error
    return pairs.view(np.complex128).reshape(-1)
