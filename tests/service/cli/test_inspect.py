from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from service.cli.conftest import Runner


@pytest.fixture
def strange_model(tmp_path: Path) -> Path:
    """A valid model with two nodes that no sparse engine has a use for."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4])
        for name in ("x", "y")
    )
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="determinant"),
        helper.make_node("Add", ["x", "d"], ["s"], name="sum"),
        helper.make_node("Bernoulli", ["s"], ["y"], name="coin"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "strange.onnx"
    onnx.save_model(model, str(path))
    return path


def in_terminal(columns: int, *words: str) -> list[str]:
    """Run ``nnz`` in a terminal so wide; returns its lines without trailing blanks."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, columns, 0, 0))
    with subprocess.Popen(
        [Path(sys.executable).with_name("nnz"), *words],
        stdout=theirs,
        env={**os.environ, "TERM": "dumb"},
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side closed
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
    assert process.returncode == 0
    return [line.rstrip() for line in shown.decode().splitlines()]


class TestInspect:
    def test_layers_of_the_pruned_network(
        self, nnz: Runner, sparse_model: Path
    ) -> None:
        """
        A row a layer: the seven pruned ones run sparse and store a fraction.
        """
        found = nnz.json("inspect", sparse_model)

        assert found["inputs"] == [
            {"name": "x", "dtype": "FP32", "shape": [None, 1, 16, 16]}
        ]
        sparse = [row for row in found["layers"] if row["block"]]
        assert len(sparse) >= 5
        for row in sparse:
            assert row["density"] == pytest.approx(0.1, abs=0.01)
            assert row["bytes"] < row["dense_bytes"] / 3

    def test_dense_network_is_dense(self, nnz: Runner, dense_model: Path) -> None:
        """
        Nothing pruned, nothing sparse.
        """
        rows = nnz.json("inspect", dense_model)["layers"]

        weighted = [row for row in rows if row["bytes"]]
        assert weighted
        assert not any(row["block"] for row in weighted)
        assert np.isclose([row["density"] for row in weighted], 1).all()

    def test_table(self, nnz: Runner, sparse_model: Path) -> None:
        """
        For people: the signature, a row a layer, the sum of the bytes.
        """
        result = nnz("inspect", sparse_model)

        assert result.exit_code == 0
        assert "x FP32 [?, 1, 16, 16]" in result.stdout
        header = next(s for s in result.stdout.splitlines() if "layer" in s)
        assert header.split()[:4] == ["layer", "op", "gives", "weights"]
        assert "1x192x8x8" in result.stdout
        assert "192x128x1x1" in result.stdout
        assert "1x4" in result.stdout
        assert "dense they would be" in result.stdout

    def test_narrow_terminal(self, sparse_model: Path) -> None:
        """
        In 80 columns a layer is a line and every number whole; a note says what is
        not shown.
        """
        lines = in_terminal(80, "inspect", str(sparse_model))

        assert max(map(len, lines)) <= 80
        (layer,) = (line for line in lines if "/8/8.0/Conv" in line)
        *known, kernel, nbytes = layer.split()
        assert known == ["/8/8.0/Conv", "10.0%", "1x4"]
        assert kernel.startswith("spmm_b")  # which one is measured, not foreseen
        assert re.fullmatch(r"\d\d,\d\d\d", nbytes)
        assert "not shown for want of room: reason, op, gives, weights, dense" in lines

    def test_unsupported_nodes(self, nnz: Runner, strange_model: Path) -> None:
        """
        Every node that cannot run is named, the one that can is not; exit code 1.
        """
        result = nnz("inspect", strange_model)

        assert result.exit_code == 1
        assert "unsupported nodes (2)" in result.stderr
        assert "determinant" in result.stderr
        assert "coin" in result.stderr
        assert "sum (" not in result.stderr

    def test_unsupported_nodes_as_json(self, nnz: Runner, strange_model: Path) -> None:
        """
        Programs get the same list, and the same exit code.
        """
        import json

        result = nnz("inspect", strange_model, "--json")

        assert result.exit_code == 1
        assert len(json.loads(result.stdout)["nodes"]) == 2
