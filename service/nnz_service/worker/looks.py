"""Calls that look at a resident matrix: facts about it, a picture of it."""

from __future__ import annotations

import numpy as np

from nnz_service.algebra import facts, spy
from nnz_service.dataplane import Reply
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Servable
from nnz_service.worker.calls import Params
from nnz_service.worker.matrices import MatrixServable

#: Pictures that a matrix keeps, of the sizes asked for first.
_KEPT = 4


def matrix_of(servable: Servable) -> MatrixServable:
    """Return a servable that is a matrix.

    Raises:
        InvalidInputError: It is a model.
    """
    if not isinstance(servable, MatrixServable):
        raise InvalidInputError(f"this is a {servable.kind}, not a matrix")
    return servable


def described(servable: Servable, params: Params) -> Reply:
    """Find the facts of a matrix; takes O(nnz)."""
    return Reply({"facts": facts.describe(matrix_of(servable).operator.matrix)})


def drawn(servable: Servable, params: Params) -> Reply:
    """Draw a matrix in so many pixels (`size`); the tensor `png` holds the file.

    Raises:
        InvalidInputError: The size is out of bounds.
    """
    matrix, size = matrix_of(servable), params.get("size")
    if type(size) is not int or not spy.SMALLEST <= size <= spy.LARGEST:
        raise InvalidInputError(
            f"size is {size!r}, but must be from {spy.SMALLEST} to {spy.LARGEST}"
        )
    picture = matrix.pictures.get(size)
    if picture is None:
        picture = spy.spy(matrix.operator.matrix, size)
        if len(matrix.pictures) < _KEPT:
            matrix.pictures[size] = picture
    return Reply({}, {"png": np.frombuffer(picture, np.uint8)})
