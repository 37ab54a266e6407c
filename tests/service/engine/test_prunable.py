from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from prunable_models import Weights, model, node, normal, weights_of, zero_blocks

from nnz_service.engine.pruning import prune


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
