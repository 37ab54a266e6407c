"""What a servable is: something resident with named inputs, outputs, a batch axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Names of element types in JSON, as the Open Inference Protocol v2 has them.
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
#: Further types that the entries of a matrix may have; no tensor crosses in them.
COMPLEX_TYPES: dict[str, np.dtype[Any]] = {
    "C64": np.dtype("<c8"),
    "C128": np.dtype("<c16"),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_ENTRIES = _NAMES | {dtype: name for name, dtype in COMPLEX_TYPES.items()}


def datatype(dtype: np.dtype[Any] | type) -> str:
    """Name of a numpy type, "FP32" for float32.

    Raises:
        ValueError: when the protocol has no name for it.
    """
    kind = np.dtype(dtype)
    name = _NAMES.get(kind) or _NAMES.get(kind.newbyteorder("<"))
    if name is None:
        raise ValueError(f"numpy type {dtype} has no name here; known: {[*DATATYPES]}")
    return name


def entry_type(dtype: np.dtype[Any]) -> str:
    """Name of the type of a matrix's entries: as `datatype`, and "C128" of complex.

    Raises:
        ValueError: when a matrix cannot hold it.
    """
    return _ENTRIES.get(dtype.newbyteorder("<")) or datatype(dtype)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of an input or output; None is a free axis."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def to_json(self) -> dict[str, Any]:
        """The form of model metadata: a free axis is -1."""
        shape = [-1 if axis is None else axis for axis in self.shape]
        return {"name": self.name, "datatype": entry_type(self.dtype), "shape": shape}


Tensors = Mapping[str, NDArray[Any]]


class Servable(Protocol):
    """Something resident that requests are applied to: a model or a matrix."""

    @property
    def kind(self) -> str:
        """`model` or `matrix`."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a request must send."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it can have back."""
        ...

    @property
    def max_batch(self) -> int:
        """Rows of axis 0 that one run may take; 0 when runs cannot be joined."""
        ...

    @property
    def plans(self) -> bool:
        """Whether each new number of rows costs the making of a plan."""
        ...

    @property
    def steady(self) -> bool:
        """Whether earlier runs tell how long a row takes; `work` knows it otherwise."""
        ...

    @property
    def bitwise(self) -> bool:
        """Whether a row of a joined run has the bits of a lone one."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held while resident."""
        ...

    def check(self, tensors: Tensors) -> None:
        """Refuse what `run` could not take.

        Raises:
            InvalidInputError: naming the tensor and what would be right.
        """
        ...

    def work(self, rows: int) -> int:
        """Estimated cost of a run over `rows`, in nanoseconds, before one was timed."""
        ...

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """Compute, all rows at once; inputs have passed `check`."""
        ...

    def explain(self) -> list[dict[str, Any]]:
        """One row a layer: what runs and why."""
        ...
