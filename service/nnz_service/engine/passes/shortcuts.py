"""Find shortcuts that only stride and widen an image: they are sparse convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnz_service.engine.graph import Graph, Node
from nnz_service.engine.passes.edit import Editor
from nnz_service.engine.passes.fuse import fills_with_zeros
from nnz_service.engine.passes.layers import layer_attrs
from nnz_service.engine.rows import BINARY, UNARY
from nnz_service.engine.shapes import Facts

#: Weights of a shortcut, zeros included, beyond which it stays what it is.
MOST_WEIGHTS = 1 << 20

#: What makes an image, and what may lie between it and a shortcut.
_SOURCES = frozenset({"Conv", "MaxPool", "AveragePool"})
_BETWEEN = frozenset({"ChannelAffine", "Clip", "PRelu", *UNARY, *BINARY})
_DEPTH = 8

#: From here on the end of a slice means "to the last".
_LAST = 2**31 - 1


def find_shortcuts(graph: Graph, probes: Sequence[Facts]) -> None:
    """Replace a Pad of an image's channels, and a strided Slice before it, by a layer.

    Every output channel is one input channel or none: a 1x1 kernel with a single one in
    a row, which stays in planes and takes in the sum and the activation that follow.
    Source: option A of He et al., "Deep residual learning" (2015), section 4.2.

    Only where the image comes from a layer or a window: it is in planes there. Other
    values may be wide along that axis, and are better off as they are.

    Args:
        graph: Changed in place.
        probes: Facts for inputs of several sizes.
    """
    editor = Editor(graph)
    for pad in graph.nodes:
        if pad.op == "Pad":
            _find_shortcut(editor, pad, probes)
    editor.finish()


def _find_shortcut(editor: Editor, pad: Node, probes: Sequence[Facts]) -> None:
    graph = editor.graph
    widths = graph.constant(pad.inputs[1]) if fills_with_zeros(graph, pad) else None
    source = pad.inputs[0]
    specs = [facts.specs[source] for facts in probes]
    channels = {spec.shape[1] for spec in specs if len(spec.shape) == 4}
    if widths is None or widths.size != 8 or len(channels) != 1:
        return
    before, after = int(widths[1]), int(widths[5])
    elsewhere = np.delete(widths, [1, 5])
    if elsewhere.any() or min(before, after) < 0 or before + after == 0:
        return
    others, strides = [], [1, 1]
    cut = editor.producers.get(source)
    if cut is not None and cut.op == "Slice" and editor.only_reader(source) is pad:
        found = _strides(graph, cut, probes)
        if found is not None:
            others, strides, source = [cut], found, cut.inputs[0]
    inputs = channels.pop()
    outputs = before + inputs + after
    if inputs * outputs > MOST_WEIGHTS or not _is_image(editor, source):
        return
    weights = np.eye(outputs, inputs, -before, np.float32)
    # Rows apart: an infinite pixel times a zero of a neighbour would be a NaN there.
    attrs = {"kernel_shape": [1, 1], "group": 1, "strides": strides, "apart": True}
    attrs |= layer_attrs(weights[:, :, None, None], None)
    editor.become(pad, others, op="Conv", name=pad.name, inputs=[source], attrs=attrs)


def _is_image(editor: Editor, value: str) -> bool:
    """Whether a value is made by a layer or a window, or from such values alone."""
    maker = editor.producers.get(value)
    for _ in range(_DEPTH):
        if maker is None or maker.op in _SOURCES:
            break
        if maker.op not in _BETWEEN:
            return False
        maker = editor.producers.get(maker.inputs[0])
    return maker is not None and maker.op in _SOURCES


def _strides(graph: Graph, cut: Node, probes: Sequence[Facts]) -> list[int] | None:
    """The steps of a Slice over whole rows and columns, None if it is another."""
    known = [graph.constant(name) for name in cut.inputs[1:]]
    if len(known) != 4 or any(values is None for values in known):
        return None
    strides = [1, 1]
    for start, end, axis, step in zip(
        *(values.reshape(-1).tolist() for values in known if values is not None),
        strict=True,
    ):
        place = axis % 4
        sizes = [facts.shape(cut.inputs[0])[place] for facts in probes]
        # Sizes that were tried bound an axis only if it is fixed.
        fixed = len(set(sizes)) == 1 and end >= sizes[0]
        whole = start == 0 and (end >= _LAST or fixed)
        if place < 2 or step < 1 or not whole:
            return None
        strides[place - 2] = step
    return strides
