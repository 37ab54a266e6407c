"""A runner with everything that it needs, and a job that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from service.worker.servables import SOON

from nnz_service.errors import InvalidInputError, NotFoundError
from nnz_service.jobs import Job, JobStore, MemoryStore
from nnz_service.repository import BlobStore
from nnz_service.servable import Servable
from nnz_service.worker import Toolbox, runner
from nnz_service.worker.batches import Charge
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.solvers import Arrays, FindMatrix


class Counting:
    """Counts to `params["steps"]`, one a slice; may wait or fail at a step."""

    gate = threading.Event()
    made: list[int] = []  # noqa: RUF012 - where each attempt began

    def __init__(
        self,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> None:
        self.params = params
        self.start = float(inputs["start"]) if inputs else 0.0
        self.count = 0 if state is None else int(state["count"])
        Counting.made.append(self.count)
        if params.get("refuse"):
            raise InvalidInputError("not these parameters")

    def step(self, seconds: float) -> bool:
        if self.count == self.params.get("wait_at"):
            time.sleep(0.001)
            if not Counting.gate.is_set():
                return False
        if self.count == self.params.get("fail_at"):
            raise ZeroDivisionError("in the middle")
        self.count += 1
        return self.count >= self.params["steps"]

    def progress(self) -> dict[str, Any]:
        return {"count": self.count}

    def state(self) -> Arrays:
        return {"count": np.asarray(self.count)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        return {"count": self.count}, {"x": np.array([self.start + self.count])}


class Bench:
    """A runner with everything that it needs."""

    def __init__(self, folder: Path) -> None:
        self.store: JobStore = MemoryStore()
        self.blobs = BlobStore(folder)
        self.scheduler = Scheduler()
        self.scheduler.start()
        self.toolbox = Toolbox(solvers={"count": Counting})
        self.runner = self.another()

    def another(self, charge: Charge = lambda *_: None) -> runner.JobRunner:
        return runner.JobRunner(
            self.store, self.blobs, self.toolbox, self.scheduler, no_matrix, no_keep,
            "w", charge,
        )  # fmt: skip

    def submit(self, **params: Any) -> Job:
        job = self.store.submit("count", params)
        self.runner.wake()
        return job

    def until(self, job: Job, done: Callable[[Job], bool]) -> Job:
        limit = time.monotonic() + SOON
        while not done(now := self.store.get(job.id)):
            assert time.monotonic() < limit, now
            time.sleep(0.002)
        return now

    def ended(self, job: Job) -> Job:
        return self.until(job, lambda now: now.status.ended)


def no_matrix(name: str) -> Servable:
    raise NotFoundError(name)


def no_keep(matrix: object, name: str | None, owner: str) -> dict[str, Any]:
    raise AssertionError("these jobs make no matrix")
