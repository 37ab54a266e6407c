"""Temporary folders of a process that go even when it is killed.

A server puts them below its home: a disk that is known to be there and to be large,
while `/tmp` is often memory. Each process has a folder of its own there, which it holds
locked for as long as it lives, by whatever signal it ends; the next one that starts
removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nnz_service.shared_file import locked

#: Held while folders are made or removed: one that is new is not held yet.
_LOCK = "lock"

#: Where temporary folders of this process go; None: where the system has them.
_own: Path | None = None


def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder, which is removed when it is closed or collected.

    Args:
        prefix: How its name begins.
    """
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_own)


@contextlib.contextmanager
def below(root: Path) -> Iterator[None]:
    """Have the temporary folders of this process below a folder, in the block.

    First removes what processes that have ended left there.

    Args:
        root: Made when it is not there. Several processes may share it.

    Raises:
        UnavailableError: Somebody has held its lock for seconds.
    """
    global _own
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / _LOCK):
        sweep(root)
        own = Path(tempfile.mkdtemp(dir=root))  # made with mode 0700
        handle = hold(own)
    before, _own = _own, own
    try:
        yield
    finally:
        _own = before
        shutil.rmtree(own, ignore_errors=True)
        os.close(handle)


def sweep(root: Path) -> None:
    """Remove folders that nobody holds; who calls it keeps others from making one."""
    for left in root.iterdir():
        with contextlib.suppress(OSError):  # held, no folder, or not ours
            handle = hold(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)


def hold(folder: Path) -> int:
    """Lock a folder for as long as the descriptor is open or this process lives.

    Raises:
        OSError: Somebody else holds it, or it is no folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
