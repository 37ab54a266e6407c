"""Passes over the graph, in the order in which `optimise` runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nnz_service.engine.graph import Array, Graph
from nnz_service.engine.passes.attention import find_attention
from nnz_service.engine.passes.fold import fold
from nnz_service.engine.passes.fuse import fuse_layers, fuse_pads
from nnz_service.engine.passes.geometry import layer_specs
from nnz_service.engine.passes.layers import make_layers, make_left_layers
from nnz_service.engine.passes.layout import layer_grids
from nnz_service.engine.passes.patterns import find_activations, find_layer_norms
from nnz_service.engine.passes.shortcuts import find_shortcuts
from nnz_service.engine.passes.sparsify import Layer, sparsify
from nnz_service.engine.shapes import Facts
from nnz_service.engine.tuning import Tuner

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

Probe = Callable[[Graph], Sequence[Facts]]


def normalise(graph: Graph, exact: Kernels[Array]) -> None:
    """Fold constants and make layers; what follows needs shapes."""
    fold(graph, exact)
    make_layers(graph)


def optimise(
    graph: Graph,
    kernels: Kernels[Array],
    exact: Kernels[Array],
    probe: Probe,
    tuner: Tuner | None,
) -> dict[str, Layer]:
    """Fuse, choose formats and pack, in place.

    Args:
        graph: Normalised; changed in place.
        kernels: The back-end that runs the model.
        exact: The reference back-end.
        probe: Infers shapes on inputs of several sizes, batch 1 first.
        tuner: Measures kernels; None leaves the choice to a cost model.

    Returns:
        Packed layers by the name of their node.
    """
    find_activations(graph, probe(graph)[0].specs, exact)
    make_left_layers(graph, probe(graph)[0].specs)
    facts = probe(graph)
    find_layer_norms(graph, facts[0].specs)
    find_shortcuts(graph, facts)
    fuse_pads(graph)
    fuse_layers(graph, facts)
    find_attention(graph, facts)
    facts = probe(graph)
    grids = layer_grids(graph, facts[0])
    return sparsify(graph, kernels, layer_specs(graph, facts), grids, tuner)
