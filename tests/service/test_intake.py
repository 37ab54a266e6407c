"""Untrusted files read by a real process apart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
import structlog
from onnx import TensorProto, helper
from service.waiting import until

from nnz_service.algebra.files import read_resident
from nnz_service.errors import (
    InvalidMatrixError,
    InvalidModelError,
    MalformedError,
    TooLargeError,
    UnsupportedMediaError,
    UnsupportedModelError,
)
from nnz_service.repository import Repository, intake
from nnz_service.repository.directory import scan
from nnz_service.repository.intake import inspect

NPZ = "application/x-npz"


def model(path: Path, op: str = "Relu") -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, str(path))
    return path


async def read(kind: str, path: Path, **more: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"media_type": "", "out": path.with_suffix(".out")}
    return await inspect(kind, path, **defaults | more)


def test_a_start_reads_no_more_than_it_needs() -> None:
    """Every upload pays for it: the catalog and the log would take half of the time."""
    look = (
        "import sys; from nnz_service.intake_main import _read_matrix as r\n"
        "try: r({'path': '', 'media_type': '', 'memory': 1})\n"
        "except Exception: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True
    )

    read = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"numpy", "scipy"} <= read
    assert not {"sqlalchemy", "structlog", "numba", "onnx"} & read


class TestMatrix:
    async def test_npz(self, tmp_path: Path) -> None:
        matrix = sp.random(30, 20, 0.2, format="coo", dtype=np.float32)
        sp.save_npz(tmp_path / "a.npz", matrix)

        info = await read("matrix", tmp_path / "a.npz", media_type=NPZ)

        facts = info.pop("facts")
        assert info == {
            "shape": [30, 20], "nnz": 120, "dtype": "FP32", "index_dtype": "INT32",
        }  # fmt: skip
        assert facts["finite"] is True
        back = read_resident(tmp_path / "a.out")
        assert (back.shape, back.nnz) == ((30, 20), 120)

    @pytest.mark.parametrize(
        ("content", "media_type", "error"),
        [
            (b"no zip", NPZ, InvalidMatrixError),
            (b"", NPZ, InvalidMatrixError),
            (b"%%MatrixMarket nonsense", "text/x-matrix-market", InvalidMatrixError),
            (b"x", "image/png", UnsupportedMediaError),
            (b"{}", "application/x-nnz-csr; header=9", MalformedError),
            (b"{}", "application/x-nnz-csr", MalformedError),
        ],
    )
    async def test_bad_files(
        self, tmp_path: Path, content: bytes, media_type: str, error: type[Exception]
    ) -> None:
        (tmp_path / "a").write_bytes(content)

        with pytest.raises(error):
            await read("matrix", tmp_path / "a", media_type=media_type)


class TestModel:
    async def test_signature(self, tmp_path: Path) -> None:
        info = await read("model", model(tmp_path / "m.onnx"))

        assert info["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert info["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]

    async def test_unsupported_nodes_cross(self, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedModelError, match="Acosh") as caught:
            await read("model", model(tmp_path / "m.onnx", "Acosh"))

        assert len(caught.value.nodes) == 1

    async def test_garbage(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(os.urandom(1000))

        with pytest.raises(InvalidModelError):
            await read("model", tmp_path / "m.onnx")


class TestLimits:
    """Whatever becomes of the process, the caller gets a clear error."""

    async def test_time(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "m.onnx")  # reading it blocks for ever

        started = time.monotonic()
        with pytest.raises(InvalidModelError, match="longer than 1 s"):
            await read("model", tmp_path / "m.onnx", seconds=1)

        assert time.monotonic() - started < 10

    async def test_memory(self, tmp_path: Path) -> None:
        with pytest.raises((InvalidMatrixError, TooLargeError)):
            await read("matrix", tmp_path / "a", media_type=NPZ, memory=64 << 20)

    def test_all_at_once_fit_into_memory(self) -> None:
        """A file of a few bytes may ask for as much as is allowed."""
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

        assert intake._default_memory() * intake.AT_ONCE < whole

    def test_ends_before_the_worker_when_memory_is_short(self) -> None:
        program = (
            "from nnz_service.confinement import confine; confine(1 << 34, 100); "
            "print(open('/proc/self/oom_score_adj').read())"
        )
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, timeout=60
        )

        assert int(found.stdout) == 1000

    def test_knows_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NNZ_API_KEY", "hidden")
        monkeypatch.setenv("NNZ_DATABASE_URL", "postgresql://nnz:hidden@host/nnz")
        for name in (
            "AWS_SECRET_ACCESS_KEY",
            "HTTPS_PROXY",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ):
            monkeypatch.setenv(name, "hidden")
        for name in ("NNZ_HOME", "PYTHONPATH", "LC_ALL", "NUMBA_CACHE_DIR"):
            monkeypatch.setenv(name, "kept")

        found = intake._environment()

        assert "hidden" not in str(found)
        for name in ("NNZ_HOME", "PYTHONPATH", "LC_ALL", "NUMBA_CACHE_DIR"):
            assert found[name] == "kept"

    async def test_cancelled_caller_leaves_no_process(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "m.onnx")
        call = asyncio.create_task(read("model", tmp_path / "m.onnx"))
        children = await until(_children)

        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert not children & _children()


def _children() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"intake_main" in command and int(status[1]) == os.getpid():
                found.add(int(entry.name))
    return found


@pytest.fixture
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged meanwhile."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


class TestScan:
    async def test_both_forms_of_folder(
        self, tmp_path: Path, told: list[MutableMapping[str, Any]]
    ) -> None:
        folder = tmp_path / "models"
        model(folder / "plain.onnx")
        model(folder / "net" / "1" / "model.onnx")
        model(folder / "net" / "12" / "model.onnx", "Acosh")
        model(folder / "net" / "latest" / "model.onnx")
        (folder / "readme.txt").write_text("not a model")
        (folder / "bad name!.onnx").write_bytes(b"")
        repository = Repository(tmp_path / "home")

        await scan(repository, folder)

        assert [(line["event"], Path(line["path"]).name) for line in told] == [
            ("passed over", "bad name!.onnx"),
            ("cannot be served", "model.onnx"),
            ("passed over", "model.onnx"),
        ]
        rows = [
            (r.name, r.version, r.wanted, r.reason is None) for r in repository.models()
        ]
        assert rows == [
            ("net", "12", False, False),
            ("net", "1", True, True),
            ("plain", "1", True, True),
        ]
        repository.set_wanted("net", "1", False)
        (folder / "plain.onnx").unlink()
        model(folder / "net" / "12" / "model.onnx")

        await scan(repository, folder)

        assert [(r.name, r.version, r.wanted) for r in repository.models()] == [
            ("net", "12", True),
            ("net", "1", False),
        ]
        await scan(repository, None)
        assert repository.models() == []
        repository.close()
