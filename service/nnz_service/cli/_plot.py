"""The picture of a sweep: time against sparsity, dense peers as horizontal lines."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from statistics import median
from typing import Any

from nnz_service.errors import ImpossibleError

#: Of the Okabe-Ito palette, which colour-blind readers tell apart.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")
PEER_COLOURS = {"onnxruntime": "#666666", "openvino": "#56B4E9", "mnn": "#E69F00"}


def require() -> None:
    """Raise ImpossibleError, with the command that helps, without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImpossibleError(
            "--plot needs matplotlib, which is not installed: "
            "pip install 'nnz-server[plot]'"
        )


def draw(record: dict[str, Any], note: str, target: Path) -> None:
    """Draw the sweep of one model, 1000 by 600 pixels in a PNG.

    Args:
        record: Of the model, as `nnz bench --json` prints it.
        note: Second line of the title: where it was measured.
        target: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, line in zip(LINE_COLOURS, record["sweep"], strict=False):
        times = [point["systems"]["nnz"]["median_ms"] for point in line["points"]]
        places = [100 * point["sparsity"] for point in line["points"]]
        label = f"nnz, 1x{line['block']} blocks"
        axes.plot(places, times, "o-", color=colour, label=label, linewidth=2)
    points = [point for line in record["sweep"] for point in line["points"]]
    for peer in points[0]["peers"]:
        level = median(point["systems"][peer]["median_ms"] for point in points)
        colour = PEER_COLOURS[peer]
        axes.axhline(level, color=colour, linestyle="--", label=f"{peer}, dense")
    axes.set_xlabel("sparsity of the prunable weights (%)", fontsize=13)
    axes.set_ylabel("median time of one run (ms)", fontsize=13)
    axes.set_title(f"{Path(record['model']).name}\n{note}", loc="left", fontsize=12)
    axes.set_xlim(min(0, *(100 * p["sparsity"] for p in points)), 100)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=12)
    figure.savefig(target)
