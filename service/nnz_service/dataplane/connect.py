"""From the sockets of workers to the one `Dataplane` that a front door asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnz_service.dataplane.client import SocketDataplane
from nnz_service.dataplane.fleet import FleetDataplane
from nnz_service.dataplane.page import Page
from nnz_service.dataplane.steady import SteadyDataplane

if TYPE_CHECKING:
    from nnz_service.dataplane import Dataplane


def connect(workers: Sequence[Path], page: Page) -> Dataplane:
    """Return the way to one worker or to several, not yet begun.

    Args:
        workers: Where each listens, or will.
        page: Where they mark what they compute.
    """
    members = [SocketDataplane(path) for path in workers]
    whole = members[0] if len(members) == 1 else FleetDataplane(members)
    return SteadyDataplane(whole, page)
