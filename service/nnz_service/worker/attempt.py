"""One run of one job: slices, reports, checkpoints, until it ends or has to stop."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service import faults, logs
from nnz_service.errors import (
    DatabaseAwayError,
    NotFoundError,
    ServiceError,
    StorageFullError,
    UnavailableError,
)
from nnz_service.jobs import Job, JobStore, StaleTokenError, Status
from nnz_service.repository import BlobStore, bundles
from nnz_service.servable import Servable
from nnz_service.worker.batches import Charge
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.solvers import (
    Arrays,
    Making,
    MakingSeveral,
    Metered,
    Outside,
    Solver,
)
from nnz_service.worker.toolbox import Toolbox

SLICE = 0.05  # seconds of a slice: what a request waits for at most
REPORT = 0.25  # seconds between two reports
FIRST_SAVE = 0.25  # seconds to the first checkpoint: a worker that dies often gets on
SAVE = 2.0  # seconds between two checkpoints, at least
SHARE = 0.1  # of the time at most goes into checkpoints
_OWNER = "job"  # array in a checkpoint that makes its blob this job's alone
#: What a machine lacks for a while: room, descriptors, memory. No job is to blame.
_LACKS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip
#: Seconds that a job waits for it, as its end does; and between two tries.
_PATIENCE, _RETRY = 600.0, 1.0

T = TypeVar("T")

#: A matrix, its name, the id of its owner -> what its maker sees of it.
Keep = Callable[[Csr[HostArray], str | None, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every attempt works with.

    Args:
        store: Where jobs are.
        blobs: Where their arrays are.
        toolbox: Makes solvers.
        scheduler: Runs the slices.
        find_matrix: Gives a resident matrix by id; may block.
        keep: Stores a matrix that a job made, under a name, for an owner.
        stopping: Whether the worker is on its way out.
        wakes: How often it was told to look at the store.
        charge: Told the id of a key and the seconds that were computed for it.
    """

    store: JobStore
    blobs: BlobStore
    toolbox: Toolbox
    scheduler: Scheduler
    find_matrix: Callable[[str], Servable]
    keep: Keep
    stopping: Callable[[], bool]
    wakes: Callable[[], int]
    charge: Charge


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended, still to be written down.

    Args:
        job: With its token and its last checkpoint.
        arrays: Of the answer; None when there is none.
        seconds: Of computing, over all attempts.
    """

    job: Job
    status: Status
    result: dict[str, Any] | None = None
    arrays: Arrays | None = None
    error: str | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Pace:
    """When to report and when to save, by a clock that the caller reads."""

    began: float
    reported: float = field(init=False)
    saved: float = field(init=False)
    pause: float = field(init=False)

    def __post_init__(self) -> None:
        self.reported = self.saved = self.began
        self.pause = FIRST_SAVE

    def save_due(self, now: float) -> bool:
        """Whether as much work is unsaved as a crash may cost."""
        return now - self.saved >= self.pause

    def report_due(self, now: float) -> bool:
        """Whether somebody who watches should hear of it."""
        return now - self.reported >= REPORT

    def did_save(self, began: float, ended: float) -> None:
        """Take in what a checkpoint cost."""
        self.saved = ended
        self.pause = max(SAVE, (ended - began) * (1 - SHARE) / SHARE)


class _CancelledError(Exception):
    """Somebody has cancelled the job that waits."""


class Attempt:
    """Carries a claimed job as far as it gets.

    Args:
        bench: What it works with.
        job: As it was claimed.
    """

    def __init__(self, bench: Bench, job: Job) -> None:
        self._bench = bench
        self.job = job
        self.seconds = job.seconds
        self._wakes = bench.wakes()

    def run(self) -> End | None:
        """Work until the job ends, or the worker is to stop; then it is None.

        Raises:
            StaleTokenError: Another worker has the job.
            ServiceError: Why the job cannot be done.
            Exception: What its solver raised.
        """
        faults.point("job.after-claim")
        try:
            solver = self._solver()
            try:
                return self._carry(solver)
            finally:
                if isinstance(solver, Outside):
                    solver.close()
        except _CancelledError:
            return End(self.job, Status.CANCELLED, seconds=self.seconds)

    def _carry(self, solver: Solver) -> End | None:
        pace = Pace(time.monotonic())
        while not self._slice(solver):
            now = time.monotonic()
            save = self._bench.stopping() or pace.save_due(now)
            if self._cancelled():
                return End(self.job, Status.CANCELLED, seconds=self.seconds)
            if save or pace.report_due(now):
                self._report(solver, pace, save=save)
                pace.reported = now
                if self.job.cancel_requested:
                    return End(self.job, Status.CANCELLED, seconds=self.seconds)
            if self._bench.stopping():
                return None
        self._report(solver, pace, save=False)
        result, arrays = solver.result()
        if isinstance(solver, Making):
            result |= {"matrix": self._keep(solver.matrix, solver.label)}
        if isinstance(solver, MakingSeveral):
            made = solver.matrices.items()
            result |= {"matrices": {n: self._keep(m, label) for n, (label, m) in made}}
        done = Status.SUCCEEDED
        return End(self.job, done, result, arrays or None, seconds=self.seconds)

    def _keep(self, matrix: Csr[HostArray], label: str | None) -> dict[str, Any]:
        keep, owner = self._bench.keep, self.job.owner
        return self._patiently(lambda: keep(matrix, label, owner))

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do what needs room, or a descriptor, as soon as there is one.

        Raises:
            UnavailableError: The worker stops before; another one goes on.
            _CancelledError: Nobody wants it any more.
            OSError, ServiceError: There was none for too long.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return work()
            except (OSError, ServiceError) as error:
                if not _is_shortage(error) or time.monotonic() > until:
                    raise
                reason = str(error)
            logs.logger().warning("job waits", job=self.job.id, reason=reason)
            time.sleep(_RETRY)
            if self._cancelled():
                raise _CancelledError
            if self._bench.stopping():
                raise UnavailableError(reason)

    def _slice(self, solver: Solver) -> bool:
        outside = isinstance(solver, Outside) and solver.outside

        meter = solver if outside and isinstance(solver, Metered) else None

        def clock() -> float:
            return time.monotonic() if meter is None else meter.elsewhere

        def step() -> bool:
            began = clock()
            try:
                return solver.step(SLICE)
            finally:
                self._spend(clock() - began)

        if outside:
            return step()  # it only waits: here, where nobody waits for it
        return self._bench.scheduler.slice(step).result()

    def _spend(self, seconds: float) -> None:
        self.seconds += seconds
        self._bench.charge(self.job.owner, seconds)

    def _cancelled(self) -> bool:
        """Look at the store when somebody has said that there is something new."""
        if (wakes := self._bench.wakes()) == self._wakes:
            return False
        try:
            now = self._bench.store.get(self.job.id)
        except DatabaseAwayError:
            return False  # the next report will see it
        except NotFoundError:
            raise StaleTokenError(f"job {self.job.id} is gone") from None
        self._wakes = wakes
        return now.token == self.job.token and now.cancel_requested

    def _report(self, solver: Solver, pace: Pace, *, save: bool) -> None:
        """Write progress down, behind the checkpoint that it speaks of.

        While that cannot be done the work goes on.
        """
        began = time.monotonic()
        checkpoint = self._save(solver) if save else None
        job = self.job
        try:
            self.job = self._bench.store.progress(
                job.id, job.token, solver.progress(), checkpoint, self.seconds
            )
        except (DatabaseAwayError, StorageFullError) as error:
            # What it knows of the checkpoints is not sure: they stay, and are swept.
            logs.logger().warning("no report", job=job.id, reason=str(error))
        else:
            if job.checkpoint and job.checkpoint != self.job.checkpoint:
                self._bench.blobs.delete(job.checkpoint)
        if save:
            pace.did_save(began, time.monotonic())

    def _save(self, solver: Solver) -> str | None:
        state = solver.state() | {_OWNER: np.array(self.job.id)}
        try:
            faults.point("job.before-checkpoint")
            blob = bundles.save(self._bench.blobs, state)
        except OSError as error:
            if error.errno not in _LACKS:
                raise
            logs.logger().warning("no checkpoint", job=self.job.id, reason=str(error))
            return None
        faults.point("job.mid-checkpoint")
        return blob.sha256

    def _solver(self) -> Solver:
        job, bench = self.job, self._bench
        inputs, state = self._load(job.inputs_sha), self._state()
        given = job.kind, job.params, inputs, bench.find_matrix, state
        return self._patiently(lambda: bench.toolbox.solver(*given))

    def _state(self) -> Arrays | None:
        """Where an earlier attempt came to; nowhere, when that cannot be read."""
        if self.job.checkpoint is None:
            return None
        try:
            state = self._load(self.job.checkpoint)
            state.pop(_OWNER)
        except UnavailableError:
            raise  # it is there, for the next worker
        except (ServiceError, KeyError) as error:
            log = logs.logger()
            log.error("checkpoint lost", job=self.job.id, reason=str(error))
            return None
        return state

    def _load(self, sha: str | None) -> dict[str, NDArray[Any]]:
        if sha is None:
            return {}
        return self._patiently(lambda: bundles.load(self._bench.blobs.path(sha)))


def _is_shortage(error: BaseException | None) -> bool:
    """Whether the machine lacks something that it may have again."""
    while error is not None:
        if isinstance(error, StorageFullError):
            return True
        if isinstance(error, OSError) and error.errno in _LACKS:
            return True
        error = error.__cause__
    return False
