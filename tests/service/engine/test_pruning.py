from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from prunable_models import model, node, normal, weights_of, zero_blocks

from nnz_service.engine.pruning import prune, totals
from nnz_service.errors import ImpossibleError, InvalidModelError


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
