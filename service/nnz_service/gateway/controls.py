"""What callers may change in a running server, the same for all of its processes."""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnz_service import logs
from nnz_service.errors import ServiceError
from nnz_service.gateway.log_levels import LogLevels
from nnz_service.gateway.regions import Regions
from nnz_service.gateway.tracing import Tracing
from nnz_service.keys import is_loopback
from nnz_service.shared_file import SharedFile

#: Where this is written down, below the home; a new server begins with none of it.
LIVE = Path("run") / "live"
_PAUSE = 0.5  # seconds until a change is seen by the other processes


@dataclass(frozen=True, slots=True)
class Controls:
    """Shared memory regions, levels of the log, traces."""

    regions: Regions
    logging: LogLevels
    tracing: Tracing

    async def follow(self) -> None:
        """Take over what other processes change, until cancelled."""
        await _repeat(self.look)

    def look(self) -> None:
        """Take over what was changed since the last look; blocks for a moment."""
        _look(self.logging.follow, self.tracing.follow)


def open_controls(home: Path, *, shared_memory: bool = False) -> Controls:
    """Open the controls of the server that has this home.

    Args:
        home: NNZ_HOME.
        shared_memory: Whether clients may lend memory.
    """
    live = home / LIVE
    return Controls(
        Regions(SharedFile(live / "regions.json"), enabled=shared_memory),
        _log_levels(home),
        Tracing(SharedFile(live / "tracing.json"), home / "traces"),
    )


async def follow_log(home: Path) -> None:
    """Let the log of this process be what callers ask for, until cancelled.

    For processes that callers do not reach.

    Args:
        home: NNZ_HOME.
    """
    look = functools.partial(_look, _log_levels(home).follow)
    await asyncio.to_thread(look)
    await _repeat(look)


def lends_memory(host: str, asked: bool | None) -> bool:
    """Whether clients may lend memory: by default where all are on this machine.

    Args:
        host: The address that the server listens on.
        asked: What a setting says, if it says anything.
    """
    return is_loopback(host) if asked is None else asked


def forget_controls(home: Path) -> None:
    """Remove what an earlier server of this home was told, and what it counted."""
    shutil.rmtree(home / LIVE, ignore_errors=True)


def _log_levels(home: Path) -> LogLevels:
    return LogLevels(SharedFile(home / LIVE / "logging.json"))


async def _repeat(look: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_PAUSE)
        await asyncio.to_thread(look)


def _look(*parts: Callable[[], None]) -> None:
    try:
        for follow in parts:
            follow()
    except (ServiceError, OSError) as error:
        logs.logger().warning("settings cannot be read", error=str(error))
