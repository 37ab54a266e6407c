"""Which load took the worker down: so that one bad model cannot keep a server down."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson

#: Ends of the worker during the load of one model before it is left out.
PATIENCE = 2


class Quarantine:
    """A note on disk of the load under way; whoever finds it there knows how it ended.

    Args:
        path: The file of the note.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before, self._times = self._read()

    def enter(self, name: str, version: str) -> bool:
        """Note that a load begins; False when it has ended the worker too often."""
        times = self._times if self._before == (name, version) else 0
        if times >= PATIENCE:
            self.leave()
            return False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        note = {"name": name, "version": version, "times": times + 1}
        self._path.write_bytes(orjson.dumps(note))
        return True

    def leave(self) -> None:
        """Note that the load has ended, or that the worker is told to end."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[tuple[str, str] | None, int]:
        with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError):
            note = orjson.loads(self._path.read_bytes())
            return (str(note["name"]), str(note["version"])), int(note["times"])
        return None, 0
