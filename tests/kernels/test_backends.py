from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnz_kernels.backends import Backend, load, probe
from nnz_kernels.errors import BackendUnavailableError

PROBE = """
import json, sys
from nnz_kernels.backends import probe
found = probe("cuda")
print(json.dumps([found.available, found.reason, "numba" in sys.modules]))
"""


def run(code: str, **environment: str) -> str:
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return out.stdout


class TestProbe:
    def test_reference(self) -> None:
        """Numpy is always there."""
        found = probe(Backend.REFERENCE)

        assert found.available
        assert found.reason == ""
        assert "products" in found.families

    def test_cpu(self) -> None:
        """It says what people want to know of a processor."""
        found = probe(Backend.CPU)

        assert found.available
        assert set(found.details) == {
            "name",
            "threads",
            "vector_width",
            "threading_layer",
        }
        assert found.details["threads"] >= 1
        assert found.details["vector_width"] in (128, 256, 512)
        assert found.details["threading_layer"] in ("tbb", "omp")

    def test_cuda(self) -> None:
        """This version has no CUDA kernels: never available, always with a reason."""
        found = probe(Backend.CUDA)

        assert not found.available
        assert found.reason
        assert probe(Backend.CUDA) is found

    def test_cuda_switched_off(self) -> None:
        """The variable wins, and a probe of one back-end loads no other."""
        available, reason, numba = json.loads(run(PROBE, NNZ_NO_CUDA="1"))

        assert (available, numba) == (False, False)
        assert reason == "switched off by NNZ_NO_CUDA"


class TestLoad:
    def test_cuda(self) -> None:
        """The error carries the reason of the probe."""
        with pytest.raises(BackendUnavailableError) as caught:
            load(Backend.CUDA)

        assert probe(Backend.CUDA).reason in str(caught.value)

    def test_by_name(self) -> None:
        """A name is as good as the member; an unknown one is refused."""
        assert load(Backend("reference")).__name__ == "nnz_kernels.reference"
        with pytest.raises(ValueError, match="tpu"):
            Backend("tpu")


def test_workqueue_is_refused() -> None:
    """The layer that aborts on concurrent calls never gets so far."""
    code = (
        "from nnz_kernels.backends import Backend, probe\n"
        "print(probe(Backend.CPU).available, probe(Backend.CPU).reason)\n"
    )

    out = run(code, NUMBA_THREADING_LAYER="workqueue")

    assert out.startswith("False NUMBA_THREADING_LAYER is workqueue")


def test_cache_folder(tmp_path: Path) -> None:
    """Compiled code goes where `use_cache` says."""
    code = (
        "import numpy as np\n"
        "from nnz_kernels.backends import load, use_cache, Backend\n"
        f"use_cache({str(tmp_path)!r})\n"
        "from nnz_kernels.formats import SparseVector\n"
        "u = SparseVector(np.zeros(1, np.int32), np.ones(1), 2)\n"
        "assert load(Backend.CPU).scatter(u).tolist() == [1, 0]\n"
    )

    run(code)

    assert list(tmp_path.rglob("*.nbi"))


@pytest.mark.parametrize(
    "work", ["probe(Backend.CPU)", "load(Backend.CPU)", "catalog.warm(stop)"]
)
def test_a_single_core(work: str) -> None:
    """The process ends, whichever of its threads was the first to compute."""
    code = (
        "import os, threading\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from nnz_kernels.backends import Backend, load, probe\n"
        "import numba\n"
        "from nnz_kernels.cpu import catalog\n"
        "def stop(*_): raise SystemExit\n"
        f"thread = threading.Thread(target=lambda: {work})\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(numba.threading_layer())\n"
    )

    assert run(code).strip() in ("tbb", "omp")
