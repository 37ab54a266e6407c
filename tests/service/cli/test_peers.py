from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import graph, node
from prunable_models import model, normal
from prunable_models import node as layer

from nnz_service.cli import _measure, _mnn, _peers
from nnz_service.cli.bench import Peer
from nnz_service.engine.pruning import prune
from nnz_service.errors import ImpossibleError


def skip_without(peer: str) -> None:
    package = _peers.PACKAGES[peer]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the peer {peer} is not installed: pip install {package}")


class TestRequire:
    @pytest.mark.parametrize(
        ("peer", "package"),
        [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("mnn", "MNN")],
    )
    def test_missing(
        self, peer: str, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A peer that is not installed is refused with the command that installs it.
        """
        monkeypatch.setitem(sys.modules, package, None)  # no import finds it

        with pytest.raises(ImpossibleError, match=f"{peer} .*: pip install {package}$"):
            _peers.require(peer)

    def test_the_command_line_knows_all(self) -> None:
        """
        Every peer that can be asked for can be installed and opened.
        """
        names = {peer.value for peer in Peer}

        assert names == set(_peers.PACKAGES) == set(_peers.OPENERS) - {"nnz"}


class TestOpenSystem:
    @pytest.mark.parametrize("peer", sorted(_peers.PACKAGES))
    @pytest.mark.parametrize("block", [1, 4])
    def test_same_answers(
        self,
        peer: str,
        block: int,
        dense_model: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """
        A pruned model of free batch, through each peer, without a word.
        """
        skip_without(peer)
        path = tmp_path / "pruned.onnx"
        path.write_bytes(prune(dense_model, 0.8, block)[0].SerializeToString())
        problem = _measure.problem_of(path, 3, [])

        systems = {
            name: _peers.open_system(
                name, _peers.convert(name, path, tmp_path), 1, problem
            )
            for name in ("nnz", peer)
        }

        assert _measure.compare(systems, problem, (0, 1))[peer] <= _measure.TOLERANCE
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("peer", sorted(_peers.PACKAGES))
    def test_inputs_of_other_types(self, peer: str, tmp_path: Path) -> None:
        """
        Indices and floats, two inputs and two outputs, keep their names.
        """
        skip_without(peer)
        path = tmp_path / "words.onnx"
        nodes = [node("Gather", "table ids", "a"), node("Add", "a p", "b")]
        inputs = {"ids": (np.int64, [2, 3]), "p": (np.float32, [2, 3, 8])}
        constants = {"table": normal(4, 8)}
        path.write_bytes(graph(nodes, inputs, constants, "a b"))
        problem = _measure.problem_of(path, 1, [])
        file = _peers.convert(peer, path, tmp_path)

        feeds = _measure.draw(problem, 0)
        found = _peers.open_system(peer, file, 1, problem).run(feeds)

        rows = constants["table"][feeds["ids"]]
        assert np.allclose(found["a"], rows)
        assert np.allclose(found["b"], rows + feeds["p"])

    def test_openvino_sends_nothing(self, tmp_path: Path) -> None:
        """
        The package that would send usage statistics is kept from being imported, and
        nothing is left in the user's folder.
        """
        skip_without("openvino")
        path = tmp_path / "m.onnx"
        path.write_bytes(graph([node("Relu", "x")], {"x": (np.float32, [2, 3])}))
        home = tmp_path / "home"
        home.mkdir()
        code = f"""
import sys
from pathlib import Path
from nnz_service.cli import _peers
problem = _peers.Problem({{"x": ("FP32", (2, 3))}}, ("y",))
_peers.open_system("openvino", Path({str(path)!r}), 1, problem)
print(sys.modules["openvino_telemetry"])
"""

        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout == "None\n"
        assert not list(home.iterdir())

    def test_broken_file(self, tmp_path: Path) -> None:
        """
        What a peer cannot load is refused in its own words.
        """
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"\xff")

        with pytest.raises(ImpossibleError, match=r"onnxruntime could not run broken"):
            _peers.open_system("onnxruntime", broken, 1, _peers.Problem({}, ()))


class TestMnn:
    @pytest.mark.parametrize(
        ("sparsity", "block", "expected"), [(0.0, 4, 0), (0.7, 4, 4), (0.7, 1, 1)]
    )
    def test_how_zeros_lie(
        self, sparsity: float, block: int, expected: int, tmp_path: Path
    ) -> None:
        """
        No zeros, zeros in blocks of four output channels, zeros anywhere.
        """
        path = tmp_path / "m.onnx"
        dense = model([layer("MatMul", "x", "w")], {"w": normal(16, 32)})
        path.write_bytes(prune(dense, sparsity, block)[0].SerializeToString())

        assert _mnn.zero_block(path) == expected

    def test_bytes_of_the_parameters(self) -> None:
        """
        The encoding by hand: version, PRUNE by SIMD_OC in blocks of 4, an identifier.
        """
        found = _mnn.compression_parameters(4)

        assert found[:21].hex() == ("0a05302e302e30120a08011a0608011a0220041a24")
        assert len(found) == 21 + 36

    def test_quiet_drops_and_restores(self, capfd: pytest.CaptureFixture[str]) -> None:
        """
        What is written to the descriptors is dropped inside alone.
        """
        os.write(1, b"before ")
        with _mnn.quiet():
            os.write(1, b"dropped")
            os.write(2, b"dropped")
            print("dropped")
        os.write(1, b"after")

        assert capfd.readouterr() == ("before after", "")
