from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper

from nnz_service.cli import _measure
from nnz_service.errors import ImpossibleError, InvalidInputError

if TYPE_CHECKING:
    from service.cli.conftest import Runner

FREE = _measure.System(
    run=lambda feeds: {"y": feeds["x"]},
    inputs={"x": ("FP32", (None, 3, None)), "k": ("INT64", (2,))},
    weight_bytes=None,
)


class TestInputShapes:
    def test_batch_takes_the_first_free_axis(self) -> None:
        """
        The batch fills the first axis; the others are given by name.
        """
        shapes = _measure.input_shapes(FREE, 5, ["x=5x3x7"])

        assert shapes == {"x": (5, 3, 7), "k": (2,)}

    def test_free_axes_must_be_chosen(self) -> None:
        """
        An input with another free axis is refused with the option that helps.
        """
        with pytest.raises(InvalidInputError, match=r"--shape x=5x3x8"):
            _measure.input_shapes(FREE, 5, [])

    def test_unknown_input(self) -> None:
        """
        A shape for no input names the inputs that there are.
        """
        with pytest.raises(InvalidInputError, match=r"no input 'z'.*there are x, k"):
            _measure.input_shapes(FREE, 1, ["z=1x2"])

    @pytest.mark.parametrize("text", ["x=1x3xa", "x=", "x=1x3x0", "x=-1x3x3"])
    def test_not_a_shape(self, text: str) -> None:
        """
        Extents that are no positive numbers are refused.
        """
        with pytest.raises(InvalidInputError, match="positive numbers"):
            _measure.input_shapes(FREE, 1, [text])


class TestDraw:
    def test_every_round_is_fresh(self) -> None:
        """
        Another seed gives other inputs, the same seed the same; types are kept.
        """
        shapes = {"x": (2, 3, 4), "k": (2,)}

        one, again, two = (_measure.draw(FREE, shapes, seed) for seed in (1, 1, 2))

        assert np.array_equal(one["x"], again["x"])
        assert not np.array_equal(one["x"], two["x"])
        assert (one["x"].dtype, one["k"].dtype) == (np.float32, np.int64)


class TestDifference:
    def test_by_hand(self) -> None:
        """
        |(3, 4.01) - (3, 4)| over |(3, 4)| is 0.01 / 5.
        """
        gap = _measure.difference(
            {"y": np.array([3.0, 4.01])}, {"y": np.array([3.0, 4.0])}
        )

        assert gap == pytest.approx(0.002)

    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param([np.nan, 4.0], id="NaN"),
            pytest.param([np.inf, 4.0], id="infinite"),
            pytest.param([3.0], id="another shape"),
        ],
    )
    def test_what_never_agrees(self, wrong: list[float]) -> None:
        """
        NaN, infinity and another shape differ without bound.
        """
        gap = _measure.difference({"y": np.array(wrong)}, {"y": np.array([3.0, 4.0])})

        assert gap == np.inf


class TestVerdict:
    def test_ratio_of_medians(self) -> None:
        """
        A peer that takes twice as long has the ratio 2, whatever one round did.
        """
        verdict = _measure.verdict(1e-6, [1.0, 1.0, 50.0], [2.0, 2.0, 2.0])

        assert verdict["agrees"]
        assert verdict["ratio"] == 2.0

    @pytest.mark.parametrize("gap", [1.1e-4, np.inf, np.nan])
    def test_no_ratio_of_different_answers(self, gap: float) -> None:
        """
        Answers that differ get no ratio.
        """
        verdict = _measure.verdict(gap, [1.0], [2.0])

        assert not verdict["agrees"]
        assert verdict["ratio"] is None


class TestMemory:
    def test_peak_counts_what_was_freed(self) -> None:
        """
        A hundred megabytes touched and freed stay in the peak.
        """
        before = _measure.peak_memory()
        block = np.ones(before // 8 + 12_500_000)  # more than was ever resident
        del block

        assert _measure.peak_memory() >= before + 90e6

    def test_child_without_a_shape(self, tmp_path: Path) -> None:
        """
        What the measuring process refuses is told without the name of its class.
        """
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]
        )
        opset = [helper.make_opsetid("", 17)]
        path = tmp_path / "free.onnx"
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        path.write_bytes(model.SerializeToString())

        with pytest.raises(ImpossibleError, match=r"free\.onnx: input x has free axes"):
            _measure.memory_of("onnxruntime", str(path), 1, 1, [])

    def test_child_that_fails(self, tmp_path: Path) -> None:
        """
        What ends the measuring process is told in one line.
        """
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"\xff")

        with pytest.raises(ImpossibleError, match="onnxruntime could not run"):
            _measure.memory_of("onnxruntime", str(broken), 1, 1, [])


class TestBench:
    def test_with_a_peer(self, nnz: Runner, sparse_model: Path) -> None:
        """
        Both systems agree, so there are medians, memory and a ratio of the medians.
        """
        found = nnz.json(
            "bench", sparse_model, "--threads", "1", "--batch", "3", "--rounds", "3",
            "--peer", "onnxruntime",
        )  # fmt: skip

        ours, theirs = found["systems"]["nnz"], found["systems"]["onnxruntime"]
        assert found["shapes"] == {"x": [3, 1, 16, 16]}
        assert found["max_relative_difference"] <= 1e-4
        assert found["ratio"] == theirs["median_ms"] / ours["median_ms"]
        assert 0 < ours["p10_ms"] <= ours["median_ms"] <= ours["p90_ms"]
        assert 0 < ours["weight_bytes"] < sparse_model.stat().st_size
        assert ours["peak_rss"] > 10e6
        assert theirs["peak_rss"] > 10e6

    def test_alone(self, nnz: Runner, sparse_model: Path) -> None:
        """
        Without a peer: a table of one row and no ratio.
        """
        result = nnz("bench", sparse_model, "--threads", "1", "--rounds", "3")

        assert result.exit_code == 0
        assert "median ms" in result.stdout
        assert "times as long" not in result.stdout
