"""Fixtures that every test may use."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_emulator.emulated import Emulator, missing

from nnz_kernels import backends
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.kernels import CudaKernels

# Tests are about the CPU, or about an emulated GPU, whatever the machine has; those of
# a real one are asked for.
if not os.environ.get("NNZ_TEST_GPU"):
    os.environ["NNZ_NO_CUDA"] = "1"


# Its handlers would run in every process that is started, and may end it: nobody uses
# gRPC on the other side of a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real models, pictures and matrices; not part of the repository."""
    folder = os.environ.get("NNZ_TEST_DATA")
    if folder is None:
        if os.environ.get("NNZ_REQUIRE"):
            pytest.fail("NNZ_REQUIRE is set, but NNZ_TEST_DATA names no folder")
        pytest.skip("NNZ_TEST_DATA names no folder with real models and matrices")
    return Path(folder)


@pytest.fixture(scope="session")
def emulator_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where emulated kernels are kept once they are compiled."""
    lacking = missing()
    if lacking and os.environ.get("NNZ_REQUIRE"):
        pytest.fail(f"NNZ_REQUIRE is set, but the emulator needs {lacking}")
    if lacking:
        pytest.skip(f"CUDA kernels are emulated with {lacking}")
    cache = getattr(request.config, "cache", None)
    if cache is None:  # pytest was told to keep nothing
        return tmp_path_factory.mktemp("cuda_emulator")
    found: Path = cache.mkdir("cuda_emulator")
    return found


@pytest.fixture(scope="session")
def emulated(emulator_folder: Path) -> Iterator[CudaKernels]:
    """The CUDA back-end on an emulated device, whose memory is looked at in the end."""
    emulator = Emulator(emulator_folder)
    yield CudaKernels(Device(emulator))
    emulator.check_guards()


@pytest.fixture
def emulated_cuda(emulated: CudaKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the back-end ``cuda`` be the emulated one."""
    monkeypatch.setattr(backends, "_open_cuda", functools.cache(lambda: emulated))
    # What was found before is kept.
    monkeypatch.setattr(backends, "_probe_cuda", backends._probe_cuda.__wrapped__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that nobody waits for them in the end."""
    items.sort(key=lambda item: "test_widths" not in item.nodeid)
