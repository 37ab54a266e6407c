from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

if TYPE_CHECKING:
    from service.cli.conftest import Runner

from nnz_service.engine.pruning import prune


class TestPrune:
    def test_writes_what_the_library_makes(
        self, nnz: Runner, dense_model: Path, tmp_path: Path
    ) -> None:
        """
        The file is the library's result, byte for byte, and the report its rows.
        """
        out = tmp_path / "out.onnx"

        report = nnz.json(
            "prune", dense_model, out, "--sparsity", "0.7", "--block", "2"
        )

        expected, rows = prune(dense_model, 0.7, 2)
        assert onnx.load(str(out)) == expected
        assert report["layers"] == rows
        assert report["total"]["density_after"] < 0.35

    def test_table_names_every_layer(
        self, nnz: Runner, dense_model: Path, tmp_path: Path
    ) -> None:
        """
        For people: a row a layer, what fell back and what was kept, the total.
        """
        result = nnz("prune", dense_model, tmp_path / "out.onnx", "--sparsity", "0.8")

        assert result.exit_code == 0
        assert result.stdout.count("kept: depthwise") == 5
        assert "blocks of 2: 4 does not divide 10 outputs" in result.stdout
        assert "112,640 weights, density 100.0% -> 23.7%" in result.stdout

    def test_scope_global(self, nnz: Runner, dense_model: Path, tmp_path: Path) -> None:
        """
        One budget for the model: layers differ in density.
        """
        report = nnz.json(
            "prune", dense_model, tmp_path / "o.onnx", "--sparsity", "0.8",
            "--scope", "global",
        )  # fmt: skip

        after = [row["density_after"] for row in report["layers"] if row["block"]]
        assert np.ptp(after) > 0.05

    def test_first(self, nnz: Runner, dense_model: Path, tmp_path: Path) -> None:
        """
        ``--first`` reaches the convolution of the picture.
        """
        out = tmp_path / "out.onnx"

        nnz.json("prune", dense_model, out, "--sparsity", "0.5", "--first")

        graph = onnx.load(str(out)).graph
        name = graph.node[0].input[1]
        first = next(t for t in graph.initializer if t.name == name)
        assert np.count_nonzero(numpy_helper.to_array(first)) == 144

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            pytest.param(["--sparsity", "1"], "must be below 1", id="everything"),
            pytest.param(["--sparsity", "-1"], "be greater", id="negative"),
            pytest.param(
                ["--sparsity", "0.5", "--block", "3"], "3 is not 1, 2", id="block"
            ),
            pytest.param(["--sparsity", "0.5", "--scope", "all"], "all", id="scope"),
        ],
    )
    def test_usage(
        self,
        nnz: Runner,
        dense_model: Path,
        tmp_path: Path,
        words: list[str],
        message: str,
    ) -> None:
        """
        Numbers that cannot be are wrong usage, and nothing is written.
        """
        out = tmp_path / "out.onnx"

        result = nnz("prune", dense_model, out, *words)

        assert result.exit_code == 2
        assert message in result.stderr
        assert not out.exists()
