"""One row of `Model.explain`."""

from __future__ import annotations

from typing import Any

from nnz_service.engine.passes.sparsify import Layer
from nnz_service.engine.plan import Step


def describe(
    step: Step, layer: Layer | None, shape: list[int], ms: float | None
) -> dict[str, Any]:
    """Describe a step.

    Args:
        step: Of a plan.
        layer: Its weights, None for a step without any.
        shape: Of its result.
        ms: Measured time, None before a measurement.

    Returns:
        The fields that `Model.explain` names.
    """
    row: dict[str, Any] = {"name": step.name, "op": step.op, "shape": shape}
    if layer is None:
        row |= dict.fromkeys(("weights", "density", "block", "bytes", "dense_bytes"))
        row |= {"blocks_found": [], "candidates": {}, "reason": ""}
    else:
        row |= {
            "weights": list(layer.shape),
            "density": layer.density,
            "block": layer.block,
            "blocks_found": list(layer.blocks_found),
            "bytes": layer.prepared.nbytes,
            "dense_bytes": layer.dense_bytes,
            "candidates": dict(layer.candidates),
            "reason": layer.reason,
        }
    return {**row, "kernel": step.kernel, "ms": ms}
