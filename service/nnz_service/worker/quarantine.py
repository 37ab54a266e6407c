"""Which loads took the worker down: so that one bad file cannot keep a server down."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import orjson

#: Ends of the worker during the load of one file before it is left out.
PATIENCE = 2


class Quarantine:
    """Counts on disk of loads that were never seen to end, by file.

    A stored file is named by its content, so that another file under the same name is
    another load. The supervisor forgets the counts when the server starts.

    Args:
        path: The file of the counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._counts = self._read()
        self._under_way: str | None = None

    def holds(self, file: Path) -> bool:
        """Whether loading a file has ended the worker too often."""
        return self._counts.get(str(file), 0) >= PATIENCE

    def enter(self, file: Path) -> None:
        """Note that a load begins; there is one at a time."""
        with self._lock:
            self._under_way = str(file)
            self._counts[str(file)] = self._counts.get(str(file), 0) + 1
            self._write()

    def leave(self) -> None:
        """Note that the load has ended, or that the worker is told to end."""
        with self._lock:
            if self._under_way is not None:
                self._counts.pop(self._under_way, None)
                self._under_way = None
                self._write()

    def _read(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            found = orjson.loads(self._path.read_bytes())
            return {str(file): int(times) for file, times in found.items()}
        return {}

    def _write(self) -> None:
        # A full disk must not keep a good file from being loaded.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(orjson.dumps(self._counts))
