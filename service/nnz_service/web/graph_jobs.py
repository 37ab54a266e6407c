"""What jobs of the kinds `graph` and `eigs` need, checked before they are written."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError, MalformedError
from nnz_service.repository import Owner, Repository
from nnz_service.web.job_params import (
    check_count,
    check_known,
    check_number,
    check_real,
    check_square,
    matrix_of,
)

#: Algorithms and the parameters that each takes besides the matrix.
ALGORITHMS: dict[str, frozenset[str]] = {
    "pagerank": frozenset({"damping", "tol", "maxiter"}),
    "bfs": frozenset({"source"}),
    "sssp": frozenset({"source"}),
    "components": frozenset(),
    "triangles": frozenset(),
}
WHICH = ("largest", "smallest", "magnitude")
_EIGS = frozenset({"matrix", "k", "which", "tol", "maxiter", "time_limit"})

#: Eigenpairs of one job at most.
MAX_PAIRS = 256


def check_graph(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    """Refuse an algorithm that could not run.

    Raises:
        MalformedError: A parameter is unknown, missing or of the wrong type.
        NotFoundError: The matrix is not stored, or not theirs.
        ImpossibleError: The matrix is not square, or a value makes no sense.
    """
    algorithm = params.get("algorithm")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise MalformedError(
            f"parameters.algorithm is {str(algorithm)[:40]!r}; there are "
            f"{', '.join(ALGORITHMS)}"
        )
    known = ALGORITHMS[algorithm] | {"matrix", "algorithm", "time_limit"}
    n = _rows(algorithm, repository, params, known, tensors, owner)
    if "source" in known and n == 0:
        raise ImpossibleError(f"the matrix is 0 x 0: {algorithm} has nowhere to begin")
    if "source" in known:
        check_count(params, "source", 0, n - 1, needed=True)
    check_count(params, "maxiter", 1, 2**31 - 1)
    check_number(params, "tol", math.inf)
    check_number(params, "damping", 1)
    check_number(params, "time_limit", math.inf)


def check_eigs(
    repository: Repository,
    params: dict[str, Any],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> None:
    """Refuse eigenpairs that could not be computed.

    Raises:
        MalformedError: A parameter is unknown, missing or of the wrong type.
        NotFoundError: The matrix is not stored, or not theirs.
        ImpossibleError: The matrix is not square, or a value makes no sense.
    """
    n = _rows("eigs", repository, params, _EIGS, tensors, owner)
    check_count(params, "k", 1, min(n, MAX_PAIRS), needed=True)
    check_count(params, "maxiter", 1, 2**31 - 1)
    check_number(params, "tol", 1)
    check_number(params, "time_limit", math.inf)
    which = params.get("which", WHICH[0])
    if which not in WHICH:
        raise ImpossibleError(
            f"parameters.which is {which!r:.60}, but must be one of {', '.join(WHICH)}"
        )


def _rows(
    what: str,
    repository: Repository,
    params: dict[str, Any],
    known: frozenset[str],
    tensors: dict[str, NDArray[Any]],
    owner: Owner,
) -> int:
    """Return the rows of the matrix, which is square, and nothing else is sent."""
    check_known(what, params, known)
    record = matrix_of(what, repository, params, owner)
    rows = check_square(what, record)
    check_real(what, record)
    if tensors:
        raise InvalidInputError(f"{what} takes no inputs; got {[*tensors]}")
    return rows
