"""Measured choices of kernels, kept in a file for the next load.

Times of another machine, thread count or version of the kernels say nothing here, so
the file's name holds the identity of the back-end and an entry's key the whole problem.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

#: Entries of one file; beyond them the oldest go.
MOST = 4096


class Choices:
    """Entries by key; lost or broken files only cost a measurement.

    Args:
        folder: Where the file is; None keeps entries for this load only.
        identity: Of the back-end, see ``ConvOps.identity``.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        self._file = None if folder is None else folder / f"{identity}.json"
        self._held = self._read()
        self._new: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        """Return an entry, or None."""
        return self._new.get(key, self._held.get(key))

    def put(self, key: str, entry: Any) -> None:
        """Add an entry, which `save` writes."""
        self._new[key] = entry

    def save(self) -> None:
        """Write new entries beside those that others wrote meanwhile.

        A cache that cannot be written is no error: the image's may be read-only.
        """
        if self._file is None or not self._new:
            return
        entries = {**self._read(), **self._new}
        kept = dict(list(entries.items())[-MOST:])
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._file.parent, suffix=".new")
            try:
                with os.fdopen(handle, "w") as out:
                    json.dump(kept, out)
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        self._held, self._new = entries, {}

    def _read(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
