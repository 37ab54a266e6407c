from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx_graphs import graph, node
from prunable_models import model, normal
from prunable_models import node as layer

if TYPE_CHECKING:
    from service.cli.conftest import Runner

QUICK = ("--threads", "1", "--rounds", "3")
PEER = ("--peer", "onnxruntime")


class TestBench:
    def test_several_models_with_a_peer(
        self, nnz: Runner, sparse_model: Path, dense_model: Path, tmp_path: Path
    ) -> None:
        """
        A record a model, of one shape; the file holds what was printed.
        """
        out = tmp_path / "results.json"

        found = nnz.json(
            "bench", sparse_model, dense_model, *QUICK, *PEER, "--batch", "3",
            "--out", out,
        )  # fmt: skip

        assert json.loads(out.read_text()) == found
        assert {*found} == {
            "date", "processor", "vector_bits", "versions", "threads", "pinned",
            "rounds", "results", "backend",
        }  # fmt: skip
        assert (found["threads"], found["rounds"]) == (1, 3)
        assert found["pinned"] == (sys.platform == "linux")
        sparse, dense = found["results"]
        assert [sparse["model"], dense["model"]] == [
            str(sparse_model),
            str(dense_model),
        ]
        assert sparse["shapes"] == {"x": [3, 1, 16, 16]}
        ours, theirs = sparse["systems"]["nnz"], sparse["systems"]["onnxruntime"]
        assert {*ours} == {*theirs} == {
            "median_ms", "p10_ms", "p90_ms", "images_per_second", "weight_bytes",
            "resident_weights", "resident_weights_trimmed", "peak_rss",
        }  # fmt: skip
        assert ours["images_per_second"] == pytest.approx(3e3 / ours["median_ms"])
        assert 0 < ours["weight_bytes"] < dense["systems"]["nnz"]["weight_bytes"]
        assert min(ours["peak_rss"], theirs["peak_rss"]) > 10e6
        peer = sparse["peers"]["onnxruntime"]
        assert peer["max_relative_difference"] <= 1e-4
        assert peer["ratio"] == theirs["median_ms"] / ours["median_ms"]
        assert peer["ratio_p10"] <= peer["ratio_p90"]

    def test_missing_peer(
        self, nnz: Runner, sparse_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A peer that is not installed is refused before anything is measured.
        """
        monkeypatch.setitem(sys.modules, "MNN", None)  # no import finds it

        result = nnz("bench", sparse_model, *QUICK, *PEER, "--peer", "mnn")

        assert result.exit_code == 1
        assert "the peer mnn is not installed: pip install MNN" in result.stderr

    def test_answers_that_differ(self, nnz: Runner, tmp_path: Path) -> None:
        """
        What is not a number agrees with nothing: times, no ratio, and exit code 1.
        """
        path = tmp_path / "nan.onnx"
        path.write_bytes(graph([node("Sqrt", "x")], {"x": (np.float32, ["n", 64])}))

        result = nnz("bench", path, *QUICK, *PEER)

        assert result.exit_code == 1
        assert "median ms" in result.stdout
        assert "times as long" not in result.stdout
        assert "the answers of onnxruntime differ without bound" in result.stderr


class TestSweep:
    def test_record(self, nnz: Runner, dense_model: Path) -> None:
        """
        A line a block, a point a sparsity; sparsities are put in order.
        """
        found = nnz.json(
            "bench", dense_model, *QUICK, *PEER, "--sweep", "--block", "4",
            "--sparsities", "0.9,0",
        )  # fmt: skip

        (line,) = found["results"][0]["sweep"]
        assert {*line} == {"block", "correlation", "break_even", "points"}
        assert [p["sparsity"] for p in line["points"]] == [0, 0.9]
        assert {*line["break_even"]} == {"onnxruntime"}
        assert {*line["points"][0]} == {"sparsity", "density", "systems", "peers"}

    def test_table(self, nnz: Runner, dense_model: Path) -> None:
        """
        For people: a row a point, both blocks, and what each line says.
        """
        result = nnz(
            "bench", dense_model, *QUICK, *PEER, "--sweep", "--sparsities", "0.5,0.9"
        )

        assert result.exit_code == 0
        assert "onnxruntime ratio" in result.stdout
        assert "1x1: correlation of time and density" in result.stdout
        assert "1x4: as fast as dense onnxruntime" in result.stdout

    def test_alone(self, nnz: Runner, dense_model: Path) -> None:
        """
        Without a peer there is no ratio and nothing to break even with.
        """
        result = nnz(
            "bench", dense_model, *QUICK, "--no-pin", "--sweep", "--block", "2",
            "--sparsities", "0.5",
        )  # fmt: skip

        assert result.exit_code == 0, result.output
        assert "1x2" in result.stdout
        assert "ratio" not in result.stdout
        assert "as fast as" not in result.stdout

    def test_answers_that_differ(self, nnz: Runner, tmp_path: Path) -> None:
        """
        The point where a peer differs is named; the exit code is 1, JSON has no ratio.
        """
        path = tmp_path / "nan.onnx"
        layers = [layer("MatMul", "x", "w", out="h"), layer("Sqrt", "h")]
        path.write_bytes(model(layers, {"w": normal(8, 8)}).SerializeToString())

        result = nnz(
            "bench", path, *QUICK, *PEER, "--sweep", "--block", "4",
            "--sparsities", "0.5", "--shape", "x=4x8", "--json",
        )  # fmt: skip

        assert result.exit_code == 1
        assert "nan.onnx, 50% in 1x4: the answers of onnxruntime" in result.stderr
        (line,) = json.loads(result.stdout)["results"][0]["sweep"]
        assert line["break_even"] == {"onnxruntime": None}
        assert line["points"][0]["peers"]["onnxruntime"] == {
            "max_relative_difference": None, "agrees": False, "ratio": None,
            "ratio_p10": None, "ratio_p90": None,
        }  # fmt: skip

    @pytest.mark.parametrize("text", ["0.5,1", "-0.1", "nan", "0.5,,0.9", "half", ""])
    def test_bad_sparsities(self, text: str, nnz: Runner, dense_model: Path) -> None:
        """
        What is no list of shares below 1 is refused with an example of one.
        """
        result = nnz("bench", dense_model, "--sweep", "--sparsities", text)

        assert result.exit_code == 2
        assert "is no list of numbers 0 <= S < 1" in " ".join(result.stderr.split())

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--sweep", "--block", "3"), "3 is not 1, 2, 4, 8 or 16"),
            (("--block", "4"), "only with --sweep"),
            (("--sparsities", "0.5"), "only with --sweep"),
            (("--plot", "a.png"), "only with --sweep"),
            (("--sweep", "--plot", "a.txt"), "a.txt is no .png"),
            (("--out", "no/such/folder/a.json"), "there is no folder no/such/folder"),
        ],
    )
    def test_wrong_usage(
        self, words: tuple[str, ...], said: str, nnz: Runner, dense_model: Path
    ) -> None:
        """
        Options that make no sense are refused before anything is measured.
        """
        result = nnz("bench", dense_model, *words)

        assert result.exit_code == 2
        assert said in " ".join(result.stderr.replace("│", " ").split())


class TestPlot:
    def test_of_a_sweep(self, nnz: Runner, dense_model: Path, tmp_path: Path) -> None:
        """
        A PNG of 1000 by 600 pixels, which its header says.
        """
        if importlib.util.find_spec("matplotlib") is None:
            pytest.skip("matplotlib is not installed: pip install 'nnz-server[plot]'")
        target = tmp_path / "sweep.png"

        result = nnz(
            "bench", dense_model, *QUICK, *PEER, "--sweep", "--sparsities", "0,0.9",
            "--plot", target,
        )  # fmt: skip

        assert result.exit_code == 0, result.output
        header = target.read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        size = [int.from_bytes(header[i : i + 4]) for i in (16, 20)]
        assert size == [1000, 600]

    def test_without_matplotlib(
        self,
        nnz: Runner,
        dense_model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        Without matplotlib the extra is named, before anything is measured.
        """
        monkeypatch.setitem(sys.modules, "matplotlib", None)  # no import finds it

        result = nnz(
            "bench", dense_model, *QUICK, "--sweep", "--plot", tmp_path / "a.png"
        )

        assert result.exit_code == 1
        assert "pip install 'nnz-server[plot]'" in result.stderr

    def test_one_model_alone(
        self, nnz: Runner, dense_model: Path, tmp_path: Path
    ) -> None:
        """
        Two models have no one picture.
        """
        result = nnz(
            "bench", dense_model, dense_model, "--sweep", "--plot", tmp_path / "a.png"
        )

        assert result.exit_code == 2
        assert "draws one model, not more" in result.stderr
