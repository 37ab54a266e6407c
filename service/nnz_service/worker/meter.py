"""Counts what each key has had computed, and takes it from the quota of the key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

from nnz_service.dataplane import Page, allowance
from nnz_service.keys import Keyring

Kind = Literal["requests", "jobs"]


class Meter:
    """Seconds of computing by key, since the worker started. Thread-safe.

    Args:
        page: Where the quotas are.
        home: Where the keys are.
    """

    def __init__(self, page: Page, home: Path) -> None:
        self._page = page
        self._keyring = Keyring(home=home)
        self._lock = threading.Lock()
        self._seconds: dict[str, dict[Kind, float]] = {}

    def charge(self, kind: Kind, owner: str, seconds: float) -> None:
        """Write down what was computed.

        Args:
            kind: For what.
            owner: Id of the key that asked; empty for anybody.
            seconds: Of computing.
        """
        if seconds <= 0:
            return
        with self._lock:
            row = self._seconds.get(owner)
            if row is None:
                row = self._seconds[owner] = {"requests": 0.0, "jobs": 0.0}
            row[kind] += seconds
            holder = self._keyring.holder(owner) if owner else None
        if holder is not None:
            allowance.charge(self._page, holder, seconds)

    def to_json(self) -> dict[str, dict[Kind, float]]:
        """Return the seconds of each key, by its id."""
        with self._lock:
            return {owner: dict(row) for owner, row in self._seconds.items()}
