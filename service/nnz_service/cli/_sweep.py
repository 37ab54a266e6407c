"""How time follows sparsity: a model pruned more and more, against dense peers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nnz_service.cli import _measure
from nnz_service.cli._measure import Terms
from nnz_service.cli._peers import Problem, System, convert, open_system
from nnz_service.engine.pruning import prune, totals

Points = Sequence[dict[str, Any]]


def sweep(
    path: Path,
    problem: Problem,
    terms: Terms,
    grid: Sequence[tuple[int, Sequence[float]]],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Prune a dense model, time nnz on each result beside the peers on the dense model.

    The peers are timed again at each point, in its own interleaved run, so that what
    the machine does in between cancels; they are checked on the pruned file.

    Args:
        path: ONNX file of the dense model.
        problem: What to run.
        terms: Peers, threads, and timed runs of each system at a point.
        grid: Blocks, each with ascending sparsities.
        say: Told before each point.

    Returns:
        For each block its ``points`` (``sparsity`` asked for, ``density`` of the
        prunable weights, and what `_measure.race` returns), the ``correlation`` of
        time and density, and where each peer breaks even; see `summarise`.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        dense = _open(terms.peers, path, Path(folder), problem, terms)
        for block, sparsities in grid:
            points = []
            for sparsity in sparsities:
                say(f"{path.name}: {sparsity:.0%} in 1x{block}")
                model, rows = prune(path, sparsity, block)
                density = totals([r for r in rows if r["block"]])["density_after"]
                point = {"sparsity": sparsity, "density": density}
                points.append(point | _race(model, problem, dense, terms))
            lines.append({"block": block} | summarise(points) | {"points": points})
    return lines


def _race(
    model: onnx.ModelProto, problem: Problem, dense: dict[str, System], terms: Terms
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pruned = Path(folder) / "pruned.onnx"
        onnx.save_model(model, str(pruned))
        names = ("nnz", *terms.peers)
        same = _open(names, pruned, Path(folder), problem, terms)
        timed = {"nnz": same["nnz"], **dense}
        return _measure.race(timed, same, problem, terms)


def _open(
    names: Sequence[str], path: Path, folder: Path, problem: Problem, terms: Terms
) -> dict[str, System]:
    return {
        name: open_system(name, convert(name, path, folder), terms.threads, problem)
        for name in names
    }


def summarise(points: Points) -> dict[str, Any]:
    """Fit what a line of points says.

    Returns:
        ``correlation``: Pearson's, of the median time and the density, None where one
        of them does not vary. ``break_even``: see there, for each peer.
    """
    times = [point["systems"]["nnz"]["median_ms"] for point in points]
    densities = [point["density"] for point in points]
    varies = np.ptp(times) > 0 and np.ptp(densities) > 0
    return {
        "correlation": float(np.corrcoef(times, densities)[0, 1]) if varies else None,
        "break_even": {name: break_even(points, name) for name in points[0]["peers"]},
    }


def break_even(points: Points, peer: str) -> float | None:
    """Return the sparsity from which nnz is as fast as the dense peer.

    Between two points nnz's time over the peer's is taken to be a line, as its work is
    one in the density. Where it crosses more than once the last crossing counts.

    Returns:
        The sparsity; the least that was swept if nnz is as fast already there; None if
        it is slower at the greatest one, or a peer's answers differed.
    """
    ratios = [point["peers"][peer]["ratio"] for point in points]
    if None in ratios or ratios[-1] < 1:
        return None
    shares = [1 / ratio for ratio in ratios]
    places = [point["sparsity"] for point in points]
    for i in range(len(points) - 1, 0, -1):
        if shares[i - 1] > 1:
            part = (shares[i - 1] - 1) / (shares[i - 1] - shares[i])
            return float(places[i - 1] + part * (places[i] - places[i - 1]))
    return float(places[0])
