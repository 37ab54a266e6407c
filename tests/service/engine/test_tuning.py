"""What is measured decides, is remembered, and changes no bit of an answer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node

from nnz_kernels import cpu
from nnz_kernels.api.conv import ConvSpec
from nnz_kernels.planes import Grid, token_grid
from nnz_service.engine import load
from nnz_service.engine.choices import Choices
from nnz_service.engine.graph import Array
from nnz_service.engine.passes.sparsify import choose
from nnz_service.engine.tuning import Problem, Timed, Tuner

F = np.float32

#: What a cost model might say: sixteen is not worth a try.
EXPECTED: Mapping[int | None, float] = {None: 1.0, 1: 0.7, 4: 0.6, 16: 1.1}


def sparse(*shape: int, seed: int = 0) -> Array:
    """Weights of which one in five is kept, and an empty row."""
    weights = draw(F, shape, seed)
    weights *= np.random.default_rng(seed).random(shape) < 0.2
    weights[1] = 0
    return weights


def problem(outputs: int = 16, inputs: int = 24, kernel: int = 1) -> Problem:
    grids = (Grid(1, 6, 7, 1, 1), Grid(1, 6, 7, 1, 1))
    spec = ConvSpec(pads=(kernel // 2,) * 4)
    return Problem(sparse(outputs, inputs, kernel, kernel), None, spec, grids)


def tuner(choices: Choices | None = None, seconds: float = 60.0) -> Tuner:
    return Tuner(cpu, 1, choices or Choices(None, "test"), seconds)


def network() -> bytes:
    """A convolution, a depthwise one, a residual and a linear layer."""
    return graph(
        [
            node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]),
            node("Relu", "c0", "r0"),
            node("Conv", "r0 w1 b1", "c1", pads=[1, 1, 1, 1], group=24),
            node("Conv", "c1 w2", "c2"),
            node("Add", "c2 r0", "sum"),
            node("GlobalAveragePool", "sum", "p"),
            node("Flatten", "p", "f"),
            node("Gemm", "f w3 b3", "y", transB=1),
        ],
        {"x": (F, ("n", 17, 7, 9))},
        {
            "w0": sparse(24, 17, 3, 3, seed=1),
            "w1": draw(F, (24, 1, 3, 3), 2),
            "b1": draw(F, (24,), 3),
            "w2": sparse(24, 24, 1, 1, seed=4),
            "w3": sparse(10, 24, seed=5),
            "b3": draw(F, (10,), 6),
        },
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder for choices; kernels stay where they were compiled to."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / "choices"


def layers(model: Any) -> list[dict[str, Any]]:
    return [row for row in model.explain() if row["weights"] is not None]


def the_file(folder: Path) -> Path:
    [file] = folder.iterdir()
    return file


class TestMeasure:
    def test_tries_what_the_cost_model_says_is_worth_it(self) -> None:
        found = tuner().measure(problem(), EXPECTED)

        tried = {(one.block, one.tiling) for one in found}
        assert tried == set(itertools.product((None, 1, 4), ("panel", "direct")))
        assert {one.kernel for one in found} == {
            "dense", "dense_panel", "spmm_b1", "spmm_b1_panel", "spmm_b4",
            "spmm_b4_panel",
        }  # fmt: skip
        for one in found:
            prepared = cpu.prepare_conv(
                problem().weights, None, ConvSpec(), block=one.block, tiling=one.tiling
            )
            assert (one.kernel, one.nbytes) == (prepared.kernel, prepared.nbytes)
            assert 0 < one.ms < 1000

    def test_bytes_count_besides_time(self) -> None:
        found = tuner().measure(problem(), EXPECTED)

        costs = [one.ms * one.nbytes**0.3 for one in found]
        assert costs == sorted(costs)

    def test_leaves_the_weights_alone(self) -> None:
        given = problem(kernel=3)
        before = given.weights.copy()

        tuner().measure(given, EXPECTED)

        np.testing.assert_array_equal(given.weights, before)

    @pytest.mark.parametrize("threads", [1, 2])
    def test_every_kind_of_layer(self, threads: int) -> None:
        """Few pixels, groups, strides and depthwise layers can all be timed."""
        measuring = Tuner(cpu, threads, Choices(None, "test"), 60.0)
        wide, half = Grid(1, 8, 9, 1, 1), Grid(1, 4, 5)
        strided = ConvSpec((2, 2), pads=(1, 1, 1, 1))
        groups = ConvSpec((2, 2), pads=(1, 1, 1, 1), groups=4)
        one = token_grid(1)
        for weights, spec, grids in (
            (sparse(8, 20, 1, 1), ConvSpec(), (one, one)),
            (sparse(8, 20, 3, 3), strided, (wide, half)),
            (sparse(8, 5, 3, 3), groups, (wide, half)),
            (sparse(4, 1, 3, 3), groups, (wide, half)),
        ):
            expected = choose(weights, spec.groups).expected

            found = measuring.measure(
                Problem(weights, np.ones(len(weights), F), spec, grids), expected
            )

            assert found
            assert all(timed.ms > 0 for timed in found)

    def test_no_layer_larger_than_memory(self) -> None:
        """What a run would refuse is not tried before: the image takes 4 GiB."""
        large = Grid(1, 1 << 15, 1 << 15, 1, 1)
        weights = sparse(8, 16, 1, 1)

        found = tuner().measure(
            Problem(weights, None, ConvSpec(), (large,) * 2), EXPECTED
        )

        assert found == []

    def test_ends_with_its_time(self) -> None:
        began = time.perf_counter()
        grid = Grid(1, 300, 300, 1, 1)
        weights = sparse(64, 64, 3, 3)
        spec = ConvSpec(pads=(1, 1, 1, 1))

        tuner(seconds=0.1).measure(Problem(weights, None, spec, (grid,) * 2), EXPECTED)

        # Packing, one run past the end, and a slow machine.
        assert time.perf_counter() - began < 3


class TestRemembers:
    def test_a_known_choice_is_not_measured_again(self) -> None:
        measuring = tuner()
        first = measuring.measure(problem(), EXPECTED)
        left = measuring.seconds

        again = measuring.measure(problem(), EXPECTED)

        assert again == first
        assert measuring.seconds == left < 60

    def test_also_when_no_time_is_left(self, tmp_path: Path) -> None:
        choices = Choices(tmp_path, "cpu")
        first = tuner(choices).measure(problem(), EXPECTED)
        choices.save()

        again = tuner(Choices(tmp_path, "cpu"), 0.0).measure(problem(), EXPECTED)

        assert again == first

    def test_time_that_has_run_out(self) -> None:
        measuring = tuner(seconds=0.0)

        assert measuring.measure(problem(), EXPECTED) == []
        assert measuring.seconds == 0

    def test_time_may_run_out_within_a_layer(self) -> None:
        measuring = tuner(seconds=1e-9)

        assert measuring.measure(problem(), EXPECTED) == []
        assert measuring.measure(problem(kernel=3), EXPECTED) == []

    def test_what_differs_is_another_problem(self) -> None:
        given = problem()
        token = token_grid(42)
        shares = {**EXPECTED, 4: 0.3}
        keys = [
            tuner()._key(given, EXPECTED),
            tuner()._key(problem(outputs=17), EXPECTED),
            tuner()._key(problem(kernel=3), EXPECTED),
            tuner()._key(
                Problem(given.weights, None, given.spec, (token,) * 2), EXPECTED
            ),
            tuner()._key(given, shares),
            Tuner(cpu, 2, Choices(None, "test"), 1.0)._key(given, EXPECTED),
        ]

        assert len(set(keys)) == len(keys)
        assert tuner()._key(problem(), EXPECTED) == keys[0]

    @pytest.mark.parametrize(
        "entry",
        [
            None,
            [],
            {},
            7,
            "text",
            [7],
            [[]],
            [[4, "direct", "spmm_b4", 1.0]],
            [[4, "direct", "spmm_b4", 1.0, 100, 0]],
            [[3, "direct", "spmm_b3", 1.0, 100]],
            [[2, "direct", "spmm_b2", 1.0, 100]],
            [[True, "direct", "spmm_b1", 1.0, 100]],
            [["4", "direct", "spmm_b4", 1.0, 100]],
            [[[4], "direct", "spmm_b4", 1.0, 100]],
            [[4, "spiral", "spmm_b4", 1.0, 100]],
            [[4, "chunk", "spmm_b4_chunk", 1.0, 100]],
            [[4, ["direct"], "spmm_b4", 1.0, 100]],
            [[4, "direct", None, 1.0, 100]],
            [[4, "direct", "spmm_b4", "1.0", 100]],
            [[4, "direct", "spmm_b4", float("nan"), 100]],
            [[4, "direct", "spmm_b4", float("inf"), 100]],
            [[4, "direct", "spmm_b4", 0.0, 100]],
            [[4, "direct", "spmm_b4", 1.0, 0]],
            [[4, "direct", "spmm_b4", 1.0, 100], [4]],
        ],
        ids=json.dumps,
    )
    def test_an_entry_that_is_none(self, entry: Any) -> None:
        """What nothing of ours wrote is measured anew, and replaced."""
        measuring = tuner()
        key = measuring._key(problem(), EXPECTED)
        measuring.choices.put(key, entry)

        found = measuring.measure(problem(), EXPECTED)

        assert len(found) == 6
        assert [Timed(*one) for one in measuring.choices.get(key)] == found


class TestLoad:
    def test_explains_what_was_measured(self, folder: Path) -> None:
        model = load(network())

        rows = layers(model)
        assert len(rows) == 4
        for row in rows:
            candidates = row["candidates"]
            assert row["kernel"] == next(iter(candidates))
            assert all(ms > 0 for ms in candidates.values())
            assert row["reason"]
        several = [row for row in rows if len(row["candidates"]) > 1]
        assert len(several) >= 2
        assert all("ms measured" in row["reason"] for row in several)

    def test_without_time_the_cost_model_decides(self, folder: Path) -> None:
        model = load(network(), tuning_seconds=0)

        for row in layers(model):
            assert row["candidates"] == {}
            assert "measured" not in row["reason"]
        expected = choose(sparse(24, 17, 3, 3, seed=1), 1)
        first = layers(model)[0]
        assert (first["block"], first["reason"]) == (expected.block, expected.reason)
        assert not folder.exists()

    def test_the_second_load_measures_nothing(self, folder: Path) -> None:
        load(network())
        file = the_file(folder)
        written = file.stat()

        again = load(network(), tuning_seconds=0)

        # Not the whole of stat(): reading the file may move its time of access.
        assert file.stat().st_ino == written.st_ino
        assert file.stat().st_mtime_ns == written.st_mtime_ns
        found = json.loads(file.read_text())
        times = {entry[0][3] for entry in found.values()}
        for row in layers(again):
            assert row["candidates"][row["kernel"]] in times

    def test_every_choice_gives_the_same_bits(self, folder: Path) -> None:
        """Each candidate in turn is what the file says was fastest."""
        load(network())
        file = the_file(folder)
        measured = json.loads(file.read_text())
        feeds = {n: {"x": draw(F, (n, 17, 7, 9), 9)} for n in (1, 5)}
        expected = {n: judge(network(), given)["y"] for n, given in feeds.items()}
        turns = max(len(entry) for entry in measured.values())
        assert turns >= 6
        answers = []
        for turn in range(turns):
            chosen = {
                key: [entry[turn % len(entry)], *entry]
                for key, entry in measured.items()
            }
            file.write_text(json.dumps(chosen))

            model = load(network())

            kernels = [row["kernel"] for row in layers(model)]
            wanted = [entry[0][2] for entry in chosen.values()]
            assert sorted(kernels) == sorted(wanted)
            answers.append({n: model.run(given)["y"] for n, given in feeds.items()})
        for n in feeds:
            assert difference(answers[0][n], expected[n]) < 1e-5
            for answer in answers[1:]:
                np.testing.assert_array_equal(answer[n], answers[0][n])

    def test_dense_squares_may_be_transformed(self, folder: Path) -> None:
        """That rounds otherwise, but an image has its answer in any batch."""
        constants = {"w": draw(F, (16, 12, 3, 3)), "b": draw(F, (16,), 1)}
        nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c")]
        file = graph(nodes, {"x": (F, ("n", 12, 11, 13))}, constants)
        (row,) = layers(load(file))
        assert set(row["candidates"]) == {"dense", "dense_panel", "dense_winograd"}
        choices = the_file(folder)
        ((key, entry),) = json.loads(choices.read_text()).items()
        first = next(one for one in entry if one[1] == "winograd")
        choices.write_text(json.dumps({key: [first, *entry]}))

        model = load(file)

        assert layers(model)[0]["kernel"] == "dense_winograd"
        x = draw(F, (5, 12, 11, 13), 2)
        together = model.run({"x": x})["y"]
        assert difference(together, judge(file, {"x": x})["y"]) < 2e-6
        for image in range(5):
            alone = model.run({"x": x[image : image + 1]})["y"]
            np.testing.assert_array_equal(alone[0], together[image])

    @pytest.mark.parametrize(
        "entry", [[[999, "direct", "x", 1.0, 5]], [["?"]], {"a": 1}, 5, [None]]
    )
    def test_entries_of_another_kind(self, folder: Path, entry: Any) -> None:
        load(network())
        file = the_file(folder)
        keys = json.loads(file.read_text())
        file.write_text(json.dumps(dict.fromkeys(keys, entry)))

        model = load(network())

        assert all(row["candidates"] for row in layers(model))
        assert all(entry != now for now in json.loads(file.read_text()).values())

    def test_a_folder_that_cannot_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "taken").touch()
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "taken"))

        assert all(row["candidates"] for row in layers(load(network())))

    def test_the_reference_is_not_measured(self, folder: Path) -> None:
        model = load(network(), backend="reference")

        assert all(row["candidates"] == {} for row in layers(model))
        assert not folder.exists()
