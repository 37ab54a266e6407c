"""A device that fails for good takes its worker with it, and no caller's request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from service.worker.servables import SOON, Doubler, rows

from nnz_kernels.errors import DeviceLostError
from nnz_service.errors import UnavailableError, WorkerLostError
from nnz_service.servable import Tensors
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Ticket, ticket
from nnz_service.worker_main import DEVICE_LOST

_PROGRAM = """
import sys
from nnz_kernels.errors import DeviceLostError
from nnz_service import worker, worker_main

class Broken(worker.Toolbox):
    def warm(self, progress):
        raise DeviceLostError("conv_block: an illegal memory access")

worker.Toolbox = Broken
sys.argv = ["nnz-worker", "--home", sys.argv[1], "--socket", sys.argv[2]]
sys.exit(worker_main.main())
"""


class Broken(Doubler):
    """Fails as a CUDA kernel that leaves its memory does."""

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        self.entered.set()
        assert self.gate.wait(SOON)
        raise DeviceLostError("conv_block: an illegal memory access")


def of(servable: Doubler) -> Ticket:
    return ticket(servable, rows(1), None, Counters())


def test_requests_get_an_error_that_invites_to_retry() -> None:
    scheduler, told = Scheduler(), threading.Event()
    scheduler.on_lost = told.set
    scheduler.start()
    broken, other = Broken(), Doubler()
    broken.gate.clear()

    running = scheduler.submit(of(broken))
    assert broken.entered.wait(SOON)
    waiting = scheduler.submit(of(other))
    broken.gate.set()

    for future in (running, waiting):
        with pytest.raises(WorkerLostError, match="the worker is replaced"):
            future.result(SOON)
    assert told.wait(SOON)
    with pytest.raises(UnavailableError):
        scheduler.submit(of(other))
    scheduler.close()


def test_a_slice_of_a_job_says_so_too() -> None:
    scheduler, told = Scheduler(), threading.Event()
    scheduler.on_lost = told.set
    scheduler.start()

    def step() -> None:
        raise DeviceLostError("spmv_csr: uncorrectable memory")

    with pytest.raises(WorkerLostError, match="uncorrectable"):
        scheduler.slice(step).result(SOON)

    assert told.wait(SOON)
    scheduler.close()


def test_other_failures_lose_nothing() -> None:
    scheduler = Scheduler()
    scheduler.start()
    doubler = Doubler()

    failed = scheduler.submit(ticket(doubler, rows(1, -1.0), None, Counters()))

    assert failed.exception(SOON) is not None
    answer = scheduler.submit(of(doubler)).result(SOON).tensors["y"]
    np.testing.assert_array_equal(answer, np.full((1, 3), 2.0))
    scheduler.close()


def test_the_process_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    """The supervisor starts another; see test_supervisor for that."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "home"), str(tmp_path / "s")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == DEVICE_LOST, ended.stderr
    assert "the device is lost" in ended.stderr
