"""The benchmark of a GPU, on an emulated one at small sizes, with stand-ins for CuPy.

Nobody can mend it on the machine that it is for.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from cuda_emulator.emulated import Emulator

HERE = Path(__file__).parent

#: What is imported with the stand-ins, and must not be found by others.
OURS = ("bench_cuda", "bench_cuda_algebra", "cuda_problems", "cuda_timing", "cusparse")

#: How many arguments the functions of cuSPARSE have, by its manual.
ARGUMENTS = {
    "cusparseCreate": 1, "cusparseSetStream": 2, "cusparseCreateCsr": 11,
    "cusparseCreateDnVec": 4, "cusparseCreateDnMat": 7,
    "cusparseSpMatSetAttribute": 4,
    "cusparseSpMV_bufferSize": 10, "cusparseSpMV_preprocess": 10, "cusparseSpMV": 10,
    "cusparseSpMM_bufferSize": 11, "cusparseSpMM_preprocess": 11, "cusparseSpMM": 11,
    "cusparseSDDMM_bufferSize": 11, "cusparseSDDMM_preprocess": 11,
    "cusparseSDDMM": 11,
    "cusparseSpSV_createDescr": 1, "cusparseSpSV_bufferSize": 10,
    "cusparseSpSV_analysis": 10, "cusparseSpSV_solve": 9,
}  # fmt: skip


class Array(np.ndarray):
    """An array that says where it lies, as CuPy's do."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def stand_in() -> ModuleType:
    """Return what the benchmark takes of CuPy, on the host."""
    cupy: Any = ModuleType("cupy")

    def ndarray(shape: Any, dtype: Any, pointer: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = (ctypes.c_uint8 * size).from_address(pointer[0].address)
        return np.frombuffer(raw, dtype).reshape(shape).view(Array)

    def made(how: Any) -> Any:
        return lambda *given: how(*given).view(Array)

    cupy.ndarray, cupy.asnumpy, cupy.matmul = ndarray, np.asarray, np.matmul
    cupy.empty, cupy.zeros, cupy.ones = map(made, (np.empty, np.zeros, np.ones))
    cupy.asarray, cupy.uint8 = made(np.asarray), np.uint8
    cupy.cuda = SimpleNamespace(
        UnownedMemory=lambda address, size, owner: SimpleNamespace(address=address),
        MemoryPointer=lambda *given: given,
    )
    return cupy


class Library:
    """Takes calls of cuSPARSE, and counts their arguments."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> int:
            assert len(arguments) == ARGUMENTS[name], name
            self.asked.add(name)
            return 0

        return ask


class Clock:
    """Makes every call once."""

    def __init__(self, launcher: Any, rounds: int) -> None:
        self.launcher = launcher

    def copy_speed(self) -> float:
        return 1e12

    def race(self, calls: Any) -> dict[str, float]:
        for call in calls.values():
            call()
        return dict.fromkeys(calls, 1.0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The benchmark, imported with the stand-ins."""
    sparse: Any = ModuleType("cupyx.scipy.sparse")
    sparse.csr_matrix, sparse.linalg = scipy.sparse.csr_matrix, scipy.sparse.linalg
    scipy_there: Any = ModuleType("cupyx.scipy")
    cupyx: Any = ModuleType("cupyx")
    cupyx.scipy, scipy_there.sparse = scipy_there, sparse
    launcher: Any = ModuleType("nnz_kernels.cuda.cupy_launcher")
    launcher.CupyLauncher = Emulator
    for module in (stand_in(), cupyx, scipy_there, sparse, launcher):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    linalg = scipy.sparse.linalg
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse.linalg", linalg)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    yield importlib.import_module("bench_cuda")
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.usefixtures("emulated_cuda")
def test_every_part_runs(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are right, peers are asked as their manual says, all is written down."""
    stream: Any = contextlib.nullcontext()
    stream.ptr = 0
    library = Library()
    monkeypatch.setattr(Emulator, "stream", stream, raising=False)
    monkeypatch.setattr(sys.modules["cusparse"], "_library", lambda: library)
    monkeypatch.setattr(bench, "Clock", Clock)
    out = tmp_path / "found.json"
    options = ["--out", str(out), "--skip-tests", "--scale", "0.0005"]
    monkeypatch.setattr(sys, "argv", ["bench_cuda.py", *options])

    assert bench.main() == 0

    found = json.loads(out.read_text())
    names = {row["name"].split()[0] for row in found["algebra"]}
    assert names >= {
        "spgemm", "add", "transpose", "triangular_solve", "sddmm", "pdhg", "masked",
        "plus_times", "min_plus", "or_and", "max_times", "axpy_many", "dot_many",
    }  # fmt: skip
    assert len(found["products"]) == 24
    assert len(found["layers"]) == 20
    # cuSPARSE computes nothing here, so that its answers are wrong, and only those.
    missing = {name for row in found["algebra"] for name in row.get("missing", ())}
    assert missing <= {"cusparse", "cusparse SpSV", "cusparse, products alone"}
    assert library.asked == set(ARGUMENTS)
