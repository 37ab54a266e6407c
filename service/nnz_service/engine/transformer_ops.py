"""How attention and normalisation of tokens become steps that stay in planes."""

from __future__ import annotations

import operator

import numpy as np

from nnz_kernels.api.attach import Call, attach
from nnz_kernels.arrays import aligned_empty
from nnz_service.engine.graph import Array, Node
from nnz_service.engine.heads import attention_spec
from nnz_service.engine.lowering import Lowering
from nnz_service.engine.moves import axis_in


def attention(state: Lowering, node: Node) -> bool:
    """Lower an Attention; its operands may be runs of channels of wider planes."""
    spec = attention_spec(node, [state.shape(name) for name in node.inputs])
    kernels, threads = state.kernels, state.threads
    slots = []
    dims = (spec.head_dim, spec.head_dim, spec.value_dim)
    for name, first, dim in zip(node.inputs, node.attrs["first"], dims, strict=False):
        planes = state.tokens(name)
        start = first * planes.grid.ld
        end = start + planes.grid.size(spec.heads * dim)
        span = operator.itemgetter(slice(start, end))
        slots.append(state.build.view(planes.slot, span))
    y = state.new_planes(state.tokens(node.inputs[0]).grid, spec.heads * spec.value_dim)

    def place(q: Array, k: Array, v: Array, out: Array, *mask: Array) -> Call:
        added = mask[0] if mask else None
        return attach(
            kernels.attention_planes, q, k, v, added, out, spec, threads=threads
        )

    if len(node.inputs) > 3:
        mask = state.rows(node.inputs[3])
        shape = (1,) * (4 - len(mask.shape)) + mask.shape
        slots += [y.slot, state.build.view(mask, lambda a: a.reshape(shape))]
    else:
        slots.append(y.slot)
    state.build.attached(node.name, node.op, "attention", place, *slots)
    state.set_tokens(node.output, y)
    return True


def layer_norm(state: Lowering, node: Node) -> bool:
    """Lower a LayerNormalization over the features of tokens that live in planes."""
    value = state.value(node.inputs[0])
    shape = state.shape(node.inputs[0])
    known = [state.facts.values.get(name) for name in node.inputs[1:] if name]
    if value.planes is None or value.image is not None or any(p is None for p in known):
        return False
    if axis_in(int(node.attrs.get("axis", -1)), len(shape)) != len(shape) - 1:
        return False
    x = value.planes
    gamma, beta = (aligned_empty(x.channels, np.float32) for _ in range(2))
    gamma[:], beta[:] = known[0], known[1] if len(known) > 1 else 0.0
    gamma, beta = state.constant(gamma), state.constant(beta)
    eps = float(node.attrs.get("epsilon", 1e-5))
    y = state.new_planes(x.grid, x.channels)
    kernels, threads, grid, channels = state.kernels, state.threads, y.grid, y.channels

    def place(source: Array, target: Array) -> Call:
        return attach(
            kernels.layer_norm_planes,
            source, gamma, beta, eps, target, grid, channels, threads=threads,
        )  # fmt: skip

    slots = (x.slot, y.slot)
    state.build.attached(node.name, node.op, "layer_norm_planes", place, *slots)
    state.set_tokens(node.output, y)
    return True
