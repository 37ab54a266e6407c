"""What jobs of the kind `chain` need, checked before they are written down."""

from __future__ import annotations

from typing import Any

import orjson
from numpy.typing import NDArray

from nnz_service.errors import MalformedError, TooLargeError
from nnz_service.repository import Owner, Repository, is_matrix_id
from nnz_service.web.chains import checked
from nnz_service.web.sparse import MATRICES

#: Bytes of all steps: they stand in lists of jobs.
MAX_BYTES = 1 << 16


def check_chain(
    repository: Repository,
    params: dict[str, Any],
    steps: object,
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> dict[str, Any]:
    """Return the parameters of a chain that can be begun.

    Raises:
        MalformedError: There are other parameters, or the steps cannot be understood.
        NotFoundError: A matrix is not stored, or not theirs.
        InvalidInputError: A tensor or a result is of no use.
        TooLargeError: The steps take too many bytes.
    """
    if params:
        raise MalformedError(
            f"a chain has no parameter {min(params)[:80]!r}; those of operations "
            "belong to their steps"
        )
    found = checked(steps, tensors.keys())
    if (size := len(orjson.dumps(found))) > MAX_BYTES:
        raise TooLargeError(
            f"the steps of a job take {size} bytes, the limit is {MAX_BYTES}; send "
            "lists of rows and columns as tensors"
        )
    names = {step.get(key) for step in found for key in MATRICES}
    for name in sorted(name for name in names if name and is_matrix_id(name)):
        repository.matrix(name, owner)
    return {"steps": found}
