"""Find attention that exporters write out in products, transposes and a softmax.

Exporters split features into heads, and join them again, in many ways. So the nodes
that only move data are not matched one by one: an array of positions is moved the same
way, and what it becomes tells which features of which token a head sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnz_service.engine.graph import Array, Graph, Node, Shape
from nnz_service.engine.moves import MOVES, VIEWS
from nnz_service.engine.passes.edit import Editor
from nnz_service.engine.shapes import Facts

#: Nodes between a linear layer and a product, between two products, and after them.
_DEPTH = 8

#: Elements of an array of positions; larger values are left as they are.
_MOST = 1 << 22

#: Moves of one array: what it becomes holds every element at most once.
_SPLITS = frozenset({*VIEWS, "Gather"} - {"Expand"})
_JOINS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})


@dataclass(frozen=True, slots=True)
class _Heads:
    """Where the heads of queries, keys or values come from.

    Args:
        source: A value ``[batch, tokens, features]``.
        features: How many it has.
        first: Its first feature that belongs to a head.
        heads: Number of heads, one run of features after the other.
        dim: Features of a head.
        scale: What the features are multiplied by on the way.
    """

    source: str
    features: int
    first: int
    heads: int
    dim: int
    scale: float


@dataclass(slots=True)
class _Scores:
    """The product of queries and keys, and what is done to it before the softmax."""

    product: Node
    scale: float
    mask: str | None
    between: list[Node]


def find_attention(graph: Graph, probes: Sequence[Facts]) -> None:
    """Replace the parts of an attention by one node, in place.

    Its inputs are queries, keys and values, each ``[batch, tokens, features]``, and the
    mask if there is one; attributes are heads, head_dim, value_dim, scale, and, one for
    each of the three, features and first, the first feature that belongs to a head.

    Args:
        graph: Changed in place.
        probes: Facts for inputs of several sizes; the parts must be an attention in all
            of them.
    """
    editor = Editor(graph)
    for node in graph.nodes:
        if node.op == "Softmax" and not editor.is_gone(node):
            _find(editor, node, probes)
    editor.finish()


def _find(editor: Editor, softmax: Node, probes: Sequence[Facts]) -> None:
    rank = len(probes[0].shape(softmax.output))
    mixed = editor.only_reader(softmax.output)
    if mixed is None or mixed.op != "MatMul" or mixed.inputs[0] != softmax.output:
        return
    scores = _scores(editor, softmax, probes)
    if softmax.attrs["axis"] % rank != rank - 1 or scores is None:
        return
    names = [*scores.product.inputs, mixed.inputs[1]]
    q = _heads(editor, names[0], probes)
    k = _heads(editor, names[1], probes, turned=True)
    v = _heads(editor, names[2], probes)
    if q is None or k is None or v is None:
        return
    if not (q.heads == k.heads == v.heads and q.dim == k.dim):
        return
    if not all(_fit(facts, names, (q, k, v), scores) for facts in probes):
        return
    joins = _joins(editor, mixed, probes, (q, v))
    if joins is None:
        return
    nodes = [*scores.between, scores.product, softmax, mixed, *joins]
    mask = [] if scores.mask is None else [scores.mask]
    editor.become(
        nodes[-1],
        nodes[:-1],
        op="Attention",
        name=nodes[-1].name,
        inputs=[q.source, k.source, v.source, *mask],
        attrs={
            "heads": q.heads,
            "head_dim": q.dim,
            "value_dim": v.dim,
            "scale": scores.scale * q.scale * k.scale,
            "features": (q.features, k.features, v.features),
            "first": (q.first, k.first, v.first),
        },
    )


def _fit(
    facts: Facts, names: list[str], parts: tuple[_Heads, ...], scores: _Scores
) -> bool:
    """Whether no axis of the products is broadcast, and the mask fits the scores."""
    if len({facts.shape(name)[:-2] for name in names}) != 1:
        return False
    if len({facts.shape(part.source)[0] for part in parts}) != 1:
        return False
    shape = facts.shape(scores.product.output)
    if scores.mask is None:
        return True
    mask = facts.specs[scores.mask]
    if mask.dtype != np.float32 or len(mask.shape) > len(shape):
        return False
    padded = (1,) * (len(shape) - len(mask.shape)) + mask.shape
    if any(a not in (1, b) for a, b in zip(padded, shape, strict=True)):
        return False
    # Only four axes tell items and heads apart.
    batch, heads = facts.shape(parts[0].source)[0], parts[0].heads
    return shape[:-2] == (batch, heads) or all(size == 1 for size in padded[:-2])


# -- scores -------------------------------------------------------------------------


def _scores(editor: Editor, softmax: Node, probes: Sequence[Facts]) -> _Scores | None:
    """Walk back from the softmax over a mask and factors to the product."""
    value = softmax.inputs[0]
    add = editor.producers.get(value)
    if add is None or add.op != "Add":
        return _scaled(editor, value, softmax, probes)
    if editor.only_reader(value) is not softmax:
        return None
    for place in (0, 1):
        found = _scaled(editor, add.inputs[place], add, probes)
        same = found is not None and all(
            facts.shape(add.output) == facts.shape(found.product.output)
            for facts in probes
        )
        if found is not None and same:
            found.mask = add.inputs[1 - place]
            found.between.append(add)
            return found
    return None


def _scaled(
    editor: Editor, value: str, reader: Node, probes: Sequence[Facts]
) -> _Scores | None:
    """Walk back over factors alone."""
    scale = 1.0
    between: list[Node] = []
    for _ in range(_DEPTH):
        node = editor.producers.get(value)
        if node is None or editor.only_reader(value) is not reader:
            return None
        if node.op == "MatMul":
            return _Scores(node, scale, None, between)
        factor = _factor(node, probes)
        if factor is None:
            return None
        scale *= factor[1]
        between.append(node)
        value, reader = factor[0], node
    return None


def _factor(node: Node, probes: Sequence[Facts]) -> tuple[str, float] | None:
    """The value that a node multiplies by a known number, and the number."""
    if node.op not in ("Mul", "Div"):
        return None
    for place in (0, 1) if node.op == "Mul" else (0,):
        value, other = node.inputs[place], node.inputs[1 - place]
        known = [facts.values.get(other) for facts in probes]
        numbers = {float(k.reshape(())) for k in known if k is not None and k.size == 1}
        grown = any(facts.shape(value) != facts.shape(node.output) for facts in probes)
        if any(k is None or k.size != 1 for k in known) or len(numbers) != 1 or grown:
            continue
        number = numbers.pop()
        if math.isfinite(number) and (node.op == "Mul" or number != 0):
            return value, number if node.op == "Mul" else 1.0 / number
    return None


# -- heads --------------------------------------------------------------------------


def _heads(
    editor: Editor, name: str, probes: Sequence[Facts], *, turned: bool = False
) -> _Heads | None:
    """Find the value that ``[..., tokens, dim]`` is made of, the farthest one back.

    Args:
        editor: The graph.
        name: An operand of a product.
        probes: What is known of it.
        turned: Whether it is ``[..., dim, tokens]`` instead.
    """
    for source, path, scale in reversed(list(_before(editor, name, probes))):
        found = {_split(facts, source, path, name, turned) for facts in probes}
        place = found.pop()
        if not found and place is not None:
            return _Heads(source, *place, scale)
    return None


def _before(
    editor: Editor, name: str, probes: Sequence[Facts]
) -> Iterator[tuple[str, list[tuple[Node, str]], float]]:
    """Values that `name` may be moved from: each with the moves, and a factor."""
    path: list[tuple[Node, str]] = []
    scale = 1.0
    for _ in range(_DEPTH):
        yield name, path, scale
        node = editor.producers.get(name)
        if node is None:
            return
        factor = _factor(node, probes)
        if factor is not None:
            scale *= factor[1]
            name = factor[0]
            continue
        if node.op not in _SPLITS:
            return
        path = [(node, name), *path]
        name = node.inputs[0]


def _split(
    facts: Facts, source: str, path: list[tuple[Node, str]], name: str, turned: bool
) -> tuple[int, int, int, int] | None:
    """Features, the first one, heads and features of a head; None if it is not that."""
    positions = _positions(facts, source)
    found = None if positions is None else _moved(facts, positions, path)
    if positions is None or found is None or found.ndim < 3:
        return None
    batch, tokens, features = positions.shape
    found = found.swapaxes(-1, -2) if turned else found
    heads, odd = divmod(math.prod(found.shape[:-2]), batch)
    dim, first = found.shape[-1], int(found.flat[0])
    if odd or found.shape[-2] != tokens or first + heads * dim > features:
        return None
    wanted = positions[:, :, first : first + heads * dim]
    wanted = wanted.reshape(batch, tokens, heads, dim).transpose(0, 2, 1, 3)
    same = np.array_equal(found.reshape(wanted.shape), wanted)
    return (features, first, heads, dim) if same else None


def _positions(facts: Facts, name: str) -> Array | None:
    """Number the elements of a value ``[batch, tokens, features]`` of float32."""
    spec = facts.specs[name]
    if name in facts.values:
        return None
    size = math.prod(spec.shape)
    if len(spec.shape) != 3 or not 0 < size <= _MOST or spec.dtype != np.float32:
        return None
    return np.arange(size, dtype=np.int32).reshape(spec.shape)


def _moved(facts: Facts, array: Array, path: list[tuple[Node, str]]) -> Array | None:
    """Move an array as the data of a value is moved."""
    for node, value in path:
        settings = [facts.values.get(name) if name else None for name in node.inputs]
        missing = [n for n, s in zip(node.inputs, settings, strict=True) if s is None]
        if any(missing[1:]) or settings[0] is not None:
            return None
        made = MOVES[node.op](node, [array, *settings[1:]])
        array = made[node.outputs.index(value)]
    return array


# -- the result ---------------------------------------------------------------------


def _joins(
    editor: Editor, mixed: Node, probes: Sequence[Facts], parts: tuple[_Heads, _Heads]
) -> list[Node] | None:
    """The moves that bring the heads of each token together again."""
    node, path = mixed, [(mixed, mixed.output)]
    for _ in range(_DEPTH):
        if all(_is_joined(facts, path, parts) for facts in probes):
            return [step for step, _ in path[1:]]
        reader = editor.only_reader(node.output)
        if reader is None or reader.op not in _JOINS or node.output != reader.inputs[0]:
            return None
        node = reader
        path.append((node, node.output))
    return None


def _is_joined(
    facts: Facts, path: list[tuple[Node, str]], parts: tuple[_Heads, _Heads]
) -> bool:
    q, v = parts
    batch, tokens, _ = facts.shape(q.source)
    shape: Shape = (batch, tokens, v.heads * v.dim)
    size = math.prod(shape)
    if facts.shape(path[-1][1]) != shape or size > _MOST:
        return False
    positions = np.arange(size, dtype=np.int32).reshape(facts.shape(path[0][1]))
    found = _moved(facts, positions, path[1:])
    wanted = positions.reshape(batch, v.heads, tokens, v.dim).transpose(0, 2, 1, 3)
    return found is not None and np.array_equal(found, wanted.reshape(shape))
