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
from nnz_service.exit_codes import DEVICE_LOST
from nnz_service.jobs import SqlStore, Status
from nnz_service.repository import Repository
from nnz_service.servable import Servable, Tensors
from nnz_service.worker import Host, Toolbox
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.solvers import Solver
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Ticket, ticket

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


class Losing(Toolbox):
    """Loads nothing, and prepares no job: the device fails first."""

    def load(self, kind: str, path: Path) -> Servable:
        raise DeviceLostError("conv_block: an illegal memory access")

    def solver(self, *_: object) -> Solver:
        raise DeviceLostError("spmv_csr: an illegal memory access")

    @property
    def job_kinds(self) -> list[str]:
        return ["sleep"]


def _host(home: Path) -> tuple[Host, Repository, SqlStore]:
    repository, jobs = Repository(home), SqlStore(home / "catalog.sqlite")
    toolbox = Losing(compile_first=False)
    return Host(repository, jobs, toolbox, name="cuda"), repository, jobs


def test_jobs_wait_for_the_next_worker(tmp_path: Path) -> None:
    """None of them fails because the device did."""
    host, repository, jobs = _host(tmp_path)
    ids = [jobs.submit("sleep", {}, None, None).id for _ in range(5)]
    lost = threading.Event()
    host.when_lost(lost.set)

    host.start()

    assert lost.wait(SOON)
    host.close()
    assert not host.ready
    states = {jobs.get(one).status for one in ids}
    assert states <= {Status.QUEUED, Status.RUNNING}
    jobs.requeue_lost("cuda")
    assert {jobs.get(one).status for one in ids} == {Status.QUEUED}
    repository.close()
    jobs.close()


def test_a_file_that_loses_the_device_is_counted(tmp_path: Path) -> None:
    """So that the third time it is left out, as if it had ended the process."""
    host, repository, jobs = _host(tmp_path)
    file = tmp_path / "m.onnx"
    file.write_bytes(b"")

    with pytest.raises(WorkerLostError):
        host._guarded.load("model", file)

    assert host.lost
    assert (tmp_path / "run" / "loads-cuda.json").exists()
    repository.close()
    jobs.close()


def test_the_process_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    """The supervisor starts another; see test_supervisor for that."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "home"), str(tmp_path / "s")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == DEVICE_LOST, ended.stderr
    assert "the device is lost" in ended.stderr
