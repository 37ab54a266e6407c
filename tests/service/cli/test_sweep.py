from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prunable_models import model, node, normal

from nnz_service.cli import _measure, _sweep


def point(
    sparsity: float, ms: float, ratio: float | None, density: float | None = None
) -> dict[str, Any]:
    return {
        "sparsity": sparsity,
        "density": 1 - sparsity if density is None else density,
        "systems": {"nnz": {"median_ms": ms}},
        "peers": {"onnxruntime": {"ratio": ratio}},
    }


class TestSweep:
    def test_points(self, tmp_path: Path) -> None:
        """
        Each block and sparsity is pruned, timed and checked; less is held each time.
        """
        path = tmp_path / "dense.onnx"
        weights = {"w": normal(64, 64), "v": normal(64, 64)}
        layers = [node("MatMul", "x", "w", out="h"), node("MatMul", "h", "v")]
        path.write_bytes(model(layers, weights).SerializeToString())
        problem = _measure.problem_of(path, 1, ["x=2x64"])
        told: list[str] = []

        lines = _sweep.sweep(
            path,
            problem,
            _measure.Terms(("onnxruntime",), threads=1, rounds=3),
            [(4, [0.0, 0.5, 0.9]), (1, [0.9])],
            told.append,
        )

        assert [line["block"] for line in lines] == [4, 1]
        points = lines[0]["points"]
        assert [p["sparsity"] for p in points] == [0.0, 0.5, 0.9]
        assert [p["density"] for p in points] == pytest.approx([1, 0.5, 0.1], abs=0.01)
        held = [p["systems"]["nnz"]["weight_bytes"] for p in points]
        assert held == sorted(held, reverse=True)
        assert held[2] < held[0] / 2
        assert all(p["peers"]["onnxruntime"]["agrees"] for p in points)
        assert told[1:] == [
            "dense.onnx: 50% in 1x4", "dense.onnx: 90% in 1x4", "dense.onnx: 90% in 1x1"
        ]  # fmt: skip


class TestSummarise:
    def test_time_on_a_line(self) -> None:
        """
        Time that is a line in the density correlates fully.
        """
        points = [point(s, 3 + 10 * (1 - s), 1.0) for s in (0, 0.5, 0.9)]

        assert _sweep.summarise(points)["correlation"] == pytest.approx(1)

    @pytest.mark.parametrize("densities", [(1.0,), (0.5, 0.5)])
    def test_nothing_to_correlate(self, densities: tuple[float, ...]) -> None:
        """
        One point, or one density, has no correlation.
        """
        points = [point(0.5, ms, 1.0, d) for ms, d in enumerate(densities, start=1)]

        assert _sweep.summarise(points)["correlation"] is None


class TestBreakEven:
    def test_by_hand(self) -> None:
        """
        From 1.5 times the peer's time at 0.3 to half of it at 0.7: even at 0.5.
        """
        points = [point(0.3, 1, 1 / 1.5), point(0.7, 1, 2.0)]

        assert _sweep.break_even(points, "onnxruntime") == pytest.approx(0.5)

    def test_the_last_crossing_counts(self) -> None:
        """
        Faster, slower, faster: what holds from there on begins at the second crossing.
        """
        points = [point(s, 1, r) for s, r in ((0, 2.0), (0.4, 0.5), (0.8, np.inf))]

        assert _sweep.break_even(points, "onnxruntime") == pytest.approx(0.6)

    @pytest.mark.parametrize(
        ("ratios", "expected"),
        [
            pytest.param((1.1, 2.0), 0.2, id="faster everywhere"),
            pytest.param((0.5, 0.9), None, id="slower everywhere"),
            pytest.param((2.0, 0.9), None, id="slower at the end"),
            pytest.param((0.5, None), None, id="answers that differ"),
        ],
    )
    def test_without_a_crossing(
        self, ratios: tuple[float | None, ...], expected: float | None
    ) -> None:
        """
        The least sparsity swept, or none.
        """
        points = [point(s, 1, r) for s, r in zip((0.2, 0.9), ratios, strict=True)]

        assert _sweep.break_even(points, "onnxruntime") == expected
