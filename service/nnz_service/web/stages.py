"""The stages of one request, its deadline, and what is known of it on its way."""

from __future__ import annotations

from typing import cast

from starlette.requests import HTTPConnection

from nnz_service.dataplane.admission import Reservation
from nnz_service.gateway.timings import Timings


class Stages(Timings):
    """Where the time of one request went, and until when it may go on."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id
        self.deadline: float | None = None
        self.servable = ""
        #: Whether the whole body has arrived; what comes then is only the departure.
        self.received = False
        #: Bytes of the body as they came.
        self.bytes_in = 0
        #: What admission holds for the request, until it ends.
        self.reservation: Reservation | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline; None when there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self.elapsed())

    def shorten(self, microseconds: int | None) -> None:
        """Bring the deadline forward, as the caller asked; 0 and None do nothing."""
        if microseconds:
            asked = self.elapsed() + microseconds / 1e6
            self.deadline = min(asked, self.deadline or asked)


def stages_of(connection: HTTPConnection) -> Stages:
    """Return the stages that the outermost middleware began."""
    return cast(Stages, connection.scope["state"]["stages"])
