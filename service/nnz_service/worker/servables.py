"""Which servables are resident, and what became of those that are not."""

from __future__ import annotations

import enum
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnz_kernels.errors import DeviceMemoryError
from nnz_service import logs
from nnz_service.engine.heap import give_back
from nnz_service.errors import (
    ConflictError,
    DeviceFullError,
    NotFoundError,
    NotLoadedError,
    ServiceError,
    UnavailableError,
)
from nnz_service.servable import Servable
from nnz_service.worker.statistics import Counters

#: Seconds after which what could not be loaded is worth another try.
_PAUSE = 1.0

Loader = Callable[[str, Path], Servable]


class State(enum.StrEnum):
    """States of the protocol's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(eq=False, slots=True)
class Entry:
    """One servable, whatever its state.

    `loaded` is done once that is decided, by `task`. Its result is not the entry: each
    would hold the other, and an unloaded matrix would stay until the garbage collector
    comes by. A `passing` one is there for those who wait for it alone.
    """

    name: str
    version: str
    kind: str
    path: Path | None = None
    state: State = State.LOADING
    reason: str = ""
    servable: Servable | None = None
    counters: Counters = field(default_factory=Counters)
    used: float = field(default_factory=time.monotonic)
    pinned: bool = False
    passing: bool = False
    waiting: int = 0
    ended: float = math.inf
    task: Future[None] = field(default_factory=Future)
    loaded: Future[None] = field(default_factory=Future)

    @property
    def ready(self) -> Servable:
        """The servable itself.

        Raises:
            UnavailableError: while it is not there.
        """
        if self.servable is None:
            error = NotLoadedError if self.failed else UnavailableError
            raise error(
                f"{self.kind} {self.name!r} version {self.version} is {self.state}"
                + (f": {self.reason}" if self.reason else "")
            )
        return self.servable

    @property
    def failed(self) -> bool:
        """Whether it could not be loaded."""
        return self.state is State.UNAVAILABLE

    @property
    def may_recover(self) -> bool:
        """Whether it is worth another try: what failed may have been the machine."""
        return self.kind == "matrix" and time.monotonic() - self.ended > _PAUSE

    @property
    def nbytes(self) -> int:
        """Bytes held; 0 while it is not resident."""
        return 0 if self.servable is None else self.servable.nbytes

    def to_json(self) -> dict[str, str]:
        """One row of the index."""
        names = ("name", "version", "kind", "state", "reason")
        return {name: str(getattr(self, name)) for name in names}


class Registry:
    """Resident servables by name and version; thread-safe.

    Args:
        loader: Turns a kind and a file into a servable; called on a thread of its own,
            one file at a time, because a load wants all the memory it can get.
        budget: Bytes that matrices may hold together; when one more was loaded, those
            go that were not used for the longest time. None for no bound.
    """

    def __init__(self, loader: Loader, budget: int | None = None) -> None:
        self._loader = loader
        self._budget = budget
        self._entries: dict[str, dict[str, Entry]] = {}  # by name and version
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="load")

    def close(self) -> None:
        """Forget what waits to be loaded and let go of everything."""
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            self._entries.clear()

    def load(
        self,
        kind: str,
        name: str,
        version: str,
        path: Path,
        *,
        pinned: bool = False,
        passing: bool = False,
    ) -> Entry:
        """Start to load a file; one that is resident or under way is taken.

        Another file under the same name and version takes the place of the first. A
        *passing* one is not loaded if all who `join` have left before its turn.
        """
        with self._lock:
            entry = self._entries.get(name, {}).get(version)
            if entry is not None and entry.path == path and not entry.failed:
                entry.passing = entry.passing and passing
                return entry
            entry = Entry(name, version, kind, path, pinned=pinned, passing=passing)
            self._entries.setdefault(name, {})[version] = entry
            entry.task = self._pool.submit(self._load, entry, path)
        return entry

    def join(self, entry: Entry) -> bool:
        """Wait for a load from now on; False for one that was dropped already."""
        with self._lock:
            entry.waiting += 1
            return not entry.loaded.cancelled()

    def leave(self, entry: Entry) -> None:
        """Wait no more; a load that nobody waits for, and has not begun, is dropped."""
        with self._lock:
            entry.waiting -= 1
            if entry.waiting or not entry.passing or not entry.task.cancel():
                return
            entry.loaded.cancel()
            if self._entries.get(entry.name, {}).get(entry.version) is entry:
                del self._entries[entry.name]

    def resident(self, name: str, version: str | None = None) -> Entry | None:
        """Return what `find` would, if it is there and ready."""
        try:
            entry = self.find(name, version)
        except NotFoundError:
            return None
        return entry if entry.state is State.READY else None

    def refuse(self, kind: str, name: str, version: str, reason: str) -> None:
        """List something that will not be loaded, with the reason."""
        entry = Entry(name, version, kind, None, State.UNAVAILABLE, reason)
        with self._lock:
            self._entries.setdefault(name, {})[version] = entry

    def unload(self, name: str, version: str | None = None) -> int:
        """Drop one version or all; requests under way end undisturbed."""
        with self._lock:
            held = self._entries.pop(name, {})
            kept = {k: e for k, e in held.items() if version not in (None, k)}
            if kept:
                self._entries[name] = kept
        if gone := len(held) - len(kept):
            self._pool.submit(give_back)
        return gone

    def find(self, name: str, version: str | None = None) -> Entry:
        """The version asked for, or the newest that is ready, else the newest.

        Raises:
            NotFoundError: when nothing of that name and version is here.
        """
        with self._lock:
            held = self._entries.get(name, {})
            found = [e for e in held.values() if version in (None, e.version)]
        if not found:
            suffix = "" if version is None else f" version {version}"
            raise NotFoundError(f"there is no model or matrix {name!r}{suffix}")
        best = max(found, key=lambda e: (e.state is State.READY, int(e.version)))
        best.used = time.monotonic()
        return best

    def pin(self, name: str, on: bool) -> None:
        """Keep a matrix resident whatever else is loaded, or not any more.

        Raises:
            ConflictError: Pinned ones would take more than the budget.
        """
        with self._lock:
            entries = [*self._entries.get(name, {}).values()]
            others = sum(e.nbytes for e in self._matrices() if e.pinned)
            own = sum(e.nbytes for e in entries if not e.pinned)
            if on and self._budget is not None and others + own > self._budget:
                raise ConflictError(
                    f"{name} takes {own} bytes and pinned matrices {others}; together "
                    f"they may take {self._budget} (NNZ_MATRIX_BYTES)"
                )
            for entry in entries:
                entry.pinned = on

    def residents(self) -> dict[str, Any]:
        """Describe the matrices that are resident, the one used last first."""
        with self._lock:
            held = sorted(self._matrices(), key=lambda entry: -entry.used)
        now = time.monotonic()
        rows = [
            {
                "name": entry.name,
                "bytes": entry.nbytes,
                "pinned": entry.pinned,
                "idle_seconds": now - entry.used,
            }
            for entry in held
        ]
        total = sum(entry.nbytes for entry in held)
        return {"budget": self._budget, "bytes": total, "matrices": rows}

    def _matrices(self) -> list[Entry]:
        """Return those that are resident; the caller holds the lock."""
        entries = (e for held in self._entries.values() for e in held.values())
        return [e for e in entries if e.kind == "matrix" and e.servable is not None]

    def _evict(self, newest: Entry) -> None:
        """Let go of matrices, oldest use first, until the rest fit the budget."""
        if self._budget is None or newest.kind != "matrix":
            return
        with self._lock:
            held = sorted(self._matrices(), key=lambda entry: entry.used)
            total = sum(entry.nbytes for entry in held)
            gone = []
            for entry in held:
                if total <= self._budget:
                    break
                if entry is newest or entry.pinned:
                    continue
                total -= entry.nbytes
                gone.append(entry)
                del self._entries[entry.name]
        for entry in gone:
            logs.logger().info("matrix evicted", name=entry.name, bytes=entry.nbytes)
        if gone:
            del held, gone
            give_back()

    def index(self) -> list[Entry]:
        """Everything known, by name and version."""
        with self._lock:
            entries = [e for held in self._entries.values() for e in held.values()]
        return sorted(entries, key=lambda entry: (entry.name, int(entry.version)))

    def _load(self, entry: Entry, path: Path) -> None:
        try:
            entry.servable = self._loader(entry.kind, path)
        except Exception as error:
            entry.reason = str(error) or type(error).__name__
            entry.state = State.UNAVAILABLE
            entry.ended = time.monotonic()
            entry.loaded.set_exception(_as_service_error(entry, error))
            return
        entry.state = State.READY
        entry.loaded.set_result(None)
        self._evict(entry)


def _as_service_error(entry: Entry, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, DeviceMemoryError):
        return DeviceFullError(str(error))
    logs.logger().error("loading failed", name=entry.name, exc_info=error)
    message = f"loading {entry.name!r} failed: {type(error).__name__}: {error}"
    found = ServiceError(message)
    found.__cause__ = error  # a job looks whether it may pass
    return found


def metadata(entry: Entry, versions: list[str]) -> dict[str, Any]:
    """Describe a resident servable, as the dataplane's `metadata` answers."""
    servable = entry.ready
    return {
        "name": entry.name,
        "version": entry.version,
        "versions": versions,
        "kind": servable.kind,
        "state": entry.state,
        "inputs": [spec.to_json() for spec in servable.inputs],
        "outputs": [spec.to_json() for spec in servable.outputs],
        "max_batch_size": servable.max_batch,
        "nbytes": servable.nbytes,
    }
