"""How much the web side lets in: slots and bytes, reserved before a body is read."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nnz_service.errors import OverloadedError, TooLargeError


class Admission:
    """Two counters of one event loop; everything is O(1) and nothing waits.

    Args:
        slots: Requests at once.
        nbytes: Bytes of their bodies at once.
    """

    def __init__(self, slots: int, nbytes: int) -> None:
        self._slots = slots
        self._bytes = nbytes
        self.used_slots = 0
        self.used_bytes = 0

    def reserve(self, nbytes: int) -> Reservation:
        """Take one slot and so many bytes: the declared length, or the most allowed.

        Raises:
            OverloadedError: when they are not free now.
            TooLargeError: when they could never be.
        """
        if nbytes > self._bytes:
            raise TooLargeError(
                f"a body of {nbytes} bytes passes the {self._bytes} bytes that all "
                "requests share"
            )
        if self.used_slots >= self._slots:
            raise OverloadedError(f"{self._slots} requests are being served already")
        if self.used_bytes + nbytes > self._bytes:
            raise OverloadedError(
                f"requests being served hold {self.used_bytes} of {self._bytes} bytes; "
                f"{nbytes} more do not fit now"
            )
        self.used_slots += 1
        self.used_bytes += nbytes
        return Reservation(self, nbytes)


class Reservation:
    """What one request holds; a context manager that gives it back."""

    def __init__(self, admission: Admission, nbytes: int) -> None:
        self._admission = admission
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
            self._admission.used_bytes += nbytes - self._held
            self._held = nbytes

    def release(self) -> None:
        """Give everything back; a second time does nothing."""
        if self._held is not None:
            self._admission.used_slots -= 1
            self._admission.used_bytes -= self._held
            self._held = None
