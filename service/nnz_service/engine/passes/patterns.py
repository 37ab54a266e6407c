"""Find activations and layer norms that exporters write out in small operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnz_service.engine.graph import Array, Graph, Node
from nnz_service.engine.passes.edit import Editor
from nnz_service.engine.rows import BINARY, compute
from nnz_service.engine.shapes import Spec

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

#: Nodes that may make up one activation, before and after its anchor.
_DEPTH = 6

#: Where an activation is compared: all that bends, and far out where it no longer may.
_FAR = np.array([12.0, 20.0, 50.0, 100.0, 1e3, 1e4], np.float32)
_SAMPLES = np.concatenate([-_FAR, np.linspace(-9.0, 9.0, 145, dtype=np.float32), _FAR])

#: What an activation may look like: its anchor, its name here and its attributes.
_CANDIDATES: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "Erf": (("Gelu", {}),),
    "Tanh": (("Gelu", {"approximate": "tanh"}),),
    "Sigmoid": (("Silu", {}),),
    "HardSigmoid": (("HardSwish", {}),),
    "Clip": (("HardSwish", {}),),
}


def find_activations(
    graph: Graph, specs: Mapping[str, Spec], kernels: Kernels[Array]
) -> None:
    """Replace the parts of an activation by one node, in place.

    Orders and constants differ between exporters, so parts are not matched one by one:
    the cone of elementwise nodes between two values is evaluated on samples, and is
    the activation if it agrees with it everywhere.

    Args:
        graph: Changed in place.
        specs: Spec of every value on some inputs.
        kernels: The reference back-end.
    """
    editor = Editor(graph)
    for node in graph.nodes:
        if node.op in _CANDIDATES and not editor.is_gone(node):
            _find_activation(editor, node, specs, kernels)
    editor.finish()


def _find_activation(
    editor: Editor, anchor: Node, specs: Mapping[str, Spec], kernels: Kernels[Array]
) -> None:
    for last in reversed(list(_after(editor, anchor))):
        for source in _before(editor, anchor):
            cone = _cone(editor, last, source)
            # A constant of higher rank gives the result more axes.
            if (
                cone is None
                or anchor not in cone
                or specs[last.output] != specs[source]
            ):
                continue
            made = _evaluate(editor.graph, cone, source, _SAMPLES, kernels)
            for op, attrs in _CANDIDATES[anchor.op]:
                likeness = Node(op, op, [""], [""], dict(attrs))
                wanted = compute(kernels, likeness, [_SAMPLES])[0]
                if np.allclose(made, wanted, rtol=1e-5, atol=2e-6):
                    others = [n for n in cone if n is not last]
                    editor.become(
                        last,
                        others,
                        op=op,
                        name=last.name,
                        inputs=[source],
                        attrs=dict(attrs),
                    )
                    return


def _after(editor: Editor, anchor: Node) -> Iterator[Node]:
    """Nodes that could be the last one: the chain of readers, anchor excluded."""
    node: Node | None = anchor
    for _ in range(_DEPTH):
        node = editor.only_reader(node.output) if node is not None else None
        if node is None or node.op not in BINARY:
            return
        yield node


def _before(editor: Editor, anchor: Node) -> list[str]:
    """Values that could be the source: what the anchor is computed from."""
    found: list[str] = []
    front = [anchor.inputs[0]]
    for _ in range(_DEPTH):
        found += [name for name in front if name not in found]
        makers = [editor.producers.get(name) for name in front]
        front = [
            name
            for maker in makers
            if maker is not None and maker.op in BINARY
            for name in maker.inputs
            if name not in editor.graph.constants
        ]
    return found


def _cone(editor: Editor, last: Node, source: str) -> list[Node] | None:
    """The nodes between `source` and `last`, in order; None if others take part."""
    cone: list[Node] = []

    def visit(value: str) -> bool:
        constant = editor.graph.constant(value)
        if value == source or (constant is not None and constant.size == 1):
            return True
        maker = editor.producers.get(value)
        known = maker is not None and (maker.op in BINARY or maker.op in _CANDIDATES)
        if maker is None or not known or len(cone) > 2 * _DEPTH:
            return False
        if maker in cone:
            return True
        if not all(visit(name) for name in maker.inputs):
            return False
        cone.append(maker)
        return True

    if not visit(last.output):
        return None
    for node in cone[:-1]:
        readers = editor.readers(node.output)
        if editor.is_result(node.output) or not all(r in cone for r in readers):
            return None
    return cone


def _evaluate(
    graph: Graph,
    cone: list[Node],
    source: str,
    samples: Array,
    kernels: Kernels[Array],
) -> Array:
    values: dict[str, Array] = {source: samples}
    with np.errstate(all="ignore"):
        for node in cone:
            inputs = [
                values[name] if name in values else graph.constants[name].reshape(-1)
                for name in node.inputs
            ]
            values[node.output] = compute(kernels, node, inputs)[0]
    return values[cone[-1].output]


def find_layer_norms(graph: Graph, specs: Mapping[str, Spec]) -> None:
    """Replace mean, variance, division, scale and shift by one node, in place.

    The form is that of opsets below 17: ``d = x - mean(x); d / sqrt(mean(d^2) + eps) *
    gamma + beta``, over the last axis.
    """
    editor = Editor(graph)
    for node in graph.nodes:
        if node.op == "Sqrt" and not editor.is_gone(node):
            _find_layer_norm(editor, node, specs)
    editor.finish()


def _find_layer_norm(editor: Editor, root: Node, specs: Mapping[str, Spec]) -> None:
    graph = editor.graph
    found = _match_variance(editor, root, specs)
    last = editor.only_reader(root.output)
    if found is None or last is None or last.op != "Div":
        return
    source, epsilon, parts, centred = found
    if last.inputs[1] != root.output or last.inputs[0] not in centred:
        return
    features = specs[source].shape[-1]
    cone = [*parts, root, last]
    gamma, beta = np.ones(features, np.float32), np.zeros(features, np.float32)
    for op in ("Mul", "Add"):
        after = editor.only_reader(last.output)
        vector = _vector(graph, after, last.output, features) if after else None
        if after is None or after.op != op or vector is None:
            continue
        gamma, beta = (vector, beta) if op == "Mul" else (gamma, vector)
        last = after
        cone.append(after)
    if not _is_closed(editor, cone) or specs[last.output] != specs[source]:
        return
    names = [f"{last.output}:gamma", f"{last.output}:beta"]
    graph.constants |= dict(zip(names, (gamma, beta), strict=True))
    editor.become(
        last,
        [n for n in cone if n is not last],
        op="LayerNormalization",
        name=last.name,
        inputs=[source, *names],
        attrs={"axis": -1, "epsilon": epsilon},
    )


def _match_variance(
    editor: Editor, root: Node, specs: Mapping[str, Spec]
) -> tuple[str, float, list[Node], set[str]] | None:
    """Walk back from the square root: source, epsilon, nodes, centred values."""
    graph, makers = editor.graph, editor.producers
    add = makers.get(root.inputs[0])
    if add is None or add.op != "Add":
        return None
    epsilons = [graph.constant(n) for n in add.inputs]
    known = [e for e in epsilons if e is not None and e.size == 1]
    means = [makers.get(n) for n in add.inputs]
    mean = next((m for m in means if m is not None and _is_mean(graph, m, specs)), None)
    if len(known) != 1 or mean is None:
        return None
    square = makers.get(mean.inputs[0])
    if square is None or not _is_square(graph, square):
        return None
    centre = makers.get(square.inputs[0])
    if centre is None or centre.op != "Sub":
        return None
    source = centre.inputs[0]
    middle = makers.get(centre.inputs[1])
    if middle is None or not _is_mean(graph, middle, specs):
        return None
    if middle.inputs[0] != source:
        return None
    twins = [
        n
        for n in editor.readers(middle.output)
        if n.op == "Sub" and n.inputs == centre.inputs
    ]
    centres = list({id(n): n for n in twins}.values())
    parts = [middle, *centres, square, mean, add]
    return source, float(known[0].reshape(-1)[0]), parts, {n.output for n in centres}


def _is_mean(graph: Graph, node: Node, specs: Mapping[str, Spec]) -> bool:
    if node.op != "ReduceMean" or node.attrs.get("keepdims", 1) != 1:
        return False
    axes = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = len(specs[node.inputs[0]].shape)
    return (
        axes is not None and axes.size == 1 and int(axes.ravel()[0]) % rank == rank - 1
    )


def _is_square(graph: Graph, node: Node) -> bool:
    if node.op == "Mul":
        return node.inputs[0] == node.inputs[1]
    if node.op != "Pow":
        return False
    power = graph.constant(node.inputs[1])
    return power is not None and power.size == 1 and float(power.ravel()[0]) == 2.0


def _vector(graph: Graph, node: Node, value: str, features: int) -> Array | None:
    others = [n for n in node.inputs if n != value]
    found = graph.constant(others[0]) if len(others) == 1 else None
    if found is None or found.dtype != np.float32 or found.size != features:
        return None
    return found.reshape(-1) if found.shape[-1] == features else None


def _is_closed(editor: Editor, cone: list[Node]) -> bool:
    """Whether nobody outside reads what the nodes but the last make."""
    inside = {id(n) for n in cone}
    return all(
        not editor.is_result(n.output)
        and all(id(r) in inside for r in editor.readers(n.output))
        for n in cone[:-1]
    )
