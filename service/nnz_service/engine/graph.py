"""The graph of a model: nodes, constants and signature; no ONNX, no kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

#: The element types that a value may have, by the name that the protocol uses.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "INT64": np.dtype(np.int64),
    "INT32": np.dtype(np.int32),
    "BOOL": np.dtype(np.bool_),
}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Name a NumPy type as the protocol does, ``FP32`` for float32 for example."""
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    return str(dtype)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: `dtype` as in `DTYPES`, None for a free axis."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(slots=True)
class Node:
    """One operation.

    Args:
        op: Name of the operation in its newest form; settings that newer ONNX
            versions take as inputs (axes, pads, shapes) are inputs here.
        name: Unique in the graph, as in the file where the file names its nodes.
        inputs: Names of values; an empty name is an input that is left out.
        outputs: Names of the values that it makes; empty when not wanted.
        attrs: Settings that are not tensors.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def label(self) -> str:
        """What an error message calls this node."""
        return f"node {self.name!r} ({self.op})"


@dataclass(slots=True)
class Graph:
    """Nodes in an order in which each comes after the makers of its inputs."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: list[Node]
    constants: dict[str, Array]
    #: Names of the free axes of the inputs, as the file gives them; None is fixed.
    free_axes: dict[str, tuple[str | None, ...]] = field(default_factory=dict)

    def producers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value, once for each time they name it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def results(self) -> frozenset[str]:
        """Names of the values that the caller gets."""
        return frozenset(info.name for info in self.outputs)

    def constant(self, name: str) -> Array | None:
        """The value of a constant, None when `name` is not one."""
        return self.constants.get(name) if name else None

    def sweep(self) -> None:
        """Drop nodes whose outputs nobody reads, and constants likewise."""
        wanted = set(self.results())
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(out in wanted for out in node.outputs):
                kept.append(node)
                wanted.update(name for name in node.inputs if name)
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in wanted}
