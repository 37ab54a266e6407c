from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nnz_service.engine.pruning import prune, totals
from nnz_service.errors import ImpossibleError, InvalidModelError

Weights = dict[str, NDArray[Any]]


def model(nodes: Sequence[onnx.NodeProto], weights: Weights) -> onnx.ModelProto:
    """A valid model of these nodes; its input is ``x``, its output the last value."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])],
        [
            helper.make_tensor_value_info(
                nodes[-1].output[0], TensorProto.FLOAT, ["n", "k"]
            )
        ],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(op: str, *inputs: str, out: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], name=f"{op}_{out}", **attributes)


def weights_of(proto: onnx.ModelProto, name: str = "w") -> NDArray[Any]:
    return next(
        numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name
    )


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def zero_blocks(matrix: NDArray[Any], block: int) -> float:
    """Share of blocks of `block` rows, one column each, that are all zero; (oc, k)."""
    cut = matrix.reshape(-1, block, matrix.shape[1])
    return float((cut == 0).all(axis=1).mean())


class TestMagnitude:
    def test_by_hand(self) -> None:
        """
        Of two block rows by two columns the two lightest blocks go, whole.
        """
        w = np.array([[1, 9], [2, 9], [5, 0], [5, 1]], dtype=np.float32)

        pruned, rows = prune(
            model([node("Gemm", "x", "w", transB=1)], {"w": w}), 0.5, 2
        )

        # Means: 1.5 and 9 in the first block row, 5 and 0.5 in the second.
        assert weights_of(pruned).tolist() == [[0, 9], [0, 9], [5, 0], [5, 0]]
        assert rows[0]["block"] == 2
        assert rows[0]["density_before"] == 7 / 8
        assert rows[0]["density_after"] == 0.5

    def test_sign_does_not_count(self) -> None:
        """
        A large negative weight stays, a small positive one goes.
        """
        w = np.array([[-9.0], [1.0]], dtype=np.float32)

        pruned, _ = prune(model([node("Gemm", "x", "w", transB=1)], {"w": w}), 0.5, 1)

        assert weights_of(pruned).tolist() == [[-9.0], [0.0]]

    def test_ties_go_in_storage_order(self) -> None:
        """
        Equal scores: the blocks stored first are dropped, every time.
        """
        w = np.ones((8, 3), dtype=np.float32)

        pruned, _ = prune(model([node("Gemm", "x", "w", transB=1)], {"w": w}), 0.5, 4)

        assert weights_of(pruned)[:4].tolist() == [[0] * 3] * 4
        assert weights_of(pruned)[4:].tolist() == [[1] * 3] * 4

    @pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
    def test_exact_count(self, block: int, sparsity: float) -> None:
        """
        The number of blocks dropped is the asked share, to the nearest block.
        """
        w = normal(48, 35)

        pruned, _ = prune(
            model([node("Gemm", "x", "w", transB=1)], {"w": w}), sparsity, block
        )

        count = 48 // block * 35
        dropped = zero_blocks(weights_of(pruned), block) * count
        assert round(dropped) == int(sparsity * count + 0.5)

    def test_kept_weights_do_not_change(self) -> None:
        """
        What is not zero afterwards is bit for bit what it was.
        """
        w = normal(32, 20)

        pruned, _ = prune(model([node("Gemm", "x", "w", transB=1)], {"w": w}), 0.7, 4)

        after = weights_of(pruned)
        assert np.array_equal(after[after != 0], w[after != 0])

    def test_heavier_blocks_stay(self) -> None:
        """
        No dropped block has a larger mean magnitude than one that stays.
        """
        w = normal(32, 20)

        pruned, _ = prune(model([node("Gemm", "x", "w", transB=1)], {"w": w}), 0.6, 4)

        score = np.abs(w).reshape(8, 4, 20).mean(axis=1)
        gone = (weights_of(pruned).reshape(8, 4, 20) == 0).all(axis=1)
        assert score[gone].max() <= score[~gone].min()


class TestLayouts:
    """Output channels lie elsewhere in each operator; the blocks follow them."""

    def test_matmul_blocks_are_columns(self) -> None:
        """
        MatMul keeps output channels in columns: blocks span columns.
        """
        w = normal(20, 32)

        pruned, _ = prune(model([node("MatMul", "x", "w")], {"w": w}), 0.75, 4)

        assert zero_blocks(weights_of(pruned).T, 4) == 0.75

    def test_gemm_without_transpose(self) -> None:
        """
        Gemm with transB 0 prunes what MatMul prunes.
        """
        w = normal(20, 32)

        gemm, _ = prune(model([node("Gemm", "x", "w", transB=0)], {"w": w}), 0.75, 4)
        matmul, _ = prune(model([node("MatMul", "x", "w")], {"w": w}), 0.75, 4)

        assert np.array_equal(weights_of(gemm), weights_of(matmul))

    def test_convolution(self) -> None:
        """
        A 3x3 convolution is pruned tap by tap, over all of (ic, kh, kw).
        """
        w = normal(16, 8, 3, 3)

        pruned, rows = prune(model([node("Conv", "x", "w")], {"w": w}), 0.5, 8)

        assert zero_blocks(weights_of(pruned).reshape(16, -1), 8) == 0.5
        assert rows[0]["shape"] == [16, 8, 3, 3]

    def test_groups_are_not_crossed(self) -> None:
        """
        Six channels a group: blocks of four would cross groups, two do not.
        """
        w = normal(12, 8, 1, 1)

        _, rows = prune(model([node("Conv", "x", "w", group=2)], {"w": w}), 0.5, 4)

        assert rows[0]["block"] == 2
        assert rows[0]["note"] == "blocks of 2: 4 does not divide 6 outputs"

    def test_through_transpose_and_reshape(self) -> None:
        """
        A weight that reaches MatMul through a reshape and a transpose is found.
        """
        stored = normal(8, 3, 4)  # becomes (8, 12), then (12, 8)
        nodes = [
            node("Reshape", "w", "shape", out="flat"),
            node("Transpose", "flat", out="wt", perm=[1, 0]),
            node("MatMul", "x", "wt"),
        ]
        shape = np.array([0, -1], dtype=np.int64)

        pruned, rows = prune(model(nodes, {"w": stored, "shape": shape}), 0.5, 4)

        assert zero_blocks(weights_of(pruned).reshape(8, 12), 4) == 0.5
        assert rows[0]["shape"] == [12, 8]

    def test_constant_node(self) -> None:
        """
        A weight in a Constant node is pruned where it stands.
        """
        value = numpy_helper.from_array(normal(8, 4))
        nodes = [
            helper.make_node("Constant", [], ["w"], value=value),
            node("MatMul", "x", "w"),
        ]

        pruned, _ = prune(model(nodes, {}), 0.5, 4)

        after = numpy_helper.to_array(pruned.graph.node[0].attribute[0].t)
        assert np.count_nonzero(after) == 16

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_keeps_the_type(self, dtype: type[np.generic]) -> None:
        """
        Half and double weights stay half and double.
        """
        proto = model([node("MatMul", "x", "w")], {"w": normal(8, 4).astype(dtype)})
        proto.graph.input[
            0
        ].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        proto.graph.output[0].type.CopyFrom(proto.graph.input[0].type)

        pruned, _ = prune(proto, 0.5, 1)

        assert weights_of(pruned).dtype == dtype
        assert np.count_nonzero(weights_of(pruned)) == 16


class TestWhatStays:
    def test_biases_and_first_and_depthwise(self) -> None:
        """
        The first convolution, depthwise ones and biases keep every bit, and say why.
        """
        weights: Weights = {
            "first": normal(8, 3, 3, 3),
            "deep": normal(8, 1, 3, 3),
            "point": normal(16, 8, 1, 1),
            "bias": normal(16),
        }
        nodes = [
            node("Conv", "x", "first", out="a"),
            node("Conv", "a", "deep", out="b", group=8),
            node("Conv", "b", "point", "bias"),
        ]

        pruned, rows = prune(model(nodes, weights), 0.5, 4)

        for name in ("first", "deep", "bias"):
            assert np.array_equal(weights_of(pruned, name), weights[name])
        assert [row["block"] for row in rows] == [None, None, 4]
        assert rows[0]["note"] == "kept: has only 3 input channel(s)"
        assert rows[1]["note"] == "kept: depthwise"

    def test_first_when_asked(self) -> None:
        """
        With ``first`` the convolution of the picture is pruned as well.
        """
        proto = model([node("Conv", "x", "w")], {"w": normal(8, 3, 3, 3)})

        pruned, rows = prune(proto, 0.5, 4, first=True)

        assert rows[0]["density_after"] == 0.5
        assert np.count_nonzero(weights_of(pruned)) == 108

    def test_graph_is_unchanged(self) -> None:
        """
        But for the weights the two files are the same, and the argument is untouched.
        """
        proto = model([node("MatMul", "x", "w")], {"w": normal(8, 8)})
        before = proto.SerializeToString()

        pruned, _ = prune(proto, 0.5, 4)

        assert proto.SerializeToString() == before
        pruned.graph.initializer[0].CopyFrom(proto.graph.initializer[0])
        assert pruned.SerializeToString() == before


class TestShared:
    def test_read_alike_is_pruned_once(self) -> None:
        """
        Two layers that cut one tensor the same way share the result.
        """
        nodes = [node("MatMul", "x", "w", out="a"), node("MatMul", "a", "w")]

        pruned, rows = prune(model(nodes, {"w": normal(16, 16)}), 0.5, 4)

        assert np.count_nonzero(weights_of(pruned)) == 128
        assert [row["density_after"] for row in rows] == [0.5, 0.5]

    def test_cut_otherwise_is_kept(self) -> None:
        """
        A tensor whose output channels are rows here and columns there is left alone.
        """
        nodes = [
            node("MatMul", "x", "w", out="a"),
            node("Gemm", "a", "w", out="b", transB=1),
            node("MatMul", "b", "v"),
        ]
        weights: Weights = {"w": normal(16, 16), "v": normal(16, 16, seed=1)}

        pruned, rows = prune(model(nodes, weights), 0.5, 4)

        assert np.array_equal(weights_of(pruned), weights["w"])
        assert [row["block"] for row in rows] == [None, None, 4]
        assert "shared with one another" in rows[0]["note"]

    def test_other_reader_is_named(self) -> None:
        """
        A tensor that an Add reads too is left alone, and the Add is named.
        """
        nodes = [
            node("MatMul", "x", "w", out="a"),
            node("Add", "a", "w", out="b"),
            node("MatMul", "b", "v"),
        ]
        weights: Weights = {"w": normal(16, 16), "v": normal(16, 16, seed=1)}

        pruned, rows = prune(model(nodes, weights), 0.5, 4)

        assert np.array_equal(weights_of(pruned), weights["w"])
        assert "Add_b" in rows[0]["note"]


class TestGlobal:
    def two_layers(self) -> onnx.ModelProto:
        """The second layer's weights are a hundred times those of the first."""
        nodes = [node("MatMul", "x", "w", out="a"), node("MatMul", "a", "v")]
        return model(nodes, {"w": normal(32, 32), "v": 100 * normal(32, 64, seed=1)})

    def test_budget_over_all_layers(self) -> None:
        """
        The model as a whole has the asked sparsity, to the nearest block.
        """
        _, rows = prune(self.two_layers(), 0.8, 4, scope="global")

        assert totals(rows)["density_after"] == pytest.approx(0.2, abs=4 / 3072)

    def test_scale_of_a_layer_does_not_matter(self) -> None:
        """
        Scores are normalised: the layer of small numbers is not pruned away.
        """
        _, rows = prune(self.two_layers(), 0.8, 4, scope="global")

        assert all(0.1 < row["density_after"] < 0.3 for row in rows)

    def test_every_layer_keeps_something(self) -> None:
        """
        Even a budget of one in a hundred leaves each layer its largest block.
        """
        _, rows = prune(self.two_layers(), 0.99, 4, scope="global")

        assert all(row["density_after"] > 0 for row in rows)

    def test_spreads_where_it_costs_least(self) -> None:
        """
        A layer with few large weights loses more than one where all are alike.
        """
        peaked = normal(32, 32) ** 5
        even = np.sign(normal(32, 32, seed=1)) * np.float32(1)
        nodes = [node("MatMul", "x", "w", out="a"), node("MatMul", "a", "v")]

        _, rows = prune(model(nodes, {"w": peaked, "v": even}), 0.5, 1, scope="global")

        assert rows[0]["density_after"] < rows[1]["density_after"]


class TestErrors:
    @pytest.mark.parametrize(
        ("sparsity", "block", "scope", "message"),
        [
            pytest.param(1.0, 4, "layer", "0 <= s < 1", id="all"),
            pytest.param(-0.1, 4, "layer", "0 <= s < 1", id="negative"),
            pytest.param(float("nan"), 4, "layer", "0 <= s < 1", id="no number"),
            pytest.param(0.5, 3, "layer", "one of", id="block"),
            pytest.param(0.5, 4, "model", "'global'", id="scope"),
        ],
    )
    def test_arguments(
        self, sparsity: float, block: int, scope: Any, message: str
    ) -> None:
        """
        Numbers out of range are refused with the range.
        """
        proto = model([node("MatMul", "x", "w")], {"w": normal(8, 8)})

        with pytest.raises(ImpossibleError, match=message):
            prune(proto, sparsity, block, scope=scope)

    def test_nothing_to_prune(self) -> None:
        """
        A model whose only weights are of the picture says so.
        """
        proto = model([node("Conv", "x", "w")], {"w": normal(8, 1, 3, 3)})

        with pytest.raises(ImpossibleError, match=r"has only 1 input .* \(1 layers\)"):
            prune(proto, 0.5)

    def test_not_a_model(self) -> None:
        """
        Bytes that are no model are refused as such.
        """
        with pytest.raises(InvalidModelError, match="not a valid ONNX model"):
            prune(b"\xff\xfenot a model", 0.5)

    def test_no_such_file(self, tmp_path: Path) -> None:
        """
        A missing file is a missing file.
        """
        with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
            prune(tmp_path / "none.onnx", 0.5)

    def test_nan(self) -> None:
        """
        NaN has no magnitude; the tensor is named.
        """
        w = normal(8, 8)
        w[3, 3] = np.nan

        with pytest.raises(InvalidModelError, match="weights w hold NaN"):
            prune(model([node("MatMul", "x", "w")], {"w": w}), 0.5)


class TestRealModels:
    @pytest.mark.parametrize("scope", ["layer", "global"])
    @pytest.mark.parametrize(
        "name",
        [
            "mobilenet_v1_0.75_224",
            "squeezenet_v1.0_deepcompression_sparse",
            "resnet20_cifar10",
            "mnist-8",
            "kwt1_mfcc",
        ],
    )
    def test_prunable_layers_reach_the_sparsity(
        self, data_dir: Path, name: str, scope: Any
    ) -> None:
        """
        Over all pruned layers four of five weights are zero, or more were before.
        """
        _, rows = prune(data_dir / "models" / f"{name}.onnx", 0.8, 4, scope=scope)

        taken = [row for row in rows if row["block"]]
        assert taken
        assert totals(taken)["density_after"] <= 0.2 + 1e-3
