"""Let each layer do what follows it: affine maps, bias, residual and activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnz_kernels.api.conv import ACTIVATIONS
from nnz_service.engine.graph import Array, Graph, Node
from nnz_service.engine.passes.edit import Editor
from nnz_service.engine.passes.layers import LAYERS
from nnz_service.engine.rows import UNARY, unary_settings
from nnz_service.engine.shapes import Facts, Spec


def fuse_layers(graph: Graph, probes: Sequence[Facts]) -> None:
    """Fuse what reads a layer into it, in place.

    Args:
        graph: Changed in place.
        probes: Facts for inputs of several sizes; two values that have one shape in
            all of them have one shape always.
    """
    specs = probes[0].specs
    editor = Editor(graph)
    for node in graph.nodes:
        layer = node
        while layer.op in LAYERS and not editor.is_gone(layer):
            reader = editor.only_reader(layer.output)
            if reader is None:
                break
            extra = _residual(editor, layer, reader, probes)
            if extra is not None:
                layer.attrs["residual"] = True
                layer = editor.absorb(layer, reader, extra)
            elif (
                _affine(graph, layer, reader, specs)
                or _clamp(layer, reader)
                or _activation(layer, reader)
            ):
                layer = editor.absorb(layer, reader)
            else:
                break
    editor.finish()


def fuse_pads(graph: Graph) -> None:
    """Let a window pad its image itself where a Pad with zeros comes before it."""
    editor = Editor(graph)
    for pad in graph.nodes:
        if pad.op != "Pad" or not fills_with_zeros(graph, pad):
            continue
        reader = editor.only_reader(pad.output)
        widths = graph.constant(pad.inputs[1])
        if reader is None or widths is None:
            continue
        pads = _image_pads(reader, widths)
        if reader.op == "Conv" and reader.inputs[0] == pad.output and pads is not None:
            attrs = {**reader.attrs, "pads": pads, "auto_pad": "NOTSET"}
            inputs = [pad.inputs[0], *reader.inputs[1:]]
            editor.become(
                reader, [pad], op="Conv", name=reader.name, inputs=inputs, attrs=attrs
            )
    editor.finish()


def fills_with_zeros(graph: Graph, pad: Node) -> bool:
    """Whether a Pad of all axes adds zeros."""
    if pad.attrs.get("mode", "constant") != "constant" or len(pad.inputs) > 3:
        return False
    if len(pad.inputs) < 3 or not pad.inputs[2]:
        return True
    fill = graph.constant(pad.inputs[2])
    return fill is not None and not np.any(fill)


def _image_pads(conv: Node, widths: Array) -> list[int] | None:
    """The pads of a Conv after those of a Pad, None if that would be another thing."""
    if conv.op != "Conv" or conv.attrs.get("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    ):
        return None
    rank = len(conv.attrs["kernel_shape"])
    if widths.size != 2 * (rank + 2) or np.any(widths < 0):
        return None
    before, after = np.split(widths.astype(int), 2)
    if np.any(before[:2]) or np.any(after[:2]):
        return None
    own = conv.attrs.get("pads") or [0] * (2 * rank)
    if conv.attrs.get("auto_pad") == "VALID":
        own = [0] * (2 * rank)
    return [int(a + b) for a, b in zip(own, [*before[2:], *after[2:]], strict=True)]


def _is_open(layer: Node) -> bool:
    """Whether a linear map may still be folded into the weights."""
    return bool(
        layer.attrs["lo"] == -np.inf
        and layer.attrs["hi"] == np.inf
        and layer.attrs["activation"] is None
        and not layer.attrs.get("residual")
    )


def _affine(graph: Graph, layer: Node, reader: Node, specs: Mapping[str, Spec]) -> bool:
    """Fold ``y * scale + shift`` a channel into weights and bias."""
    if not _is_open(layer):
        return False
    spec = specs[layer.output]
    if specs[reader.output].shape != spec.shape:
        return False
    rank, channels = len(spec.shape), layer.attrs["weight_shape"][0]
    axis = rank - 1 if layer.op == "Linear" else 1
    if reader.op == "ChannelAffine":
        if axis != 1 or reader.inputs[0] != layer.output:
            return False
        scale: Array | None = graph.constants[reader.inputs[1]]
        shift: Array | None = graph.constants[reader.inputs[2]]
    else:
        scale, shift = _constant_map(graph, layer, reader, (rank, axis, channels))
    if scale is None or shift is None:
        return False
    attrs = layer.attrs
    exact = scale.astype(np.float64)
    shape = (-1,) + (1,) * (attrs["weights"].ndim - 1)
    bias = attrs["bias"] if attrs["bias"] is not None else np.zeros(channels)
    if np.any(scale != 1):
        attrs["weights"] = (attrs["weights"] * exact.reshape(shape)).astype(np.float32)
    attrs["bias"] = (bias * exact + shift).astype(np.float32)
    return True


def _constant_map(
    graph: Graph, layer: Node, reader: Node, place: tuple[int, int, int]
) -> tuple[Array | None, Array | None]:
    """Read Add, Sub, Mul or Div with a constant as scale and shift a channel."""
    if reader.op not in ("Add", "Sub", "Mul", "Div"):
        return None, None
    left = reader.inputs[0] == layer.output
    if not left and reader.op == "Div":
        return None, None
    value = graph.constant(reader.inputs[1 if left else 0])
    if value is None or value.dtype != np.float32:
        return None, None
    found = per_channel(value, *place)
    if found is None:
        return None, None
    ones, zeros = np.ones_like(found), np.zeros_like(found)
    if reader.op == "Add":
        return ones, found
    if reader.op == "Sub":
        return (ones, -found) if left else (-ones, found)
    if reader.op == "Mul":
        return found, zeros
    return (1.0 / found.astype(np.float64), zeros) if np.all(found) else (None, None)


def per_channel(value: Array, rank: int, axis: int, channels: int) -> Array | None:
    """Spread a constant over channels when it differs along their axis only."""
    if value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if any(d != 1 for i, d in enumerate(shape) if i != axis):
        return None
    if rank and shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,))


def _clamp(layer: Node, reader: Node) -> bool:
    bounds = clamp_bounds(reader)
    if bounds is None or layer.attrs["activation"] is not None:
        return False
    lo, hi = bounds
    # The clamp of a clamp is a clamp by the outer one's view of the inner bounds.
    attrs = layer.attrs
    attrs["lo"] = float(np.clip(attrs["lo"], lo, hi))
    attrs["hi"] = float(np.clip(attrs["hi"], lo, hi))
    return True


def _activation(layer: Node, reader: Node) -> bool:
    """Let a layer end in an activation that leaves its borders zero."""
    if reader.op not in UNARY or layer.attrs["activation"] is not None:
        return False
    kind, _, _ = unary_settings(reader)
    if kind not in ACTIVATIONS:
        return False
    layer.attrs["activation"] = kind
    return True


def clamp_bounds(node: Node) -> tuple[float, float] | None:
    """Bounds of a node that clamps, None for any other node."""
    if node.op == "Relu":
        return 0.0, np.inf
    if node.op == "Clip" and node.attrs["lo"] <= node.attrs["hi"]:
        return node.attrs["lo"], node.attrs["hi"]
    return None


def _residual(
    editor: Editor, layer: Node, reader: Node, probes: Sequence[Facts]
) -> str | None:
    """The value that `reader` adds to the layer's, if it may be a residual."""
    if reader.op != "Add" or not _is_open(layer):
        return None
    others = [name for name in reader.inputs if name != layer.output]
    if len(others) != 1 or others[0] in editor.graph.constants:
        return None
    specs = [(facts.specs[others[0]], facts.specs[layer.output]) for facts in probes]
    return others[0] if all(a == b for a, b in specs) else None
