"""Prove that the images of a batch do not see each other, so that requests may join.

Two inferences that differ in the batch size alone show where the batch lies in every
value: on the one axis whose size differs. A model may be batched if no node mixes that
axis, each input has it first and each output has it first. What is not understood
counts as mixing: the answer no costs speed, a wrong yes would mix callers' data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnz_service.engine.graph import Graph, Node
from nnz_service.engine.moves import SETTINGS, pad_widths, setting
from nnz_service.engine.rows import BINARY, COMPARE, REDUCE, UNARY, reduce_axes
from nnz_service.engine.shapes import Facts

_ELEMENTWISE = frozenset(
    {*UNARY, *BINARY, *COMPARE, "Clip", "Not", "Where", "Cast", "Identity", "PRelu"}
)
_FIRST_AXIS_KEPT = frozenset(
    {
        "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
        "DepthToSpace", "SpaceToDepth", "ChannelAffine",
    }
)  # fmt: skip
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def is_batchable(graph: Graph, few: Facts, many: Facts) -> bool:
    """Whether requests may be joined along axis 0.

    Args:
        graph: Optimised.
        few: Facts for inputs with some batch size.
        many: Facts for inputs with another batch size and else the same.
    """
    ends = [info.name for info in (*graph.inputs, *graph.outputs)]
    if any(name in few.values or _axis(name, few, many) != 0 for name in ends):
        return False
    return all(_keeps_apart(node, few, many) for node in graph.nodes)


def _axis(name: str, few: Facts, many: Facts) -> int | None:
    """Where the batch lies in a value: an axis, None if nowhere, -1 if on several."""
    a, b = few.shape(name), many.shape(name)
    if len(a) != len(b):
        return -1
    found = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    return None if not found else found[0] if len(found) == 1 else -1


def _keeps_apart(node: Node, few: Facts, many: Facts) -> bool:
    if all(name in few.values for name in node.outputs if name):
        return True
    if any(not _is_uniform(name, node, few, many) for name in node.inputs if name):
        return False
    axes = [_axis(name, few, many) if name else None for name in node.inputs]
    outputs = [_axis(name, few, many) for name in node.outputs if name]
    if all(a is None for a in axes):
        return all(a is None for a in outputs)
    if -1 in axes or any(a is None or a < 0 for a in outputs):
        return False
    if node.op in _ELEMENTWISE:
        return _aligned(node, axes, few)
    if node.op in _FIRST_AXIS_KEPT:
        return axes[0] == 0 and outputs == [0]
    if node.op in _RESHAPES:
        return _is_slowest(node.inputs[0], axes[0], few) and _is_slowest(
            node.output, outputs[0], few
        )
    rule = _RULES.get(node.op)
    return rule is not None and rule(node, axes, few)


def _is_uniform(name: str, node: Node, few: Facts, many: Facts) -> bool:
    """Whether a value known from shapes alone is the same for every image."""
    if name not in few.values or node.inputs.index(name) in SETTINGS.get(node.op, ()):
        return True
    a, b = few.values[name], many.values[name]
    if a.shape == b.shape:
        return a is b or np.array_equal(a, b)
    axis = _axis(name, few, many)
    if axis is None or axis < 0:
        return False
    return all(
        np.array_equal(v, np.broadcast_to(v.take([0], axis), v.shape)) for v in (a, b)
    )


def _aligned(node: Node, axes: list[int | None], few: Facts) -> bool:
    """Whether all operands have the batch on one axis, counted from the end."""
    ranks = [len(few.shape(name)) if name else 0 for name in node.inputs]
    places = {
        axis - rank for axis, rank in zip(axes, ranks, strict=True) if axis is not None
    }
    return len(places) == 1


def _rank(node: Node, few: Facts) -> int:
    return len(few.shape(node.inputs[0]))


def _known(node: Node, index: int, few: Facts) -> list[int] | None:
    given = node.inputs[index] if index < len(node.inputs) else ""
    return setting([few.values.get(given)], 0) if given else None


def _not_last(node: Node, axes: list[int | None], few: Facts) -> bool:
    last = _rank(node, few) - 1
    residual = len(axes) < 2 or axes[1] == axes[0]
    return bool(axes[0] != last and residual)


def _own_axis(node: Node, axes: list[int | None], few: Facts) -> bool:
    rank = _rank(node, few)
    return bool(node.attrs.get("axis", 0) % rank not in axes)


def _softmax(node: Node, axes: list[int | None], few: Facts) -> bool:
    rank, batch = _rank(node, few), axes[0]
    axis = node.attrs["axis"] % rank
    if node.attrs["coerce"]:
        return batch is not None and batch < axis
    return bool(batch != axis)


def _layer_norm(node: Node, axes: list[int | None], few: Facts) -> bool:
    first = node.attrs.get("axis", -1) % _rank(node, few)
    return axes[0] is not None and axes[0] < first


def _attention(node: Node, axes: list[int | None], few: Facts) -> bool:
    if axes[:3] != [0, 0, 0]:
        return False
    return axes[3:] in ([], [None]) or (
        axes[3] == 0 and len(few.shape(node.inputs[3])) == 4
    )


def _reduce(node: Node, axes: list[int | None], few: Facts) -> bool:
    given = node.inputs[1] if len(node.inputs) > 1 else ""
    over = reduce_axes(node, _rank(node, few), few.values.get(given))
    return axes[0] not in over


def _matmul(node: Node, axes: list[int | None], few: Facts) -> bool:
    ranks = [len(few.shape(name)) for name in node.inputs]
    if axes[1] is None:
        return axes[0] is not None and axes[0] < ranks[0] - 1
    # Both have it, or the second alone: then it must be an axis of many matrices.
    places = {a - r for a, r in zip(axes, ranks, strict=True) if a is not None}
    return len(places) == 1 and places.pop() < -2


def _gemm(node: Node, axes: list[int | None], few: Facts) -> bool:
    batch = 1 if node.attrs.get("transA", 0) else 0
    return axes[0] == batch and axes[1] is None and axes[2:] in ([], [None])


def _any(node: Node, axes: list[int | None], few: Facts) -> bool:
    return True


def _is_slowest(name: str, axis: int | None, few: Facts) -> bool:
    """Row-major order keeps images apart while nothing but ones lies before them."""
    return all(size == 1 for size in few.shape(name)[:axis])


def _slice(node: Node, axes: list[int | None], few: Facts) -> bool:
    rank = _rank(node, few)
    cut = _known(node, 3, few) or list(range(len(_known(node, 1, few) or [])))
    return axes[0] not in [a % rank for a in cut]


def _pad(node: Node, axes: list[int | None], few: Facts) -> bool:
    known = [few.values.get(name) if name else None for name in node.inputs]
    batch = axes[0]
    return batch is not None and pad_widths(_rank(node, few), known)[batch] == (0, 0)


def _gather(node: Node, axes: list[int | None], few: Facts) -> bool:
    if axes[0] is None:
        return True
    return axes[1] is None and node.attrs.get("axis", 0) % _rank(node, few) != axes[0]


_RULES: dict[str, Callable[[Node, list[int | None], Facts], bool]] = {
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Transpose", "SwapLast"), _any),
    **dict.fromkeys(("Concat", "Split"), _own_axis),
    "LayerNormalization": _layer_norm,
    "Attention": _attention,
    "Linear": _not_last,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
}
