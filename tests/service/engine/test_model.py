"""What `load` promises: inputs and their errors, threads, plans, explanations."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node

from nnz_service.engine import inspect as look
from nnz_service.engine import load
from nnz_service.errors import (
    ImpossibleError,
    InvalidInputError,
    InvalidModelError,
    UnsupportedModelError,
)

F = np.float32


def perceptron(batch: Any = "n") -> bytes:
    """Two layers; every fourth input of the first reaches blocks of four outputs."""
    kept = (np.arange(64) % 4 == 0)[:, None]
    return graph(
        [
            node("Gemm", "x w b", "h"),
            node("Relu", "h", "r"),
            node("Gemm", "r v c"),
        ],
        {"x": (F, (batch, 64))},
        {
            "w": draw(F, (64, 32), 1) * kept.astype(F),
            "b": draw(F, (32,), 2),
            "v": draw(F, (32, 10), 3),
            "c": draw(F, (10,), 4),
        },
    )


class TestSignature:
    def test_names_types_and_free_axes(self) -> None:
        model = load(perceptron(), backend="reference")

        [x], [y] = model.inputs, model.outputs

        assert (x.name, x.dtype, x.shape) == ("x", "FP32", (None, 64))
        assert (y.name, y.dtype, y.shape) == ("y", "FP32", (None, 10))
        assert model.max_batch > 1

    def test_fixed_batch_is_not_batched(self) -> None:
        model = load(perceptron(2), backend="reference")

        assert model.outputs[0].shape == (2, 10)
        assert model.max_batch == 0

    def test_inspect_says_the_same(self) -> None:
        found = look(perceptron())

        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
        assert found["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [-1, 10]}
        ]
        assert found["parameters"] == 64 * 32 + 32 + 32 * 10 + 10

    def test_free_image_size(self) -> None:
        file = graph(
            [node("Conv", "x w", "c", strides=[2, 2]), node("Relu", "c")],
            {"x": (F, ("n", 1, "h", "w"))},
            {"w": draw(F, (4, 1, 3, 3))},
        )
        model = load(file)

        for shape in ((1, 1, 9, 9), (2, 1, 20, 13)):
            feeds = {"x": draw(F, shape)}
            assert difference(model.run(feeds)["y"], judge(file, feeds)["y"]) < 1e-6
        assert model.outputs[0].shape == (None, 4, None, None)


class TestInputs:
    @pytest.mark.parametrize(
        ("feeds", "message"),
        [
            ({}, "inputs [] were given, ['x'] are expected"),
            ({"x": draw(F, (1, 64)), "z": draw(F, (1,))}, "['x', 'z'] were given"),
            ({"x": draw(F, (1, 63))}, "'x' is FP32 [1, 63], but must be FP32 [?, 64]"),
            ({"x": draw(F, (64,))}, "'x' is FP32 [64], but must be FP32 [?, 64]"),
            ({"x": np.zeros((1, 64))}, "is FP64 [1, 64], but must be FP32"),
            ({"x": np.zeros((0, 64), F)}, "empty"),
        ],
    )
    def test_says_what_is_expected(self, feeds: Any, message: str) -> None:
        model = load(perceptron(), backend="reference")

        with pytest.raises(InvalidInputError, match=re.escape(message)):
            model.run(feeds)

    def test_sizes_that_must_agree(self) -> None:
        file = graph([node("Add", "x z")], {"x": (F, ("n", 4)), "z": (F, ("n", 4))})
        model = load(file, backend="reference")

        with pytest.raises(InvalidInputError, match="axis n is 2 in another input"):
            model.run({"x": draw(F, (2, 4)), "z": draw(F, (3, 4))})

    def test_sizes_that_the_model_cannot_run(self) -> None:
        file = graph(
            [node("Conv", "x w")],
            {"x": (F, (1, 1, "h", 8))},
            {"w": draw(F, (1, 1, 5, 5))},
        )
        model = load(file, backend="reference")

        with pytest.raises(InvalidInputError, match=r"window of \[5, 5\] is larger"):
            model.run({"x": draw(F, (1, 1, 4, 8))})

    def test_strided_inputs_and_fresh_outputs(self) -> None:
        model = load(perceptron())
        x = draw(F, (64, 3)).T

        first = model.run({"x": x})["y"]
        kept = first.copy()
        second = model.run({"x": -x})["y"]

        np.testing.assert_array_equal(first, kept)
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, model.run({"x": x.copy()})["y"])

    def test_indices_that_are_outside(self) -> None:
        file = graph(
            [node("Gather", "t x")], {"x": (np.int64, ("n",))}, {"t": draw(F, (9, 5))}
        )
        model = load(file, backend="reference")

        with pytest.raises(InvalidInputError, match="indices 3 to 9 are outside"):
            model.run({"x": np.array([3, 9])})


class TestThreads:
    def test_one_model_for_many_callers(self) -> None:
        """Four threads, different inputs and batches: each gets its own answer."""
        file = graph(
            [
                node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
                node("Add", "c x", "r"),
                node("Relu", "r"),
            ],
            {"x": (F, ("n", 8, 24, 24))},
            {"w": draw(F, (8, 8, 3, 3))},
        )
        model = load(file)
        feeds = [{"x": draw(F, (1 + i % 3, 8, 24, 24), i)} for i in range(24)]
        alone = [model.run(f)["y"] for f in feeds]

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda f: model.run(f)["y"], feeds * 4))

        for i, found in enumerate(together):
            np.testing.assert_array_equal(found, alone[i % len(feeds)])

    def test_two_threads_give_what_one_gives(self) -> None:
        feeds = {"x": draw(F, (40, 64))}

        one = load(perceptron(), threads=1).run(feeds)["y"]
        two = load(perceptron(), threads=2).run(feeds)["y"]

        assert difference(two, one) < 1e-6


class TestExplain:
    def test_a_row_a_layer(self) -> None:
        # By the cost model: what is measured may differ from run to run.
        model = load(perceptron(), tuning_seconds=0)

        rows = [row for row in model.explain() if row["bytes"] is not None]

        assert [row["op"] for row in rows] == ["Linear", "Linear"]
        sparse, dense = rows
        assert sparse["density"] == 0.25
        assert sparse["block"] in (4, 8, 16)
        assert 4 in sparse["blocks_found"]
        assert sparse["kernel"].split("_")[:2] == ["spmm", f"b{sparse['block']}"]
        assert sparse["bytes"] < 0.5 * sparse["dense_bytes"]
        assert dense["density"] == 1.0
        assert dense["block"] is None
        assert dense["reason"].startswith("no weight is zero")
        assert model.nbytes >= sparse["bytes"] + dense["bytes"]

    def test_times_after_measuring(self) -> None:
        model = load(perceptron())
        assert all(row["ms"] is None for row in model.explain())

        model.measure({"x": draw(F, (1, 64))})

        assert all(row["ms"] >= 0 for row in model.explain() if row["op"] == "Linear")


class TestLoad:
    def test_refuses_what_is_not_there(self) -> None:
        for settings, message in (
            ({"precision": "int8"}, "there are fp32, fp16, bf16"),
            ({"backend": "cuda"}, "'cuda' is not available"),
            ({"backend": "tpu"}, "there are auto, reference, cpu, cuda"),
            ({"threads": 0}, "threads must be"),
        ):
            with pytest.raises(ImpossibleError, match=message):
                load(perceptron(), **settings)

    def test_path_and_bytes(self, tmp_path: Any) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(perceptron())
        feeds = {"x": draw(F, (2, 64))}

        found = load(str(path), backend="reference").run(feeds)["y"]

        expected = load(perceptron(), backend="reference").run(feeds)["y"]
        np.testing.assert_array_equal(found, expected)

    def test_missing_file(self, tmp_path: Any) -> None:
        with pytest.raises(InvalidModelError, match=r"none\.onnx: No such file"):
            load(tmp_path / "none.onnx")

    def test_values_that_take_too_much_memory(self) -> None:
        pads = np.array([0, 0, 20000, 0, 0, 0, 20000, 0])
        nodes = [node("Pad", "x p", "q"), node("Conv", "q w", "c"), node("Relu", "c")]
        file = graph(
            nodes,
            {"x": (F, (1, 1, 40, 40))},
            {"p": pads, "w": np.ones((900, 1, 1, 1), F)},
        )

        with pytest.raises(InvalidModelError, match="bytes at once"):
            load(file, backend="reference")

    def test_shape_that_depends_on_data(self) -> None:
        file = graph(
            [node("Reshape", "x s")], {"x": (F, (2, 6)), "s": (np.int64, (2,))}
        )

        with pytest.raises(UnsupportedModelError, match="depends on data") as refused:
            load(file, backend="reference")

        assert len(refused.value.nodes) == 1
