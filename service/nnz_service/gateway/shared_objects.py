"""POSIX shared memory objects: their names, and which of them may be used.

An object must be a regular file in /dev/shm that belongs to the user of the server,
also when that is root, for a caller must not reach through the server what belongs to
somebody else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nnz_service.errors import ImpossibleError, MalformedError

#: Where they lie.
OBJECTS = Path("/dev/shm")  # noqa: S108 - the kernel's folder for them
#: Bytes of a name in that folder.
MAX_NAME = 255


def open_object(path: Path, how: int) -> int:
    """Open a shared memory object; a link is not followed.

    Raises:
        OSError: It cannot be opened.
    """
    # Not blocking: what has the name may be a pipe that nobody writes to.
    return os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def inspect_object(path: Path, key: str, end: int) -> os.stat_result:
    """Look at an object that is to be registered.

    Raises:
        ImpossibleError: It is not there, not ours, or ends before `end`.
    """
    try:
        handle = open_object(path, os.O_RDWR)
    except OSError as error:
        raise ImpossibleError(
            f"the shared memory object {key!r} cannot be opened: {error.strerror}"
        ) from error
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    if not stat.S_ISREG(found.st_mode):
        raise ImpossibleError(f"{key!r} is not a shared memory object")
    if found.st_uid != os.geteuid():
        raise ImpossibleError(
            f"the shared memory object {key!r} belongs to user {found.st_uid}; this "
            f"server takes only those of its own user, {os.geteuid()}"
        )
    if end > found.st_size:
        raise ImpossibleError(
            f"the shared memory object {key!r} has {found.st_size} bytes; offset and "
            f"byte_size end at {end}"
        )
    return found


def component(key: object) -> str:
    """Return the file name that a key means.

    Raises:
        MalformedError: It is not "name" or "/name".
    """
    name = key.removeprefix("/") if isinstance(key, str) else ""
    usable = name not in ("", ".", "..") and not {"/", "\0"} & set(name)
    # A lone surrogate, which JSON can hold, is no text.
    if not usable or not 0 < len(name.encode(errors="replace")) <= MAX_NAME:
        raise MalformedError(
            f"'key' is {str(key)[:80]!r}; it must be the name of a shared memory "
            f"object, with or without a leading slash, of at most {MAX_NAME} bytes"
        )
    return name
