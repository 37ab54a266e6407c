"""Types and shapes of every value, and the values that follow from shapes alone.

Inference runs on concrete sizes: once at load on probes, and again for each new set of
input shapes. It therefore also evaluates the chains that exporters build from Shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnz_service.engine.graph import DTYPES, Array, Graph, Node, Shape, dtype_name
from nnz_service.engine.moves import SETTINGS
from nnz_service.engine.rows import compute
from nnz_service.engine.rules import FAULTS, RULES, Spec
from nnz_service.errors import InvalidModelError, UnsupportedModelError

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

__all__ = ["Facts", "Spec", "infer"]

#: Elements of one value; more is a broken or hostile file, not a tensor.
MAX_ELEMENTS = 1 << 31
#: Elements of a value that is computed while shapes are inferred.
MAX_KNOWN = 1 << 22

#: Operations that have no plain form: only a plan can run them.
_PLANNED = ("Conv", "Linear", "MaxPool", "AveragePool", "Attention")

#: Types that a value may have while a plan runs.
_RUNTIME = tuple(DTYPES[name] for name in ("FP32", "INT64", "INT32", "BOOL"))


@dataclass(frozen=True, slots=True)
class Facts:
    """What inference found: a spec for every value, and the values that are known."""

    specs: dict[str, Spec]
    values: dict[str, Array]

    def shape(self, name: str) -> Shape:
        """Shape of a value."""
        return self.specs[name].shape


def infer(graph: Graph, feeds: Mapping[str, Spec], kernels: Kernels[Array]) -> Facts:
    """Find the spec of every value for the given inputs.

    Args:
        graph: The model; constants take part.
        feeds: Spec of every input.
        kernels: Back-end for the few values that are computed on the way.

    Raises:
        InvalidModelError: A node does not fit its inputs; the message names it.
        UnsupportedModelError: A setting depends on data, or a type has no kernels.
    """
    facts = Facts(dict(feeds), dict(graph.constants))
    for name, value in graph.constants.items():
        facts.specs[name] = Spec(value.dtype, value.shape)
    for name, spec in feeds.items():
        if math.prod(spec.shape) > MAX_ELEMENTS:
            raise InvalidModelError(
                f"input {name!r} {list(spec.shape)} passes {MAX_ELEMENTS} elements"
            )
    refused: list[str] = []
    for node in graph.nodes:
        if any(name and name not in facts.specs for name in node.inputs):
            continue  # it reads what a refused node makes
        try:
            _add_node(node, facts, kernels)
        except UnsupportedModelError as exc:
            refused += exc.nodes
    if refused:
        raise UnsupportedModelError(
            f"{len(refused)} nodes cannot run here: " + "; ".join(refused), refused
        )
    return facts


def _add_node(node: Node, facts: Facts, kernels: Kernels[Array]) -> None:
    specs = [facts.specs[name] if name else None for name in node.inputs]
    values = [facts.values.get(name) if name else None for name in node.inputs]
    _check_settings(node, values)
    try:
        found = _infer_node(node, specs, values, facts, kernels)
    except FAULTS as exc:
        raise InvalidModelError(f"{node.label()}: {exc}") from exc
    for name, spec in zip(node.outputs, found, strict=False):
        if name:
            _check_spec(node, spec, name in facts.values)
            facts.specs[name] = spec


def _infer_node(
    node: Node,
    specs: Sequence[Spec | None],
    values: Sequence[Array | None],
    facts: Facts,
    kernels: Kernels[Array],
) -> list[Spec]:
    if node.op in ("Shape", "Size") and specs[0] is not None:
        values = [specs[0].fake()]
    known = all(
        v is not None or not n for v, n in zip(values, node.inputs, strict=True)
    )
    found = RULES[node.op](node, specs, values)
    small = all(math.prod(s.shape) <= MAX_KNOWN for s in found)
    if known and small and node.op not in _PLANNED:
        made = compute(kernels, node, values)
        for name, value in zip(node.outputs, made, strict=False):
            facts.values[name] = value
        return [Spec(v.dtype, v.shape) for v in made]
    return found


def _check_settings(node: Node, values: Sequence[Array | None]) -> None:
    for index in SETTINGS.get(node.op, ()):
        if index < len(values) and node.inputs[index] and values[index] is None:
            reason = f"its input {index} ({node.inputs[index]}) depends on data"
            raise UnsupportedModelError(
                f"{node.label()}: {reason}", nodes=(f"{node.label()}: {reason}",)
            )


def _check_spec(node: Node, spec: Spec, known: bool) -> None:
    if math.prod(spec.shape) > MAX_ELEMENTS:
        raise InvalidModelError(
            f"{node.label()}: its result {list(spec.shape)} passes {MAX_ELEMENTS} "
            "elements"
        )
    if spec.dtype not in _RUNTIME and not known:
        reason = f"it computes in {dtype_name(spec.dtype)}; the engine has FP32"
        raise UnsupportedModelError(
            f"{node.label()}: {reason}", nodes=(f"{node.label()}: {reason}",)
        )
