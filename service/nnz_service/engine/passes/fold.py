"""Compute at load what does not depend on any input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nnz_service.engine.graph import Array, Graph, Node
from nnz_service.engine.moves import MOVES
from nnz_service.engine.rows import MATH, compute
from nnz_service.engine.rules import FAULTS, RULES, Spec
from nnz_service.errors import InvalidModelError

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

#: Elements of a folded constant; a larger one is made anew for each run instead.
MAX_FOLDED = 1 << 26


def fold(graph: Graph, kernels: Kernels[Array]) -> None:
    """Replace nodes that read constants alone by what they compute, in place.

    Args:
        graph: Changed in place.
        kernels: The reference back-end: exactness matters here, speed does not.

    Raises:
        InvalidModelError: A node does not fit its constants.
    """
    kept: list[Node] = []
    for node in graph.nodes:
        if not _is_constant(graph, node):
            kept.append(node)
            continue
        inputs = [graph.constant(name) for name in node.inputs]
        specs = [None if v is None else Spec(v.dtype, v.shape) for v in inputs]
        try:
            found = RULES[node.op](node, specs, inputs)
            if max(math.prod(spec.shape) for spec in found) > MAX_FOLDED:
                kept.append(node)
                continue
            made = compute(kernels, node, inputs)
        except FAULTS as exc:
            raise InvalidModelError(f"{node.label()}: {exc}") from exc
        for name, value in zip(node.outputs, made, strict=False):
            graph.constants[name] = np.asarray(value, order="C")
    graph.nodes = kept
    skip_identities(graph)
    graph.sweep()


def _is_constant(graph: Graph, node: Node) -> bool:
    if node.op not in MOVES and node.op not in MATH:
        return False
    return all(name in graph.constants for name in node.inputs if name)


def skip_identities(graph: Graph) -> None:
    """Drop Identity nodes whose output is not one that the caller gets."""
    results = graph.results()
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        node.inputs = [renamed.get(name, name) for name in node.inputs]
        if node.op == "Identity" and node.output not in results:
            renamed[node.output] = node.inputs[0]
        else:
            kept.append(node)
    graph.nodes = kept
