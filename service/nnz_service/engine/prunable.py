"""Find the weights of an ONNX graph that can be pruned, and cut them into blocks.

A weight is an initializer or a Constant node that a Conv, Gemm or MatMul reads as its
right-hand side, directly or through operators that only move it (Transpose, Reshape,
...). Moving an array of positions the same way tells where each block is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

#: A convolution of so few channels reads the picture itself: it holds few weights,
#: every later layer depends on it, and pruning it costs accuracy out of proportion.
FEW_CHANNELS = 4
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}


@dataclass(frozen=True, slots=True)
class Weight:
    """A stored constant as one node sees it.

    `positions` has the shape that the node sees and holds flat positions in `tensor`.
    """

    tensor: onnx.TensorProto
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor to prune.

    `blocks` is ``(block rows * columns, b)``: positions in the flat stored tensor.
    `rows` are the report rows of the nodes that read it, more than one if it is shared.
    """

    tensor: onnx.TensorProto
    blocks: NDArray[np.int64]
    rows: tuple[dict[str, Any], ...]


def find_layers(
    graph: onnx.GraphProto, block: int, first: bool
) -> tuple[list[Layer], list[dict[str, Any]]]:
    """Find every layer with constant weights.

    Args:
        graph: the graph; the tensors returned are those in it, not copies.
        block: the block wanted; halved until it divides a layer's output channels.
        first: take convolutions of few input channels too.

    Returns:
        The layers that can be pruned, and a row for every weight, those that cannot be
        pruned included; their ``block`` is None and ``note`` says why.
    """
    constants = _constants(graph)
    readers = _readers(graph, constants)
    rows: list[dict[str, Any]] = []
    found: dict[str, list[tuple[dict[str, Any], NDArray[np.int64] | None]]] = {}
    tensors: dict[str, onnx.TensorProto] = {}
    for node in _weighted(graph, constants):
        weight = constants[node.input[1]]
        row = _row(node, weight)
        row["note"] = reason = _reason_to_keep(node, weight, first)
        rows.append(row)
        key = weight.tensor.name
        tensors[key] = weight.tensor
        blocks = None if reason else _blocks(node, weight.positions, block, row)
        found.setdefault(key, []).append((row, blocks))

    layers = []
    for key, uses in found.items():
        own = tuple(row for row, _ in uses)
        cuts = [blocks for _, blocks in uses if blocks is not None]
        # Every node that reads the tensor must want it cut in the same way.
        everybody = len(readers[key]) == len(uses) == len(cuts)
        if everybody and all(np.array_equal(cut, cuts[0]) for cut in cuts):
            layers.append(Layer(tensors[key], cuts[0], own))
        else:
            _keep(own, readers[key])
    return layers, rows


def _keep(rows: tuple[dict[str, Any], ...], readers: list[str]) -> None:
    """Say of rows whose tensor stays why it does, unless they say so already."""
    names = {row["name"] for row in rows}
    others = ", ".join(r for r in readers if r not in names) or "one another"
    for row in rows:
        if row["block"] is not None or row["note"] is None:
            row["note"] = f"kept: shared with {others}, which cuts it another way"
        row["block"] = None


def _constants(graph: onnx.GraphProto) -> dict[str, Weight]:
    """Map each name to the stored constant behind it, through moving operators."""
    found = {t.name: Weight(t, _positions(t)) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensor = attribute.t
                    # Constant tensors rarely have a name; the report needs one.
                    tensor.name = tensor.name or node.output[0]
                    found[node.output[0]] = Weight(tensor, _positions(tensor))
        elif node.input and node.input[0] in found:
            moved = _move(node, found[node.input[0]].positions, found)
            if moved is not None:
                found[node.output[0]] = Weight(found[node.input[0]].tensor, moved)
    return found


def _positions(tensor: onnx.TensorProto) -> NDArray[np.int64]:
    size = int(np.prod(tensor.dims, dtype=np.int64))
    return np.arange(size, dtype=np.int64).reshape(tuple(tensor.dims))


def _move(
    node: onnx.NodeProto, positions: NDArray[np.int64], constants: dict[str, Weight]
) -> NDArray[np.int64] | None:
    """Move positions as the node moves the data; None when it does more than that."""
    if node.op_type in ("Identity", "DequantizeLinear"):
        return positions  # a quantised weight is found so that its row can say so
    if node.op_type == "Transpose":
        return np.transpose(positions, _ints(node, "perm"))
    if node.op_type == "Reshape" and node.input[1] in constants:
        wanted = numpy_helper.to_array(constants[node.input[1]].tensor).ravel()
        kept = [positions.shape[i] if n == 0 else int(n) for i, n in enumerate(wanted)]
        return positions.reshape(kept)
    return None


def _readers(
    graph: onnx.GraphProto, constants: dict[str, Weight]
) -> dict[str, list[str]]:
    """Map the name of each stored tensor to the nodes that read it, moves excepted."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        moves = any(name in constants for name in node.output)
        names = () if moves else node.input
        for name in [*names, *_outer_names(node)]:
            if name in constants:
                found[constants[name].tensor.name].append(_label(node))
    for value in graph.output:
        if value.name in constants:
            found[constants[value.name].tensor.name].append("the output of the model")
    return found


def _outer_names(node: onnx.NodeProto) -> Iterator[str]:
    """Yield every name that the subgraphs of a node read."""
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from inner.input
                yield from _outer_names(inner)


def _weighted(
    graph: onnx.GraphProto, constants: dict[str, Weight]
) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants:
            yield node


def _row(node: onnx.NodeProto, weight: Weight) -> dict[str, Any]:
    values = numpy_helper.to_array(weight.tensor)
    density = np.count_nonzero(values) / values.size if values.size else 0.0
    return {
        "name": _label(node),
        "op": node.op_type,
        "shape": list(weight.positions.shape),
        "block": None,
        "density_before": density,
        "density_after": density,
        "note": None,
    }


def _reason_to_keep(node: onnx.NodeProto, weight: Weight, first: bool) -> str | None:
    shape = weight.positions.shape
    if weight.tensor.data_type not in _FLOATS:
        kind = onnx.TensorProto.DataType.Name(weight.tensor.data_type)
        return f"kept: weights are {kind}, not floating point"
    if weight.positions.size == 0:
        return "kept: no weights"
    if node.op_type == "MatMul" and len(shape) != 2:
        return f"kept: weights have {len(shape)} axes, not 2"
    if node.op_type == "Conv":
        groups = _int(node, "group", 1)
        if groups > 1 and shape[1] == 1:
            return "kept: depthwise"
        if shape[1] * groups <= FEW_CHANNELS and not first:
            return f"kept: has only {shape[1] * groups} input channel(s)"
    return None


def _blocks(
    node: onnx.NodeProto, positions: NDArray[np.int64], block: int, row: dict[str, Any]
) -> NDArray[np.int64]:
    """Cut into blocks of consecutive output channels, never across a group's end."""
    groups = 1
    if node.op_type == "Conv":
        groups = _int(node, "group", 1)
        matrix = positions.reshape(positions.shape[0], -1)
    elif node.op_type == "Gemm" and _int(node, "transB", 0):
        matrix = positions
    else:
        matrix = positions.T
    outputs = matrix.shape[0] // groups
    width = next(b for b in (block, 8, 4, 2, 1) if b <= block and outputs % b == 0)
    row["block"] = width
    if width != block:
        row["note"] = f"blocks of {width}: {block} does not divide {outputs} outputs"
    cut = matrix.reshape(-1, width, matrix.shape[1]).swapaxes(1, 2)
    return np.ascontiguousarray(cut).reshape(-1, width)


def _label(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type}:{node.output[0]}"


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _ints(node: onnx.NodeProto, name: str) -> list[int] | None:
    return next((list(a.ints) for a in node.attribute if a.name == name), None)
