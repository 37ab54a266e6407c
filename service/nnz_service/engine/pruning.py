"""Prune the weights of an ONNX model by magnitude, without data.

A block is ``b`` consecutive output channels that share one input position, the unit
that the sparse kernels store; its score is the mean of its absolute weights. The graph
is left as it is: only weight tensors change, so the result runs anywhere.

One sparsity for every layer (``scope="layer"``), or one budget for the whole model
(``scope="global"``): there the squared scores are normalised as LAMP does (Lee et al.,
"Layer-adaptive sparsity for the magnitude-based pruning", arXiv 2010.07611), each by
the sum of those of its layer that are not smaller. The largest block of a layer then
has score 1, so no layer is pruned away whole while others have blocks to give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nnz_service.engine.prunable import Layer, find_layers
from nnz_service.errors import ImpossibleError, InvalidModelError

Scope = Literal["layer", "global"]

BLOCKS = (1, 2, 4, 8, 16)


def prune(
    model: onnx.ModelProto | bytes | str | Path,
    sparsity: float,
    block: int = 4,
    *,
    scope: Scope = "layer",
    first: bool = False,
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Set the weights of least magnitude to zero, in blocks.

    Conv (groups too), Gemm and MatMul with constant right-hand weights are pruned;
    biases, normalisation, depthwise convolutions and everything else stay. The number
    of blocks dropped is exact (rounded to the nearest); of equal scores the one stored
    first goes first. A tensor that several layers share is pruned once.

    Args:
        model: the model, its bytes or the path of its file; not changed.
        sparsity: share of the blocks to drop, 0 <= sparsity < 1.
        block: 1, 2, 4, 8 or 16 output channels. A layer that it does not divide takes
            half, a quarter, ... and its row says so.
        scope: the sparsity holds for each layer, or for the model as a whole.
        first: also prune convolutions of at most four input channels.

    Returns:
        The pruned model and a row a layer: ``name, op, shape, block`` (None where
        nothing was pruned), ``density_before, density_after, note``.

    Raises:
        ImpossibleError: a number out of range, or no layer that could be pruned.
        InvalidModelError: the file is not a valid model, or holds NaN weights.
    """
    _check_arguments(sparsity, block, scope)
    pruned = _read(model)
    layers, rows = find_layers(pruned.graph, block, first)
    if not layers:
        raise ImpossibleError(f"nothing to prune: {_reasons(rows)}")
    scores = [_scores(layer) for layer in layers]
    if scope == "global":
        drops = _global_drops(layers, scores, sparsity)
    else:
        drops = [_lowest(score, sparsity) for score in scores]
    for layer, numbers in zip(layers, drops, strict=True):
        _drop(layer, numbers)
    onnx.checker.check_model(pruned)
    return pruned, rows


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sum up rows of `prune`: all weights, and the density of all before and after."""
    sizes = np.array([np.prod(row["shape"]) for row in rows], dtype=np.float64)
    weights = float(sizes.sum())
    return {"weights": int(weights)} | {
        key: float(sizes @ [row[key] for row in rows]) / weights
        for key in ("density_before", "density_after")
    }


def _check_arguments(sparsity: float, block: int, scope: str) -> None:
    if not 0 <= sparsity < 1:
        raise ImpossibleError(f"sparsity is {sparsity}; it must be in 0 <= s < 1")
    if block not in BLOCKS:
        raise ImpossibleError(f"block is {block}; it must be one of {BLOCKS}")
    if scope not in ("layer", "global"):
        raise ImpossibleError(f"scope is {scope!r}; it must be 'layer' or 'global'")


def _read(model: onnx.ModelProto | bytes | str | Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        if isinstance(model, onnx.ModelProto):
            proto.CopyFrom(model)
        elif isinstance(model, bytes):
            proto = onnx.load_model_from_string(model)
        else:
            proto = onnx.load_model(str(model))
        onnx.checker.check_model(proto)
    except OSError:
        raise  # no such file: its own message is better
    except Exception as exc:  # protobuf and the checker raise types of their own
        raise InvalidModelError(f"not a valid ONNX model: {exc}") from exc
    return proto


def _reasons(rows: Sequence[dict[str, Any]]) -> str:
    counts = Counter(str(row["note"]) for row in rows)
    return (
        "; ".join(f"{note} ({n} layers)" for note, n in counts.most_common())
        or "no Conv, Gemm or MatMul of the main graph has constant weights"
    )


def _scores(layer: Layer) -> NDArray[np.float64]:
    values = numpy_helper.to_array(layer.tensor).ravel()
    picked = np.abs(values[layer.blocks].astype(np.float64))
    scores: NDArray[np.float64] = picked.mean(axis=1)
    if np.isnan(scores).any():
        raise InvalidModelError(f"weights {layer.tensor.name} hold NaN")
    return scores


def _lowest(scores: NDArray[np.float64], sparsity: float) -> NDArray[np.int64]:
    """Return the numbers of the lowest scores; a stable sort settles ties."""
    count = int(np.floor(sparsity * scores.size + 0.5))
    return np.argsort(scores, kind="stable")[:count]


def _global_drops(
    layers: Sequence[Layer], scores: Sequence[NDArray[np.float64]], sparsity: float
) -> list[NDArray[np.int64]]:
    """Return the blocks to drop in each layer under one threshold over all layers."""
    merged = np.concatenate([_lamp(score) for score in scores])
    owner = np.repeat(np.arange(len(layers)), [score.size for score in scores])
    number = np.concatenate([np.arange(score.size) for score in scores])
    width = np.array([layer.blocks.shape[1] for layer in layers])[owner]

    order = np.argsort(merged, kind="stable")
    # Layers may have blocks of different widths: the budget counts weights.
    spent = np.cumsum(width[order])
    chosen = order[spent <= np.floor(sparsity * width.sum() + 0.5)]
    return [number[chosen[owner[chosen] == i]] for i in range(len(layers))]


def _lamp(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = scores**2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    lamp = np.zeros_like(squares)
    # Blocks that are zero already have nothing to lose: they stay at score 0.
    np.divide(squares[order], rest, out=rest, where=rest > 0)
    lamp[order] = rest
    return lamp


def _drop(layer: Layer, numbers: NDArray[np.int64]) -> None:
    """Set blocks to zero in the stored tensor and in the report."""
    values = numpy_helper.to_array(layer.tensor).copy()
    values.reshape(-1)[layer.blocks[numbers]] = 0
    name, doc = layer.tensor.name, layer.tensor.doc_string
    layer.tensor.CopyFrom(numpy_helper.from_array(values, name))
    layer.tensor.doc_string = doc
    for row in layer.rows:
        row["density_after"] = np.count_nonzero(values) / values.size
