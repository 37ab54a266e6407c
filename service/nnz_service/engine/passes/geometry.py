"""The geometry that a layer is packed for."""

from __future__ import annotations

from collections.abc import Sequence

from nnz_kernels.api.conv import ConvSpec
from nnz_service.engine.graph import Graph, Node
from nnz_service.engine.passes.layers import LAYERS
from nnz_service.engine.shapes import Facts
from nnz_service.engine.windows import window
from nnz_service.errors import UnsupportedModelError


def layer_specs(graph: Graph, probes: Sequence[Facts]) -> dict[str, ConvSpec]:
    """Work out strides, pads and clamp of every layer.

    Args:
        graph: Has the layers.
        probes: Facts for inputs of different sizes. Padding that follows from the size
            of the image (auto_pad with a stride) must come out equal for all of them.

    Raises:
        UnsupportedModelError: It does not; all such nodes are named.
    """
    specs: dict[str, ConvSpec] = {}
    refused: list[str] = []
    for node in graph.nodes:
        if node.op not in LAYERS:
            continue
        found = {layer_spec(node, facts) for facts in probes}
        if len(found) > 1:
            refused.append(
                f"{node.name} ({node.op}): auto_pad with a stride on an image of free "
                "size"
            )
        specs[node.name] = found.pop()
    if refused:
        raise UnsupportedModelError(
            f"{len(refused)} nodes cannot run here: " + "; ".join(refused), refused
        )
    return specs


def layer_spec(node: Node, facts: Facts) -> ConvSpec:
    """Geometry and clamp of one layer on images of the size that `facts` says."""
    clamp = (node.attrs["lo"], node.attrs["hi"])
    if node.op == "Linear":
        return ConvSpec(clamp=clamp, activation=node.attrs["activation"])
    at = window(node, facts.shape(node.inputs[0])[2:]).as_2d()
    return ConvSpec(
        strides=(at.strides[0], at.strides[1]),
        dilations=(at.dilations[0], at.dilations[1]),
        pads=at.pads,
        groups=node.attrs["group"],
        clamp=clamp,
        activation=node.attrs["activation"],
    )
