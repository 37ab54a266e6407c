"""Which nodes read data where only a constant will do, told from the wiring alone.

Later passes find the same while they fold and infer, but one kind after another; told
here, a refusal names all of them beside the operators that are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nnz_service.engine.moves import SETTINGS

#: Inputs that a layer packs when the model is loaded, and what they are called.
_PACKED: dict[str, tuple[tuple[int, ...], str]] = {
    "Conv": ((1, 2), "its weights are not constant"),
    "BatchNormalization": ((1, 2, 3, 4), "parameters are not constant"),
}

#: Operators whose result follows from the shape of their input, not from its data.
_OF_SHAPE = ("Shape", "Size")


class Wiring(NamedTuple):
    """One node: its operator and the names that it reads and makes, "" for none."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def misplaced(nodes: Iterable[Wiring], data: Iterable[str]) -> dict[int, str]:
    """Find nodes whose weights or settings depend on the model's inputs.

    Args:
        nodes: Each after the makers of its inputs; operators may be unknown.
        data: Names of the model's inputs.

    Returns:
        By place of the node, why it cannot run.
    """
    dependent = set(data)
    reasons: dict[int, str] = {}
    for place, node in enumerate(nodes):
        reason = _reason(node, dependent)
        if reason is not None:
            reasons[place] = reason
        if node.op not in _OF_SHAPE and not dependent.isdisjoint(node.inputs):
            dependent.update(name for name in node.outputs if name)
    return reasons


def _reason(node: Wiring, dependent: set[str]) -> str | None:
    packed, reason = _PACKED.get(node.op, ((), ""))
    if any(name in dependent for name in _at(node, packed)):
        return reason
    for index in SETTINGS.get(node.op, ()):
        for name in _at(node, (index,)):
            if name in dependent:
                return f"its input {index} ({name}) depends on data"
    return None


def _at(node: Wiring, places: Iterable[int]) -> list[str]:
    return [node.inputs[i] for i in places if i < len(node.inputs)]
