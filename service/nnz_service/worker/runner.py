"""Runs jobs: claim, work in slices between requests, report, checkpoint, finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.errors import DeviceLostError
from nnz_service import logs
from nnz_service.errors import ServiceError, UnavailableError, WorkerLostError
from nnz_service.jobs import Job, JobStore, StaleTokenError, Status
from nnz_service.repository import BlobStore, bundles
from nnz_service.servable import Servable
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.solvers import Solver
from nnz_service.worker.toolbox import Toolbox

SLICE = 0.05  # seconds of a slice: what a request waits for at most
REPORT = 0.25  # seconds between two reports, at each of which a cancel is seen
CHECKPOINT = 2.0  # seconds of work that a crash may cost
POLL = 1.0  # seconds between looks at the store when nobody calls `wake`
THREADS = 2  # jobs under way at once; their slices alternate
_OWNER = "job"  # array in a checkpoint that makes its blob this job's alone


class JobRunner:
    """Threads that carry jobs from the store through the scheduler's slices.

    Args:
        store: Where jobs are.
        blobs: Where their arrays are.
        toolbox: Makes solvers.
        scheduler: Runs the slices.
        find_matrix: Gives a resident matrix by id; may block.
        name: What claims carry.
    """

    def __init__(
        self,
        store: JobStore,
        blobs: BlobStore,
        toolbox: Toolbox,
        scheduler: Scheduler,
        find_matrix: Callable[[str], Servable],
        name: str,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._toolbox = toolbox
        self._scheduler = scheduler
        self._find_matrix = find_matrix
        self._name = name
        self._closing = False
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._threads = [
            threading.Thread(target=self._loop, name=f"job-{n}", daemon=True)
            for n in range(THREADS)
        ]

    def start(self) -> None:
        """Take back what an earlier worker of this name left, and begin."""
        for job in self._store.requeue_lost(self._name):
            logs.logger().info("job of a lost worker", job=job.id, status=job.status)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Checkpoint what runs, queue it again, end the threads."""
        self._closing = True
        self.wake()
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join()
        if started:
            self._store.requeue_lost(self._name)

    def wake(self) -> None:
        """Look at the store now."""
        with self._changed:
            self._changed.notify_all()

    @property
    def running(self) -> int:
        """Jobs under way."""
        return len(self._running)

    def _loop(self) -> None:
        while not self._closing:
            try:
                job = self._store.claim(self._name, self._toolbox.job_kinds)
                if job is not None:
                    self._attempt(job)
                    continue
            except Exception:  # the store may be busy or its disk full: try again
                logs.logger().exception("job loop failed")
            with self._changed:
                if not self._closing:
                    self._changed.wait(POLL)

    def _attempt(self, job: Job) -> None:
        self._running.add(job.id)
        try:
            self._work(job, self._solver(job))
        except StaleTokenError:
            logs.logger().warning("job was claimed by another worker", job=job.id)
        except DeviceLostError:  # while it prepared, on this thread
            self._closing = True
            self._scheduler.lose()
        except WorkerLostError:  # it stays claimed: the next worker takes it back
            self._closing = True
        except UnavailableError as error:
            if not self._closing:
                self._fail(job, str(error))
        except ServiceError as error:
            self._fail(job, str(error))
        except Exception as error:
            logs.logger().exception("job failed", job=job.id)
            self._fail(job, f"{type(error).__name__}: {error}")
        finally:
            self._running.discard(job.id)

    def _solver(self, job: Job) -> Solver:
        inputs = self._load(job.inputs_sha)
        state = self._load(job.checkpoint) if job.checkpoint else None
        if state is not None:
            state.pop(_OWNER)
        return self._toolbox.solver(
            job.kind, job.params, inputs, self._find_matrix, state
        )

    def _work(self, job: Job, solver: Solver) -> None:
        reported = saved = time.monotonic()
        while not self._scheduler.slice(lambda: solver.step(SLICE)).result():
            now = time.monotonic()
            save = self._closing or now - saved > CHECKPOINT
            if not save and now - reported < REPORT:
                continue
            job = self._report(job, solver, save=save)
            if job.cancel_requested:
                self._finish(job, Status.CANCELLED)
                return
            if self._closing:
                return
            reported, saved = now, now if save else saved
        self._report(job, solver, save=False)
        result, arrays = solver.result()
        blob = bundles.save(self._blobs, arrays)
        self._finish(job, Status.SUCCEEDED, result=result, result_sha=blob.sha256)
        if not blob.path.is_file():  # an equal job was forgotten just before
            bundles.save(self._blobs, arrays)

    def _report(self, job: Job, solver: Solver, *, save: bool) -> Job:
        """Write progress down, behind the checkpoint that it speaks of."""
        checkpoint = None
        if save:
            state = solver.state() | {_OWNER: np.array(job.id)}
            checkpoint = bundles.save(self._blobs, state).sha256
        now = self._store.progress(job.id, job.token, solver.progress(), checkpoint)
        if job.checkpoint and job.checkpoint != now.checkpoint:
            self._blobs.delete(job.checkpoint)
        return now

    def _finish(self, job: Job, status: Status, **outcome: Any) -> None:
        self._store.finish(job.id, job.token, status, **outcome)
        if job.checkpoint:
            self._blobs.delete(job.checkpoint)

    def _fail(self, job: Job, reason: str) -> None:
        """Write the failure down, if need be as soon as the store can be written."""
        while not self._closing:
            try:
                now = self._store.get(job.id)  # with its checkpoint, under our token
                self._finish(replace(now, token=job.token), Status.FAILED, error=reason)
            except ServiceError as error:
                logs.logger().warning("job not recorded", job=job.id, reason=str(error))
            except Exception:  # its disk may be full: the job must not stay running
                logs.logger().exception("job not recorded yet", job=job.id)
                with self._changed:
                    self._changed.wait(POLL)
                continue
            return

    def _load(self, sha: str | None) -> dict[str, NDArray[Any]]:
        return {} if sha is None else bundles.load(self._blobs.path(sha))
