"""The data types of the Open Inference Protocol, and which of them are refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.servable import DATATYPES, datatype

#: Types of the protocol that no servable here takes or gives.
_REFUSED = {
    "BYTES": "strings are not computed with here; send numbers",
    "BF16": "bfloat16 is not supported; send FP32",
}


def dtype_of(datatype: object, where: str) -> np.dtype[Any]:
    """Return numpy's dtype for a protocol name.

    Raises:
        MalformedError: The name is not one of the protocol's.
        ImpossibleError: The type exists but is not supported.
    """
    if isinstance(datatype, str):
        if datatype in DATATYPES:
            return DATATYPES[datatype]
        if datatype in _REFUSED:
            raise ImpossibleError(
                f"{where} has datatype {datatype}: {_REFUSED[datatype]}"
            )
    raise MalformedError(
        f"{where} has datatype {datatype!r}; it must be one of {', '.join(DATATYPES)}"
    )


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a numpy dtype.

    Raises:
        ImpossibleError: The protocol has no such type.
    """
    try:
        return datatype(dtype)
    except ValueError as exc:
        raise ImpossibleError(str(exc)) from None
