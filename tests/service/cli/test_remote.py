"""The commands that talk to a server, against a real one on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from service.web.doubler import running

from nnz import Client
from nnz_service.local import open_local

DIGITS = Path(__file__).parents[3] / "deploy" / "demo" / "digits_sparse.onnx"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server on a free port; the application is the one of Client.local()."""
    app = open_local(home=tmp_path_factory.mktemp("home"), threads=1)
    with running(app) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def digits(server: str) -> str:
    """Name of a model on the server."""
    with Client(server) as client:
        return client.models.put("digits", DIGITS).name


@pytest.fixture(autouse=True)
def _address(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNZ_URL", server)
    monkeypatch.delenv("NNZ_API_KEY", raising=False)


class TestModel:
    def test_put_list_rm(self, nnz: Any) -> None:
        put = nnz.json("model", "put", "cli", DIGITS)
        again = nnz.json("model", "put", "cli", DIGITS)
        listed = nnz.json("model", "list")["models"]
        removed = nnz.json("model", "rm", "cli")

        assert (put["name"], put["version"], put["state"]) == ("cli", "1", "READY")
        assert again["version"] == "1"
        assert put["inputs"][0]["shape"] == [None, 1, 16, 16]
        assert "cli" in {row["name"] for row in listed}
        assert removed == {"name": "cli", "version": None, "removed": True}
        assert nnz("model", "rm", "cli").exit_code == 1

    def test_for_people(self, nnz: Any) -> None:
        put = nnz("model", "put", "shown", DIGITS)
        listed = nnz("model", "list")

        assert put.exit_code == listed.exit_code == 0
        assert "shown version 1: READY" in put.output
        assert "x FP32 [?, 1, 16, 16]" in listed.output

    def test_a_file_that_is_no_model(self, nnz: Any, tmp_path: Path) -> None:
        path = tmp_path / "broken.onnx"
        path.write_bytes(b"no model")

        result = nnz("model", "put", "broken", path)

        assert result.exit_code == 1
        assert "error: " in result.stderr
        assert "Traceback" not in result.output


class TestMatrix:
    def test_put_info_list_rm(self, nnz: Any, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        sp.save_npz(path, sp.eye_array(7, format="csr"))

        put = nnz.json("matrix", "put", path, "--name", "seven")
        shown = nnz.json("matrix", "info", put["id"])
        listed = nnz.json("matrix", "list")["matrices"]
        removed = nnz.json("matrix", "rm", put["id"])

        assert (put["shape"], put["nnz"], put["name"]) == ([7, 7], 7, "seven")
        assert shown == put
        assert put["id"] in {row["id"] for row in listed}
        assert removed == {"id": put["id"], "removed": True}
        assert nnz("matrix", "info", put["id"]).exit_code == 1

    def test_for_people(self, nnz: Any, tmp_path: Path) -> None:
        path = tmp_path / "b.npz"
        sp.save_npz(path, sp.eye_array(5, format="csr"))

        put = nnz("matrix", "put", path)

        assert "shape    5 x 5" in put.output
        assert "5x5" in nnz("matrix", "list").output

    def test_a_name_that_is_no_matrix_files(self, nnz: Any, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("1,2")

        result = nnz("matrix", "put", path)

        assert result.exit_code == 1
        assert "ends in .npz, .mtx, .mtx.gz" in result.stderr


@pytest.mark.usefixtures("digits")
class TestInfer:
    def test_a_file_in_a_file_out(self, nnz: Any, tmp_path: Path) -> None:
        x = np.random.default_rng(0).random((2, 1, 16, 16), np.float32)
        np.save(tmp_path / "x.npy", x)
        np.savez(tmp_path / "named.npz", x=x)

        bare = nnz.json("infer", "digits", tmp_path / "x.npy")
        named = nnz.json("infer", "digits", f"x={tmp_path / 'x.npy'}")
        zipped = nnz.json("infer", "digits", tmp_path / "named.npz")
        saved = nnz("infer", "digits", tmp_path / "x.npy", "--save", tmp_path / "y.npz")

        (output,) = bare["outputs"]
        assert bare == named == zipped
        assert saved.exit_code == 0
        with np.load(tmp_path / "y.npz") as loaded:
            array = loaded[output["name"]]
        assert output["shape"] == list(array.shape)
        assert output["data"] == array.reshape(-1).tolist()

    def test_random_inputs(self, nnz: Any) -> None:
        (output,) = nnz.json("infer", "digits", "--random", "3")["outputs"]

        assert output["shape"][0] == 3
        assert "[3, 10]" in nnz("infer", "digits", "--random", "3").output

    def test_a_matrix(self, nnz: Any, tmp_path: Path) -> None:
        sp.save_npz(tmp_path / "a.npz", 2 * sp.eye_array(3, format="csr"))
        np.save(tmp_path / "x.npy", np.array([[1.0, 2.0, 3.0]]))
        matrix = nnz.json("matrix", "put", tmp_path / "a.npz")["id"]

        (output,) = nnz.json("infer", matrix, tmp_path / "x.npy")["outputs"]

        assert (output["name"], output["data"]) == ("y", [2.0, 4.0, 6.0])

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            pytest.param(["digits"], 2, "one of them", id="nothing to send"),
            pytest.param(["digits", "absent.npy"], 2, "absent.npy", id="no file"),
            pytest.param(["nobody", "--random", "1"], 1, "nobody", id="no model"),
        ],
    )
    def test_errors(self, nnz: Any, words: list[str], code: int, message: str) -> None:
        result = nnz("infer", *words)

        assert result.exit_code == code
        assert message in result.stderr
        assert "Traceback" not in result.output

    def test_a_pickle_is_not_opened(self, nnz: Any, tmp_path: Path) -> None:
        path = tmp_path / "evil.npy"
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)

        result = nnz("infer", "digits", path)

        assert result.exit_code == 2
        told = " ".join(result.stderr.replace("│", " ").split())  # out of its box
        assert "is not a .npy or .npz file of numbers" in told
        assert "allow_pickle" not in told

    def test_a_wrong_shape_is_explained(self, nnz: Any, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((1, 3), np.float32))

        result = nnz("infer", "digits", tmp_path / "x.npy")

        assert result.exit_code == 1
        assert "x" in result.stderr


class TestDevices:
    def test_of_the_server_and_of_this_machine(self, nnz: Any) -> None:
        there = {row["backend"]: row for row in nnz.json("devices")["devices"]}
        here = {row["backend"]: row for row in nnz.json("devices", "--here")["devices"]}

        assert there["cpu"]["available"]
        assert there.keys() == here.keys() == {"reference", "cpu", "cuda"}
        assert there["cpu"]["families"] == here["cpu"]["families"]
        assert "cpu" in nnz("devices").output


class TestNobodyListens:
    def test_says_how_to_start_one(
        self, nnz: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NNZ_URL", "http://127.0.0.1:9")  # the discard port

        result = nnz("model", "list")

        assert result.exit_code == 1
        assert "start one with `nnz serve`" in " ".join(result.stderr.split())

    def test_not_a_url(self, nnz: Any) -> None:
        result = nnz("matrix", "list", "--url", "localhost")

        assert result.exit_code == 1
        assert "'localhost' is not a URL" in result.stderr
