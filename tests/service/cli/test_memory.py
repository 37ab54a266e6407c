from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import graph, node

from nnz_service.cli import _memory
from nnz_service.cli._peers import Problem
from nnz_service.engine import load
from nnz_service.errors import ImpossibleError

#: Bytes by which a process may be larger than its arrays: pages, tables, buffers.
SLACK = 8e6


class TestPeakMemory:
    def test_counts_what_was_freed(self) -> None:
        """
        A hundred megabytes touched and freed stay in the peak.
        """
        before = _memory.peak_memory()
        block = np.ones(before // 8 + 12_500_000)  # more than was ever resident
        del block

        assert _memory.peak_memory() >= before + 90e6


class TestMemoryOf:
    def test_weights_are_what_loading_adds(self, tmp_path: Path) -> None:
        """
        What dense weights take agrees with what the model says that it holds.
        """
        path = tmp_path / "wide.onnx"
        weights = np.full((3072, 3072), 0.5, np.float32)
        inputs = {"x": (np.float32, [1, 3072])}
        path.write_bytes(graph([node("MatMul", "x w")], inputs, {"w": weights}))
        problem = Problem({"x": ("FP32", (1, 3072))}, ("y",))

        found = _memory.memory_of("nnz", path, 1, problem)

        resident, trimmed = (
            found[f"resident_weights{suffix}"] for suffix in ("", "_trimmed")
        )
        if resident is None or trimmed is None:
            pytest.skip("this system has no /proc, or a malloc that cannot be trimmed")
        assert trimmed == pytest.approx(load(path).nbytes, abs=SLACK)
        assert resident >= trimmed
        assert found["peak_rss"] > trimmed + weights.nbytes  # the file, as it is read

    def test_of_a_peer(self, sparse_model: Path) -> None:
        """
        A peer has a peak; what it holds for weights is not known.
        """
        problem = Problem({"x": ("FP32", (1, 1, 16, 16))}, ("logits",))

        found = _memory.memory_of("onnxruntime", sparse_model, 1, problem)

        assert found["peak_rss"] > 10e6
        assert found["resident_weights"] is None

    @pytest.mark.parametrize("name", ["nnz", "onnxruntime"])
    def test_child_that_fails(self, name: str, tmp_path: Path) -> None:
        """
        What ends the measuring process is told once, without the name of its class.
        """
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"\xff")

        with pytest.raises(ImpossibleError) as caught:
            _memory.memory_of(name, broken, 1, Problem({}, ()))

        assert str(caught.value).startswith(f"{name} could not run")
        assert str(caught.value).count("could not run") == 1
        assert "Error:" not in str(caught.value).partition("broken.onnx")[0]
