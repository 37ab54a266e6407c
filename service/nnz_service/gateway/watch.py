"""Everybody who waits for a job, behind one look at the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nnz_service import logs
from nnz_service.errors import NotFoundError, OverloadedError
from nnz_service.jobs import Job, JobStore

#: Callers who may wait at the same time, in one process.
SEATS = 1000
#: Seconds between two looks: they grow from the first to the last.
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.25
#: A look that takes long is not taken often: pauses are so many times as long.
_PAUSES = 9
#: Seconds after a look that failed: the database may be away.
_AFTER_FAILURE = 1.0


@dataclass(slots=True, eq=False)
class _Waiter:
    after: int
    found: asyncio.Future[Job | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Watch:
    """Tells of changes of jobs; polls only while somebody waits.

    Args:
        jobs: The store.
        draining: Whether the process is on its way out: then nobody waits.
        seats: Callers at the same time.
    """

    def __init__(
        self, jobs: JobStore, draining: Callable[[], bool], seats: int = SEATS
    ) -> None:
        self._jobs = jobs
        self._draining = draining
        self._free = seats
        self._seats = seats
        self._waiting: dict[str, list[_Waiter]] = {}
        self._pause = _FIRST_LOOK
        self._poll: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold a place among those who wait.

        Raises:
            OverloadedError: None is free.
        """
        if self._free <= 0:
            raise OverloadedError(
                f"{self._seats} callers wait for jobs already; ask without waiting"
            )
        self._free -= 1
        self._pause = _FIRST_LOOK
        self._joined.set()
        try:
            yield
        finally:
            self._free += 1

    async def close(self) -> None:
        """Look no more, as the last thing; nobody waits by then."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    async def change(self, job_id: str, after: int, seconds: float) -> Job | None:
        """Wait until a job has passed a revision.

        Args:
            job_id: Of a job that is there.
            after: The revision that is known.
            seconds: To wait; 0 does not look at all.

        Returns:
            The job, or None when time was up or the process is on its way out.

        Raises:
            NotFoundError: It was deleted.
        """
        if self._draining() or seconds <= 0:
            return None
        waiter = _Waiter(after)
        self._waiting.setdefault(job_id, []).append(waiter)
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                return await waiter.found
        except TimeoutError:
            return None
        finally:
            self._leave(job_id, waiter)

    def _leave(self, job_id: str, waiter: _Waiter) -> None:
        waiters = self._waiting.get(job_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiting.pop(job_id, None)

    async def _look(self) -> None:
        while self._waiting:
            if self._draining():
                for waiters in self._waiting.values():
                    _tell(waiters, None)
                return
            began = time.monotonic()
            try:
                await self._ask()
            except Exception as error:
                logs.logger().warning("jobs not watched", reason=str(error))
                self._pause = _AFTER_FAILURE
            spent = time.monotonic() - began
            self._joined.clear()
            pause, self._pause = self._pause, min(self._pause * 1.5, _LAST_LOOK)
            await asyncio.sleep(_PAUSES * spent)
            with contextlib.suppress(TimeoutError):  # somebody joins: no long pause
                async with asyncio.timeout(pause):
                    await self._joined.wait()
                    await asyncio.sleep(_FIRST_LOOK)

    async def _ask(self) -> None:
        known = {
            job_id: min(waiter.after for waiter in waiters)
            for job_id, waiters in self._waiting.items()
        }
        found = await asyncio.to_thread(self._jobs.newer, known)
        for job_id, job in found.items():
            waiters = self._waiting.get(job_id, [])
            if job is None:
                for waiter in waiters:
                    if not waiter.found.done():
                        waiter.found.set_exception(_gone(job_id))
            else:
                _tell([one for one in waiters if one.after < job.revision], job)


def _tell(waiters: list[_Waiter], job: Job | None) -> None:
    for waiter in waiters:
        if not waiter.found.done():
            waiter.found.set_result(job)


def _gone(job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id!r} any more")
