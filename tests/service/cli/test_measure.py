from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import graph, node

from nnz_service.cli import _measure
from nnz_service.cli._peers import Problem, System
from nnz_service.errors import InvalidInputError

FREE = {"x": (None, 3, None), "k": (2,)}
PROBLEM = Problem({"x": ("FP32", (2, 3, 4)), "k": ("INT64", (2,))}, ("y",))


class TestProblemOf:
    def test_batch_is_a_free_first_axis(self, sparse_model: Path) -> None:
        """
        The model's own types and names, and the batch that filled its free axis.
        """
        problem = _measure.problem_of(sparse_model, 3, [])

        assert problem == Problem({"x": ("FP32", (3, 1, 16, 16))}, ("logits",), 3)

    def test_no_free_axis_is_no_batch(self, tmp_path: Path) -> None:
        """
        A first axis that is given counts no images.
        """
        path = tmp_path / "given.onnx"
        path.write_bytes(graph([node("Relu", "x")], {"x": (np.float32, [4, 2])}))

        problem = _measure.problem_of(path, 3, [])

        assert problem == Problem({"x": ("FP32", (4, 2))}, ("y",), None)


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
        one, again, two = (_measure.draw(PROBLEM, seed) for seed in (1, 1, 2))

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


class TestTurns:
    def test_everybody_goes_first_as_often(self) -> None:
        """
        Who goes first rotates, and over two circles everybody follows everybody.
        """
        rounds = [_measure.turns("abc", number) for number in range(6)]

        assert [order[0] for order in rounds] == list("abcabc")
        assert all(sorted(order) == list("abc") for order in rounds)
        after = {pair for order in rounds for pair in pairwise(order)}
        assert after == {(p, q) for p in "abc" for q in "abc" if p != q}


class TestRace:
    def test_the_checked_need_not_be_the_timed(self) -> None:
        """
        A peer is timed on one model and checked on another; nnz counts images.
        """
        right = System(lambda feeds: {"y": feeds["x"]}, 8)
        wrong = System(lambda feeds: {"y": 2 * feeds["x"]}, None)
        problem = Problem({"x": ("FP32", (5, 2))}, ("y",), 5)

        found = _measure.race(
            {"nnz": right, "onnxruntime": wrong},
            {"nnz": right, "onnxruntime": right},
            problem,
            _measure.Terms((), 1, 3),
        )

        ours = found["systems"]["nnz"]
        assert ours["p10_ms"] <= ours["median_ms"] <= ours["p90_ms"]
        assert ours["images_per_second"] == pytest.approx(5e3 / ours["median_ms"])
        assert ours["weight_bytes"] == 8
        assert found["peers"]["onnxruntime"]["agrees"]

    def test_one_of_two_differs(self) -> None:
        """
        Each peer is judged for itself.
        """
        right = System(lambda feeds: {"y": feeds["x"]}, None)
        wrong = System(lambda feeds: {"y": 1.001 * feeds["x"]}, None)
        systems = {"nnz": right, "openvino": right, "mnn": wrong}
        problem = Problem({"x": ("FP32", (2,))}, ("y",))

        peers = _measure.race(systems, systems, problem, _measure.Terms((), 1, 3))[
            "peers"
        ]

        assert peers["openvino"]["max_relative_difference"] == 0
        assert peers["mnn"]["max_relative_difference"] == pytest.approx(1e-3, rel=0.01)
        assert [peers[name]["agrees"] for name in ("openvino", "mnn")] == [True, False]


class TestVerdict:
    def test_ratio_of_medians(self) -> None:
        """
        A peer that takes twice as long has the ratio 2, whatever one round did.
        """
        verdict = _measure.verdict(1e-6, [1.0, 1.0, 50.0], [2.0, 2.0, 2.0])

        assert verdict["agrees"]
        assert verdict["ratio"] == 2.0

    def test_spread_of_single_rounds(self) -> None:
        """
        Ratios 1, 2 and 3 of single rounds: their p10 and p90 are 1.2 and 2.8.
        """
        verdict = _measure.verdict(0.0, [1.0, 2.0, 3.0], [1.0, 4.0, 9.0])

        assert verdict["ratio_p10"] == pytest.approx(1.2)
        assert verdict["ratio_p90"] == pytest.approx(2.8)

    @pytest.mark.parametrize("gap", [1.1e-4, np.inf, np.nan])
    def test_no_ratio_of_different_answers(self, gap: float) -> None:
        """
        Answers that differ get no ratio, and what has no bound no number.
        """
        verdict = _measure.verdict(gap, [1.0], [2.0])

        assert not verdict["agrees"]
        assert verdict["ratio"] is verdict["ratio_p10"] is verdict["ratio_p90"] is None
        assert verdict["max_relative_difference"] == (gap if gap < 1 else None)
