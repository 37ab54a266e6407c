"""How each family of operations becomes steps of a plan."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_kernels.api.attach import attach, in_turn
from nnz_kernels.api.pointwise import ZERO_KEEPING_KINDS
from nnz_kernels.api.pool import PoolSpec
from nnz_kernels.planes import token_grid
from nnz_service.engine.graph import Array, Graph, Node
from nnz_service.engine.lowering import Lowering, Planes
from nnz_service.engine.passes.fuse import per_channel
from nnz_service.engine.passes.layout import image_size
from nnz_service.engine.passes.sparsify import Layer
from nnz_service.engine.plan import Call, Plan, Slot
from nnz_service.engine.rows import BINARY, UNARY, reduce_axes, unary_settings
from nnz_service.engine.shapes import Facts
from nnz_service.engine.transformer_ops import attention, layer_norm
from nnz_service.engine.windows import window

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

Lower = Callable[[Lowering, Node], bool]


def lower(
    graph: Graph,
    facts: Facts,
    layers: Mapping[str, Layer],
    kernels: Kernels[Array],
    threads: int,
) -> Plan:
    """Turn an optimised graph into a plan for the shapes of `facts`."""
    state = Lowering(graph, facts, layers, kernels, threads)
    for node in graph.nodes:
        if all(name in facts.values for name in node.outputs if name):
            continue
        special = _LOWER.get(node.op)
        if special is None or not special(state, node):
            state.plain(node)
    return state.finish(graph)


def _layer(state: Lowering, node: Node) -> bool:
    layer = state.layers[node.name]
    if node.op == "Conv":
        x = state.image(node.inputs[0])
        n, c, *_ = state.shape(node.output)
        h, w = image_size(state.shape(node.output))
        y = state.new_planes(state.grids.image(n, h, w), c)
        residual = state.image(node.inputs[1]) if len(node.inputs) > 1 else None
    else:
        x = state.tokens(node.inputs[0])
        y = state.new_planes(x.grid, layer.shape[0])
        residual = state.tokens(node.inputs[1]) if len(node.inputs) > 1 else None
    bound = layer.prepared.bind(x.grid, y.grid, threads=state.threads)
    scratch = state.flat(bound.scratch)

    def place(x: Array, y: Array, scratch: Array, *residual: Array) -> Call:
        return bound.attach(x, y, residual[0] if residual else None, scratch)

    slots = [x.slot, y.slot, scratch, *([residual.slot] if residual else [])]
    state.build.attached(node.name, node.op, layer.prepared.kernel, place, *slots)
    (state.set_image if node.op == "Conv" else state.set_tokens)(node.output, y)
    return True


def _pool(state: Lowering, node: Node) -> bool:
    x = state.image(node.inputs[0])
    at = window(node, state.shape(node.inputs[0])[2:]).as_2d()
    n, c, *_ = state.shape(node.output)
    h, w = at.sizes
    y = state.new_planes(state.grids.image(n, h, w), c)
    spec = PoolSpec(
        kernel=(at.kernel[0], at.kernel[1]),
        strides=(at.strides[0], at.strides[1]),
        pads=at.pads,
        dilations=(at.dilations[0], at.dilations[1]),
        count_include_pad=bool(node.attrs.get("count_include_pad", 0)),
    )
    run = state.kernels.max_pool if node.op == "MaxPool" else state.kernels.average_pool
    threads = state.threads

    def place(source: Array, target: Array) -> Call:
        return attach(run, source, x.grid, target, y.grid, c, spec, threads=threads)

    state.build.attached(node.name, node.op, run.__name__, place, x.slot, y.slot)
    state.set_image(node.output, y)
    return True


def _global_pool(state: Lowering, node: Node) -> bool:
    shape = state.shape(node.inputs[0])
    if len(shape) not in (3, 4) or state.value(node.inputs[0]).planes is None:
        return False
    if state.value(node.inputs[0]).image is None:
        return False
    if node.op == "ReduceMean":
        known = state.facts.values
        axes = known.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if reduce_axes(node, len(shape), axes) != tuple(range(2, len(shape))):
            return False
    x = state.image(node.inputs[0])
    y = state.new_planes(token_grid(shape[0]), shape[1])
    run, threads = state.kernels.global_average_pool, state.threads

    def place(source: Array, target: Array) -> Call:
        return attach(run, source, x.grid, target, y.grid, x.channels, threads=threads)

    state.build.attached(
        node.name, node.op, "global_average_pool", place, x.slot, y.slot
    )
    kept = len(state.shape(node.output)) == len(shape)
    (state.set_image if kept else state.set_tokens)(node.output, y)
    return True


def _unary(state: Lowering, node: Node) -> bool:
    x = state.value(node.inputs[0]).planes
    if x is None:
        return False
    if node.op == "Clip":
        kind, alpha, beta = "clip", node.attrs["lo"], node.attrs["hi"]
        keeps = alpha <= 0.0 <= beta
    else:
        kind, alpha, beta = unary_settings(node)
        keeps = kind in ZERO_KEEPING_KINDS
    y = state.new_planes(x.grid, x.channels)
    kernels: Any = state.kernels

    def place(source: Array, target: Array) -> Call:
        def ask() -> None:
            kernels.unary(kind, source, target, alpha=alpha, beta=beta)
            if not keeps:
                kernels.zero_border(target, y.grid, y.channels)

        return state.later(ask)

    state.build.attached(node.name, node.op, kind, place, x.slot, y.slot)
    state.set_like(node.output, node.inputs[0], y)
    return True


def _binary(state: Lowering, node: Node) -> bool:
    a, b = (state.value(name).planes for name in node.inputs)
    if a is not None and b is not None:
        return _add(state, node, a, b)
    for planes, other in ((a, node.inputs[1]), (b, node.inputs[0])):
        known = state.facts.values.get(other)
        if planes is not None and known is not None:
            return _affine(state, node, planes, known, constant_first=planes is b)
    return False


def _add(state: Lowering, node: Node, a: Planes, b: Planes) -> bool:
    same = a.grid == b.grid and a.channels == b.channels
    shapes = {state.shape(name) for name in node.inputs}
    # Rows of an image and of tokens may agree in size, but are different axes.
    forms = {state.value(name).image is not None for name in node.inputs}
    if node.op != "Add" or not same or len(shapes) != 1 or len(forms) != 1:
        return False
    y = state.new_planes(a.grid, a.channels)
    add = state.kernels.add_planes

    def place(left: Array, right: Array, target: Array) -> Call:
        return attach(add, left, right, target, -np.inf, np.inf)

    slots = (a.slot, b.slot, y.slot)
    state.build.attached(node.name, node.op, "add_planes", place, *slots)
    state.set_like(node.output, node.inputs[0], y)
    return True


def _affine(
    state: Lowering, node: Node, x: Planes, known: Array, *, constant_first: bool
) -> bool:
    shape = state.shape(node.output)
    source = node.inputs[1 if constant_first else 0]
    if state.shape(source) != shape or known.dtype != np.float32:
        return False
    axis = 1 if state.value(source).image is not None else len(shape) - 1
    vector = per_channel(known, len(shape), axis, x.channels)
    if vector is None or (constant_first and node.op == "Div"):
        return False
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    if node.op == "Add":
        scale, shift = ones, vector
    elif node.op == "Sub":
        scale, shift = (-ones, vector) if constant_first else (ones, -vector)
    elif node.op == "Mul":
        scale, shift = vector, zeros
    elif node.op == "Div" and np.all(vector):
        scale, shift = (1.0 / vector).astype(np.float32), zeros
    else:
        return False
    return _channel_affine(state, node, source, scale, shift)


def _channel_affine(
    state: Lowering, node: Node, source: str, scale: Array, shift: Array
) -> bool:
    x = state.value(source).planes
    if x is None:
        return False
    y = state.new_planes(x.grid, x.channels)
    run = state.kernels.channel_affine
    scale, shift = (state.constant(np.array(one, np.float32)) for one in (scale, shift))

    def place(pixels: Array, target: Array) -> Call:
        bounds = -np.inf, np.inf
        return attach(run, pixels, scale, shift, *bounds, target, y.grid, y.channels)

    state.build.attached(node.name, node.op, "channel_affine", place, x.slot, y.slot)
    state.set_like(node.output, source, y)
    return True


def _batch_norm(state: Lowering, node: Node) -> bool:
    value = state.value(node.inputs[0])
    # In tokens the channels are the last axis, here they are the second.
    if value.image is None and len(state.shape(node.output)) != 2:
        return False
    scale, shift = (state.facts.values[name] for name in node.inputs[1:])
    return _channel_affine(state, node, node.inputs[0], scale, shift)


def _prelu(state: Lowering, node: Node) -> bool:
    x = state.value(node.inputs[0]).planes
    known = state.facts.values.get(node.inputs[1])
    shape = state.shape(node.output)
    if x is None or known is None or state.value(node.inputs[0]).image is None:
        return False
    found = per_channel(known, len(shape), 1, x.channels)
    if found is None:
        return False
    slope = state.constant(np.array(found, np.float32))
    y = state.new_planes(x.grid, x.channels)
    run = state.kernels.prelu

    def place(source: Array, target: Array) -> Call:
        return attach(run, source, slope, target, y.grid, y.channels)

    state.build.attached(node.name, node.op, "prelu", place, x.slot, y.slot)
    state.set_image(node.output, y)
    return True


def _concat(state: Lowering, node: Node) -> bool:
    shape = state.shape(node.output)
    parts = [state.value(name).image for name in node.inputs]
    homes = [state.value(name).planes for name in node.inputs]
    if len(shape) not in (3, 4) or node.attrs["axis"] % len(shape) != 1:
        return False
    known = [p for p in parts if p is not None]
    if len(known) != len(parts) or None in homes:
        return False
    if len({p.grid for p in known}) != 1:
        return False
    y = state.new_planes(known[0].grid, shape[1])
    sources, targets, start = [], [], 0
    for planes in known:
        floats = planes.channels * y.grid.ld
        sources.append(_run_of(state, planes.slot, 0, floats))
        targets.append(_run_of(state, y.slot, start, start + floats))
        start += floats
    rest = _run_of(state, y.slot, start, y.grid.size(y.channels))
    kernels, count = state.kernels, len(known)

    def place(*arrays: Array) -> Call:
        pairs = zip(arrays[:count], arrays[count:-1], strict=True)
        copies = [state.copied(source, target) for source, target in pairs]
        zero = state.later(functools.partial(kernels.fill, arrays[-1], 0.0))
        return functools.partial(in_turn, (*copies, zero))

    slots = (*sources, *targets, rest)
    state.build.attached(node.name, node.op, "copy", place, *slots)
    state.set_image(node.output, y)
    return True


def _run_of(state: Lowering, slot: Slot, start: int, stop: int) -> Slot:
    """Part of a flat slot."""
    return state.build.view(slot, operator.itemgetter(slice(start, stop)))


_LOWER: dict[str, Lower] = {
    **dict.fromkeys((*UNARY, "Clip"), _unary),
    **dict.fromkeys(BINARY, _binary),
    "Conv": _layer,
    "Linear": _layer,
    "Attention": attention,
    "LayerNormalization": layer_norm,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _global_pool,
    "ChannelAffine": _batch_norm,
    "PRelu": _prelu,
    "Concat": _concat,
}
