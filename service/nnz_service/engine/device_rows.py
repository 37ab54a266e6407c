"""Plain arrays that stay on a device: what would otherwise travel to the host and back.

Each function adds a step that only asks for kernels, so that it can be recorded, or
returns False: then the node runs on the host, between two copies.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_service.engine.graph import Array, Node, Shape
from nnz_service.engine.moves import axis_in, pad_widths, setting
from nnz_service.engine.plan import Call, Slot
from nnz_service.engine.rows import BINARY, REDUCE, UNARY, reduce_axes, unary_settings

if TYPE_CHECKING:
    from nnz_service.engine.lowering import Lowering

Form = Callable[["Lowering", Node], bool]


def on_device(state: Lowering, node: Node) -> bool:
    """Add a step for a node on plain arrays; False if there is none for it."""
    form = _FORMS.get(node.op)
    if form is None or len([name for name in node.outputs if name]) != 1:
        return False
    return form(state, node)


def _is_float(state: Lowering, *names: str) -> bool:
    return all(state.facts.specs[name].dtype == np.float32 for name in names)


def _known(state: Lowering, node: Node) -> list[Array | None]:
    return [state.facts.values.get(name) if name else None for name in node.inputs]


def _result(state: Lowering, node: Node) -> Slot:
    spec = state.facts.specs[node.output]
    slot = state.build.allocate(spec.dtype, spec.shape)
    state.set_rows(node.output, slot)
    return slot


def _computed(
    state: Lowering,
    node: Node,
    kernel: str,
    compute: Callable[..., Any],
    count: int = 1,
) -> bool:
    """Add `compute(*inputs)` of the first inputs, whose result is then copied."""
    sources = [state.rows(name) for name in node.inputs[:count]]
    target, kernels = _result(state, node), state.kernels

    def attach(*arrays: Any) -> Call:
        *inputs, out = arrays

        def ask() -> None:
            kernels.copy(compute(*inputs).reshape(*out.shape), out)

        return state.later(ask)

    state.build.attached(node.name, node.op, kernel, attach, *sources, target)
    return True


def _copied(state: Lowering, node: Node, *pairs: tuple[Slot, Slot]) -> bool:
    """Add copies between views."""
    kernels = state.kernels

    def attach(*arrays: Any) -> Call:
        def ask() -> None:
            for source, target in zip(arrays[::2], arrays[1::2], strict=True):
                kernels.copy(source, target)

        return state.later(ask)

    slots = [slot for pair in pairs for slot in pair]
    state.build.attached(node.name, node.op, "copy", attach, *slots)
    return True


# -- arithmetic ------------------------------------------------------------------------


def _unary(state: Lowering, node: Node) -> bool:
    if not _is_float(state, node.inputs[0]):
        return False
    if node.op == "Clip":
        kind, alpha, beta = "clip", node.attrs["lo"], node.attrs["hi"]
    else:
        kind, alpha, beta = unary_settings(node)
    source, target = state.rows(node.inputs[0]), _result(state, node)
    kernels = state.kernels

    def attach(x: Any, y: Any) -> Call:
        # kind is one of the table's names, but typed as text
        return state.later(
            lambda: kernels.unary(kind, x, y, alpha=alpha, beta=beta)  # type: ignore[arg-type]
        )

    state.build.attached(node.name, node.op, kind, attach, source, target)
    return True


def _binary(state: Lowering, node: Node) -> bool:
    if len(node.inputs) != 2 or not _is_float(state, *node.inputs):
        return False
    kind: Any = BINARY[node.op]
    run = state.kernels.binary
    return _computed(state, node, kind, lambda a, b: run(kind, a, b), count=2)


def _softmax(state: Lowering, node: Node) -> bool:
    shape = state.shape(node.inputs[0])
    axis = axis_in(int(node.attrs["axis"]), len(shape))
    run = state.kernels.softmax if node.op == "Softmax" else state.kernels.log_softmax
    if node.attrs["coerce"]:
        rows = math.prod(shape[:axis])
        flat = (rows, math.prod(shape[axis:]))
        return _computed(state, node, "softmax", lambda x: run(x.reshape(*flat), 1))
    return _computed(state, node, "softmax", lambda x: run(x, axis))


def _layer_norm(state: Lowering, node: Node) -> bool:
    shape = state.shape(node.inputs[0])
    axis = axis_in(int(node.attrs.get("axis", -1)), len(shape))
    parameters = [name for name in node.inputs[1:] if name]
    if any(state.shape(name) != shape[axis:] for name in parameters):
        return False
    eps, run = float(node.attrs.get("epsilon", 1e-5)), state.kernels.layer_norm

    def compute(x: Any, gamma: Any, beta: Any = None) -> Any:
        return run(x, gamma, beta, eps)

    return _computed(state, node, "layer_norm", compute, 1 + len(parameters))


def _matmul(state: Lowering, node: Node) -> bool:
    if not _is_float(state, *node.inputs):
        return False
    return _computed(state, node, "matmul", state.kernels.matmul, count=2)


def _reduce(state: Lowering, node: Node) -> bool:
    if not _is_float(state, node.inputs[0]):
        return False
    rank = len(state.shape(node.inputs[0]))
    if node.op in REDUCE:
        known = _known(state, node)
        axes = reduce_axes(node, rank, known[1] if len(known) > 1 else None)
        kind: Any = REDUCE[node.op]
    else:
        axes = tuple(range(2, rank))
        kind = "mean" if node.op == "GlobalAveragePool" else "max"
    run = state.kernels.reduce
    return _computed(state, node, f"reduce_{kind}", lambda x: run(kind, x, axes, True))


# -- movement --------------------------------------------------------------------------


def _concat(state: Lowering, node: Node) -> bool:
    rank = len(state.shape(node.output))
    axis = axis_in(node.attrs["axis"], rank)
    sources = [state.rows(name, contiguous=False) for name in node.inputs]
    target, pairs, start = _result(state, node), [], 0
    for source in sources:
        stop = start + source.shape[axis]
        cut = (*(slice(None),) * axis, slice(start, stop))
        if stop > start:
            pairs.append((source, state.build.view(target, operator.itemgetter(cut))))
        start = stop
    return _copied(state, node, *pairs)


def _pad(state: Lowering, node: Node) -> bool:
    shape = state.shape(node.inputs[0])
    widths = pad_widths(len(shape), _known(state, node))
    plain = node.attrs.get("mode", "constant") == "constant"
    given = node.inputs[2] if len(node.inputs) > 2 else ""
    value = state.facts.values.get(given)
    if not plain or min(min(pair) for pair in widths) < 0:
        return False
    if not _is_float(state, node.inputs[0]) or (given and value is None):
        return False
    fill = 0.0 if value is None else float(np.ravel(value)[0])
    source, target = state.rows(node.inputs[0], contiguous=False), _result(state, node)
    cut = tuple(
        slice(before, before + size)
        for (before, _), size in zip(widths, shape, strict=True)
    )
    middle = state.build.view(target, lambda a: a[cut])
    kernels = state.kernels

    def attach(x: Any, inner: Any, whole: Any) -> Call:
        def ask() -> None:
            kernels.fill(whole, fill)
            kernels.copy(x, inner)

        return state.later(ask)

    slots = (source, middle, target)
    state.build.attached(node.name, node.op, "copy", attach, *slots)
    return True


def _rearranged(state: Lowering, node: Node, split: Shape, axes: Shape) -> bool:
    """Copy `x.reshape(split).transpose(axes)`."""
    source, target = state.rows(node.inputs[0]), _result(state, node)
    moved = state.build.view(source, lambda a: a.reshape(split).transpose(axes))
    shaped = state.build.view(target, lambda a: a.reshape(moved.shape))
    return _copied(state, node, (moved, shaped))


def _depth_to_space(state: Lowering, node: Node) -> bool:
    n, c, h, w = state.shape(node.inputs[0])
    b = int(node.attrs["blocksize"])
    if node.attrs.get("mode", "DCR") == "DCR":
        split, axes = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, axes = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    return _rearranged(state, node, split, axes)


def _space_to_depth(state: Lowering, node: Node) -> bool:
    n, c, h, w = state.shape(node.inputs[0])
    b = int(node.attrs["blocksize"])
    split = (n, c, h // b, b, w // b, b)
    return _rearranged(state, node, split, (0, 3, 5, 1, 2, 4))


def _tile(state: Lowering, node: Node) -> bool:
    repeats = setting(_known(state, node), 1)
    shape = state.shape(node.inputs[0])
    if repeats is None or len(repeats) != len(shape):
        return False
    source, target = state.rows(node.inputs[0]), _result(state, node)
    own = tuple(size for s in shape for size in (1, s))
    whole = tuple(size for r, s in zip(repeats, shape, strict=True) for size in (r, s))
    thin = state.build.view(source, lambda a: a.reshape(own))
    split = state.build.view(target, lambda a: a.reshape(whole))
    return _copied(state, node, (thin, split))


def _gather(state: Lowering, node: Node) -> bool:
    """Take one known index: a view."""
    index = _known(state, node)[1]
    shape = state.shape(node.inputs[0])
    axis = axis_in(int(node.attrs.get("axis", 0)), len(shape))
    if index is None or index.size != 1 or index.ndim > 1:
        return False
    at = int(index.reshape(()))
    if not -shape[axis] <= at < shape[axis]:
        return False
    at %= shape[axis]
    source = state.rows(node.inputs[0], contiguous=False)
    keep = slice(at, at + 1) if index.ndim else at
    cut: tuple[Any, ...] = (*(slice(None),) * axis, keep)
    state.set_rows(node.output, state.build.view(source, lambda a: a[cut]))
    return True


_FORMS: dict[str, Form] = {
    **dict.fromkeys((*UNARY, "Clip"), _unary),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys((*REDUCE, "GlobalAveragePool", "GlobalMaxPool"), _reduce),
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Concat": _concat,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
    "Gather": _gather,
}
