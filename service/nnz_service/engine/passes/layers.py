"""Turn Conv, Gemm and MatMul with constant weights into layers that hold them.

A layer is a node ``Conv`` or ``Linear`` with inputs ``[x]`` or ``[x, residual]`` and
the attributes weights (``(oc, ic/group, ...)`` or ``(oc, ic)``), weight_shape, bias
(``(oc,)`` or None), lo and hi (the clamp of its result), and activation (what is done
to the clamped result, by the kernels' name, or None). Where apart is true, no weight of
zero may be multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnz_service.engine.graph import Array, Graph, Node, dtype_name
from nnz_service.engine.shapes import Spec
from nnz_service.errors import InvalidModelError, UnsupportedModelError

#: Ops that are layers: they hold weights and may end in a residual and a clamp.
LAYERS = ("Conv", "Linear")


def make_layers(graph: Graph) -> None:
    """Replace nodes by layers and constant affine maps, in place.

    Raises:
        InvalidModelError: Weights do not fit their node.
        UnsupportedModelError: Weights are not constant; all such nodes are named.
    """
    refused: list[str] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "Conv":
            nodes += _conv(graph, node, refused)
        elif node.op == "BatchNormalization":
            nodes += _batch_norm(graph, node, refused)
        elif node.op == "Gemm":
            nodes += _gemm(graph, node)
        elif node.op == "MatMul":
            nodes += _matmul(graph, node)
        else:
            nodes.append(node)
    if refused:
        raise UnsupportedModelError(
            f"{len(refused)} nodes cannot run here: " + "; ".join(refused), refused
        )
    graph.nodes = nodes
    graph.sweep()


def layer_attrs(weights: Array, bias: Array | None) -> dict[str, Any]:
    """The attributes of a layer without residual and clamp."""
    return {
        "weights": np.ascontiguousarray(weights, np.float32),
        "weight_shape": weights.shape,
        "bias": None if bias is None else np.ascontiguousarray(bias, np.float32),
        "lo": -np.inf,
        "hi": np.inf,
        "activation": None,
    }


def _conv(graph: Graph, node: Node, refused: list[str]) -> list[Node]:
    weights = graph.constant(node.inputs[1])
    named = node.inputs[2] if len(node.inputs) > 2 else ""
    bias = graph.constant(named)
    if weights is None or (named and bias is None):
        refused.append(f"{node.name} (Conv): its weights are not constant")
        return []
    _check_float(node, weights, bias)
    if not 3 <= weights.ndim <= 4:
        refused.append(
            f"{node.name} (Conv): {weights.ndim - 2} spatial axes, not 1 or 2"
        )
        return []
    groups = int(node.attrs.get("group", 1))
    kernel = list(node.attrs.get("kernel_shape") or weights.shape[2:])
    if groups < 1 or weights.shape[0] % groups or 0 in weights.shape:
        raise InvalidModelError(
            f"{node.label()}: weights {list(weights.shape)} do not fit {groups} groups"
        )
    if kernel != list(weights.shape[2:]):
        raise InvalidModelError(
            f"{node.label()}: kernel_shape {kernel} is not that of its weights "
            f"{list(weights.shape)}"
        )
    if bias is not None and bias.shape != weights.shape[:1]:
        raise InvalidModelError(
            f"{node.label()}: bias {list(bias.shape)}, [{weights.shape[0]}] is needed"
        )
    attrs = {**node.attrs, "kernel_shape": kernel, "group": groups}
    attrs |= layer_attrs(weights, bias)
    return [Node("Conv", node.name, node.inputs[:1], node.outputs, attrs)]


def _check_float(node: Node, *arrays: Array | None) -> None:
    for array in arrays:
        if array is not None and array.dtype != np.float32:
            raise InvalidModelError(
                f"{node.label()}: weights of type {dtype_name(array.dtype)}, "
                "FP32 is needed"
            )


def _batch_norm(graph: Graph, node: Node, refused: list[str]) -> list[Node]:
    params = [graph.constant(name) for name in node.inputs[1:5]]
    known = [p for p in params if p is not None]
    if len(known) < 4:
        refused.append(f"{node.name} (BatchNormalization): parameters are not constant")
        return []
    if len({p.shape for p in known}) != 1 or known[0].ndim != 1:
        raise InvalidModelError(
            f"{node.label()}: parameters of shapes {[list(p.shape) for p in known]}; "
            "all must be vectors of one length"
        )
    scale, bias, mean, variance = (p.astype(np.float64) for p in known)
    if np.any(variance + node.attrs["epsilon"] <= 0):
        raise InvalidModelError(f"{node.label()}: a variance is negative")
    factor = scale / np.sqrt(variance + node.attrs["epsilon"])
    names = [f"{node.output}:scale", f"{node.output}:shift"]
    graph.constants[names[0]] = factor.astype(np.float32)
    graph.constants[names[1]] = (bias - mean * factor).astype(np.float32)
    return [Node("ChannelAffine", node.name, [node.inputs[0], *names], node.outputs)]


def _gemm(graph: Graph, node: Node) -> list[Node]:
    weights = graph.constant(node.inputs[1])
    if weights is None or weights.ndim != 2 or 0 in weights.shape:
        return [node]
    _check_float(node, weights)
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    w = weights if node.attrs.get("transB", 0) else weights.T
    w = w * np.float32(alpha) if alpha != 1.0 else w
    before, x = _swapped(node)
    named = node.inputs[2] if len(node.inputs) > 2 and beta != 0.0 else ""
    c = graph.constant(named)
    if not named or (c is not None and _is_bias(c, w.shape[0])):
        bias = None
        if c is not None:
            bias = np.broadcast_to(c.reshape(-1), w.shape[:1]) * np.float32(beta)
        attrs = layer_attrs(w, bias)
        return [*before, Node("Linear", node.name, [x], node.outputs, attrs)]
    return [*before, *_gemm_with_matrix(graph, node, x, w, named, beta)]


def _gemm_with_matrix(
    graph: Graph, node: Node, x: str, w: Array, c: str, beta: float
) -> list[Node]:
    """C is a matrix or not constant, so it is added by a node of its own."""
    product = f"{node.output}:product"
    nodes = [Node("Linear", node.name, [x], [product], layer_attrs(w, None))]
    if beta != 1.0:
        graph.constants[f"{node.output}:beta"] = np.asarray(beta, np.float32)
        scaled = f"{node.output}:scaled"
        nodes.append(
            Node("Mul", f"{node.name}:beta", [c, f"{node.output}:beta"], [scaled])
        )
        c = scaled
    return [*nodes, Node("Add", f"{node.name}:add", [product, c], node.outputs)]


def _swapped(node: Node) -> tuple[list[Node], str]:
    if not node.attrs.get("transA", 0):
        return [], node.inputs[0]
    out = f"{node.output}:transposed"
    return [Node("SwapLast", f"{node.name}:transA", node.inputs[:1], [out])], out


def _is_bias(c: Array, features: int) -> bool:
    return c.size in (1, features) and c.shape[-1:] in ((), (1,), (features,))


def _matmul(graph: Graph, node: Node) -> list[Node]:
    weights = graph.constant(node.inputs[1])
    if weights is None or weights.ndim != 2 or 0 in weights.shape:
        return [node]
    _check_float(node, weights)
    attrs = layer_attrs(weights.T, None)
    return [Node("Linear", node.name, node.inputs[:1], node.outputs, attrs)]


def make_left_layers(graph: Graph, specs: Mapping[str, Spec]) -> None:
    """Turn a MatMul whose first matrix is constant into a layer, in place.

    ``W x`` is the transpose of ``x^T W^T``; transposing is a view.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        weights = graph.constant(node.inputs[0]) if node.op == "MatMul" else None
        if weights is None or weights.ndim != 2 or 0 in weights.shape:
            nodes.append(node)
            continue
        attrs = layer_attrs(weights, None)
        if len(specs[node.inputs[1]].shape) < 2:
            nodes.append(
                Node("Linear", node.name, node.inputs[1:], node.outputs, attrs)
            )
            continue
        turned, product = f"{node.output}:turned", f"{node.output}:product"
        nodes += [
            Node("SwapLast", f"{node.name}:turn", node.inputs[1:], [turned]),
            Node("Linear", node.name, [turned], [product], attrs),
            Node("SwapLast", f"{node.name}:back", [product], node.outputs),
        ]
    graph.nodes = nodes
    graph.sweep()
