"""How much the front doors let in: slots and bytes, reserved before a body is read.

The counters lie in the page that all processes of a server share, so the bounds hold
over all of them, exactly: they are compared and changed under one lock.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from nnz_service.dataplane import allowance
from nnz_service.dataplane.page import Page
from nnz_service.errors import OverloadedError, TooLargeError
from nnz_service.keys import ANYBODY, Caller
from nnz_service.keys.quota import burst_of, take


class Admission:
    """Bounds on what is under way; everything is O(1) and nothing waits.

    Args:
        slots: Requests at once, over all front doors.
        nbytes: Bytes of their bodies at once.
        page: Where the counters are; its own when nobody shares them.
        door: Row of this process.
    """

    def __init__(
        self, slots: int, nbytes: int, page: Page | None = None, door: int = 0
    ) -> None:
        self._slots = slots
        self._bytes = nbytes
        self._page = page or Page()
        # Views of this process's own counters: cheaper than numpy's items.
        self._own = memoryview(self._page.slots[door : door + 1])
        self._own_bytes = memoryview(self._page.bytes[door : door + 1])
        self._callers = memoryview(self._page.callers[door])
        with self._page.lock():  # what a predecessor held is free
            self._own[0] = self._own_bytes[0] = 0
            self._page.callers[door] = 0

    @property
    def used_slots(self) -> int:
        """Requests under way."""
        return sum(self._page.slots.tolist())

    @property
    def used_bytes(self) -> int:
        """Bytes of their bodies."""
        return sum(self._page.bytes.tolist())

    def reserve(
        self, nbytes: int, caller: Caller = ANYBODY, *, computes: bool = True
    ) -> Reservation:
        """Take one slot and so many bytes: the declared length, or the most allowed.

        Args:
            nbytes: Bytes.
            caller: Who asks.
            computes: Whether anything is computed for it: what is only fetched, such as
                the result of a job, is given to who has used up their computing.

        Raises:
            OverloadedError: when they are not free now, or the caller has asked for too
                much lately; it says when to try again.
            TooLargeError: when they could never be.
        """
        self._check_size(nbytes)
        with self._page.lock():
            self._check(nbytes, caller)
            self._take(caller, computes=computes)
            self._add(1, nbytes, caller)
        return Reservation(self, nbytes, caller)

    def _check(self, nbytes: int, caller: Caller) -> None:
        own = caller.quota.inflight
        if own is not None:
            under_way = int(self._page.callers[:, caller.row].sum())
            if under_way >= own:
                raise self._full(f"{under_way} requests of this key are under way")
        if self.used_slots >= self._slots:
            raise self._full(f"{self._slots} requests are being served already")
        self._check_bytes(nbytes)

    def _check_size(self, nbytes: int) -> None:
        if nbytes > self._bytes:
            raise TooLargeError(
                f"{nbytes} bytes pass the {self._bytes} bytes that all requests share "
                "(NNZ_MAX_INFLIGHT_BYTES)"
            )

    def _check_bytes(self, nbytes: int) -> None:
        if self.used_bytes + nbytes > self._bytes:
            raise self._full(
                f"requests being served hold {self.used_bytes} of {self._bytes} bytes; "
                f"{nbytes} more do not fit now"
            )

    def grow(self, held: int, nbytes: int, caller: Caller) -> None:
        """Take more bytes for a request that has a slot.

        Raises:
            OverloadedError: when they are not free now.
            TooLargeError: when they could never be.
        """
        self._check_size(nbytes)
        with self._page.lock():
            self._check_bytes(nbytes - held)
            self._add(0, nbytes - held, caller)

    def work_left(self, caller: Caller) -> float | None:
        """Return the seconds of computing left to a key now; None: without bound."""
        return allowance.left(self._page, caller)

    def _take(self, caller: Caller, *, computes: bool) -> None:
        """Take a request from the buckets of a key; those without bounds have none."""
        quota, now = caller.quota, time.monotonic()
        if quota.work is not None and computes:
            bucket = allowance.refilled(self._page, caller, quota.work)
            if bucket["tokens"] < 0:
                raise OverloadedError(
                    f"this key has used up its {quota.work:g} s of computing a minute",
                    retry_after=-float(bucket["tokens"])
                    / quota.work
                    * allowance.MINUTE,
                )
        if quota.rate is not None:
            bucket, burst = self._page.requests[caller.row], burst_of(quota.rate)
            state = float(bucket["tokens"]), float(bucket["last"])
            tokens, last, wait = take(*state, now, quota.rate, burst, 1)
            bucket["tokens"], bucket["last"] = tokens, last
            if wait:
                raise OverloadedError(
                    f"this key may send {quota.rate:g} requests a second",
                    retry_after=wait,
                )

    def _full(self, text: str) -> OverloadedError:
        return OverloadedError(text, retry_after=self._page.backlog())

    def _add(self, slots: int, nbytes: int, caller: Caller) -> None:
        self._own[0] += slots
        self._own_bytes[0] += nbytes
        self._callers[caller.row] += slots


class Reservation:
    """What one request holds; a context manager that gives it back."""

    def __init__(self, admission: Admission, nbytes: int, caller: Caller) -> None:
        self._admission = admission
        self._caller = caller
        self._held: int | None = nbytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def true_up(self, nbytes: int) -> None:
        """Hold what the body really has, now that it is known; more is not refused."""
        if self._held is not None:
            self._admission._add(0, nbytes - self._held, self._caller)
            self._held = nbytes

    def grow(self, nbytes: int) -> None:
        """Hold what the body has, if that is free.

        Raises:
            OverloadedError: when it is not; what was held is still held.
            TooLargeError: when it could never be.
        """
        if self._held is not None:
            self._admission.grow(self._held, nbytes, self._caller)
            self._held = nbytes

    def add(self, nbytes: int) -> None:
        """Hold so many bytes more, those of an answer, if they are free.

        Raises:
            OverloadedError: They are not.
            TooLargeError: They could never be.
        """
        if self._held is not None:
            self.grow(self._held + nbytes)

    def release(self) -> None:
        """Give everything back; a second time does nothing."""
        if self._held is not None:
            self._admission._add(-1, -self._held, self._caller)
            self._held = None
