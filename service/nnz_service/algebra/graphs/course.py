"""What graph algorithms have in common: rounds, a state between them, an answer."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr

Arrays = dict[str, npt.NDArray[Any]]
Numbers = npt.NDArray[np.int64]


class Course(Protocol):
    """An algorithm under way."""

    def round(self) -> bool:
        """Go one round further; True when it has ended."""
        ...

    def progress(self) -> dict[str, Any]:
        """How far it is, as JSON types."""
        ...

    def state(self) -> Arrays:
        """Everything needed to go on from here, bit for bit."""
        ...

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """Facts as JSON types, and the arrays of the answer."""
        ...


def edges_from(a: Csr[HostArray], vertices: Numbers) -> Numbers:
    """Return the places of the entries of some rows, row by row."""
    starts = a.indptr[vertices].astype(np.int64)
    lengths = a.indptr[vertices + 1] - starts
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if ends.size else 0)
    return places + np.repeat(starts - ends + lengths, lengths)


def number_of(state: Arrays, name: str) -> int:
    """Return a whole number of a state."""
    return int(state[name])
