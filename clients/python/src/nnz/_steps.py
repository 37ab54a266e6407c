"""Expressions as the steps of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnz._expressions import Dense, Node, Wanted
from nnz._tensors import Array


def steps_of(
    wanted: Sequence[Wanted], names: Sequence[str | None]
) -> tuple[list[dict[str, Any]], dict[str, Array], list[str]]:
    """What a chain consists of: its steps, its tensors, the step of each result.

    Args:
        wanted: Results to keep.
        names: A label for each, where it is a matrix.

    Raises:
        ValueError: One is stored already, or nothing is wanted.
    """
    if not wanted:
        raise ValueError("a chain needs something to compute")
    steps: list[dict[str, Any]] = []
    tensors: dict[str, Array] = {}
    known: dict[int, str] = {}

    def name_of(node: Node | str) -> str:
        if isinstance(node, str):
            return node
        if (name := known.get(id(node))) is not None:
            return name
        row: dict[str, Any] = {"op": node.op, **node.params}
        for key, source in zip(
            ("matrix", "other", "mask"), node.matrices, strict=False
        ):
            row[key] = name_of(source)
        inputs = {key: input_of(value) for key, value in node.inputs.items()}
        row |= {"inputs": inputs} if inputs else {}
        known[id(node)] = row["as"] = f"s{len(steps) + 1}"
        steps.append({**row, "keep": False})
        return str(row["as"])

    def input_of(value: Node | Array) -> str:
        if isinstance(value, Node):
            return name_of(value)
        name = f"t{len(tensors) + 1}"
        tensors[name] = value
        return name

    results = []
    for one, label in zip(wanted, names, strict=True):
        node = one.node if isinstance(one, Dense) else one.source
        if isinstance(node, str):
            raise ValueError(f"{node} is stored already: there is nothing to compute")
        results.append(name_of(node))
        step = next(row for row in steps if row["as"] == results[-1])
        step["keep"] = True
        if label is not None:
            step["name"] = label
    return steps, tensors, results
