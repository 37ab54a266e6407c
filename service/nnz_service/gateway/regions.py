"""Shared memory that clients on this machine lend for inputs and outputs.

The system shared memory extension of the protocol: a client makes a POSIX shared
memory object, registers a part of it as a *region*, and then names places in the
region instead of sending bytes.

Nothing is mapped. A client may truncate its object at any time, and a process that
then touches the mapping dies of SIGBUS; `preadv` on the same object only comes back
short. Nothing is kept open either: an open, a look and a close cost microseconds, and
a region that is gone holds no memory. What is read is a copy, which the client cannot
change after it was checked.

An object is known by its inode: one that was removed and made again has to be
registered again. `shared_objects` says which may be lent at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import (
    ConflictError,
    ImpossibleError,
    MalformedError,
    NotFoundError,
    NotOfferedError,
    RegisteredError,
    StorageFullError,
)
from nnz_service.gateway.shared_objects import (
    MAX_NAME,
    OBJECTS,
    component,
    inspect_object,
    open_object,
)
from nnz_service.shared_file import SharedFile

_MAX_REGIONS = 1024
_OFF = "this server offers no shared memory; NNZ_SHARED_MEMORY=true turns it on"


@dataclass(frozen=True, slots=True)
class Place:
    """So many bytes of a region, for one tensor."""

    region: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a shared memory object, under a name.

    Args:
        key: Name of the object, as the client gave it.
        offset: Where the region begins in the object.
        byte_size: Its length.
        device: Where the object is, by which it is known again.
        inode: See `device`.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    device: int
    inode: int

    def to_json(self) -> dict[str, Any]:
        """The form of a status answer."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


class Regions:
    """The regions of one server, the same in all of its processes; thread-safe.

    `register` and `unregister` block for a moment, `read` and `write` as long as the
    copy takes: from an event loop, call them in a thread.

    Args:
        file: Where they are written down.
        enabled: Whether clients may lend memory at all.
        objects: The folder of shared memory objects.
    """

    def __init__(
        self, file: SharedFile, *, enabled: bool, objects: Path = OBJECTS
    ) -> None:
        self.enabled = enabled
        self._file = file
        self._objects = objects

    def register(self, name: str, key: object, offset: object, nbytes: object) -> None:
        """Take a part of an object as a region.

        Raises:
            NotOfferedError: Shared memory is off.
            MalformedError: A member is not what the protocol says.
            RegisteredError: There is a region of that name.
            ImpossibleError: There is no such object, it belongs to another user or is
                too short, or there are too many regions.
        """
        self._need()
        if not 0 < len(name) <= MAX_NAME or "\0" in name:
            raise MalformedError(f"a region's name has 1 to {MAX_NAME} characters")
        start, length = _size(offset, "offset", 0), _size(nbytes, "byte_size", 1)
        path = self._objects / component(key)
        with self._file.change() as regions:
            if name in regions:
                raise RegisteredError(
                    f"shared memory region {name!r} is registered already; "
                    "unregister it first"
                )
            if len(regions) >= _MAX_REGIONS:
                raise ImpossibleError(f"there are {_MAX_REGIONS} regions already")
            found = inspect_object(path, str(key), start + length)
            region = Region(name, str(key), start, length, found.st_dev, found.st_ino)
            regions[name] = asdict(region)

    def unregister(self, name: str | None = None) -> None:
        """Forget one region, or all; one that is not there is forgotten already.

        Raises:
            NotOfferedError: Shared memory is off.
        """
        self._need()
        with self._file.change() as regions:
            if name is None:
                regions.clear()
            else:
                regions.pop(name, None)

    def status(self, name: str | None = None) -> list[Region]:
        """Return one region, or all.

        Raises:
            NotFoundError: There is none of that name.
        """
        if name is not None:
            return [self._find(name)]
        return [Region(**fields) for fields in self._file.read().values()]

    def check(self, place: Place) -> Region:
        """Return the region of a place inside it; the object is not looked at.

        Raises:
            NotOfferedError: Shared memory is off.
            NotFoundError: There is no such region.
            ImpossibleError: The place is not inside.
        """
        self._need()
        region = self._find(place.region)
        if place.offset + place.nbytes > region.byte_size:
            raise ImpossibleError(
                f"shared memory region {region.name!r} has {region.byte_size} bytes; "
                f"{place.nbytes} bytes at offset {place.offset} end at "
                f"{place.offset + place.nbytes}"
            )
        return region

    def read(self, place: Place) -> NDArray[np.uint8]:
        """Copy the bytes of a place out.

        Raises:
            ConflictError: The object was removed, replaced or truncated.
            ServiceError: As `check`.
        """
        region = self.check(place)
        copy = np.empty(place.nbytes, np.uint8)
        start, done = region.offset + place.offset, 0
        with self._opened(region, os.O_RDONLY) as handle:
            while done < place.nbytes:
                got = os.preadv(handle, [copy.data[done:]], start + done)
                if not got:
                    raise _shrunk(region, start + done, start + place.nbytes)
                done += got
        return copy

    def write(self, place: Place, data: NDArray[np.uint8]) -> None:
        """Copy bytes to the beginning of a place.

        Args:
            place: At least as long as the data.
            data: Flat and contiguous.

        Raises:
            ImpossibleError: The place is too short for the data.
            ConflictError: The object was removed, replaced or truncated.
            StorageFullError: The machine has no memory for it.
            ServiceError: As `check`.
        """
        if data.nbytes > place.nbytes:
            raise ImpossibleError(
                f"{data.nbytes} bytes do not fit into the {place.nbytes} bytes given "
                f"for them in shared memory region {place.region!r} "
                "(shared_memory_byte_size)"
            )
        region = self.check(place)
        start, done = region.offset + place.offset, 0
        with self._opened(region, os.O_RDWR) as handle:
            size = os.fstat(handle).st_size
            if size < start + data.nbytes:  # writing would make it longer again
                raise _shrunk(region, size, start + data.nbytes)
            try:
                while done < data.nbytes:
                    done += os.pwritev(handle, [data.data[done:]], start + done)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise StorageFullError(
                    "the machine has no shared memory left for the output"
                ) from error

    def _need(self) -> None:
        if not self.enabled:
            raise NotOfferedError(_OFF)

    def _find(self, name: str) -> Region:
        fields = self._file.read().get(name)
        if fields is None:
            raise NotFoundError(
                f"there is no shared memory region {name[:MAX_NAME]!r}; register it "
                "before it is used"
            )
        return Region(**fields)

    @contextlib.contextmanager
    def _opened(self, region: Region, how: int) -> Iterator[int]:
        """Open the object of a region for a moment, if it is still the same."""
        path = self._objects / component(region.key)
        try:
            handle = open_object(path, how)
        except OSError as error:
            raise _gone(region, error.strerror or "it cannot be opened") from error
        try:
            found = os.fstat(handle)
            if (found.st_dev, found.st_ino) != (region.device, region.inode):
                raise _gone(region, "another was made in its place")
            yield handle
        finally:
            os.close(handle)


def refuse_cuda() -> NoReturn:
    """Refuse memory on a GPU, which no front door takes.

    Raises:
        NotOfferedError: Always.
    """
    raise NotOfferedError(
        "this server takes no CUDA shared memory; use system shared memory, or send "
        "the bytes"
    )


def _size(value: object, what: str, least: int) -> int:
    if type(value) is int and least <= value < 2**62:
        return value
    raise MalformedError(
        f"'{what}' is {str(value)[:40]!r}; it must be a number of bytes, at least "
        f"{least}"
    )


def _gone(region: Region, reason: str) -> ConflictError:
    return ConflictError(
        f"the object {region.key!r} of shared memory region {region.name!r} is not "
        f"what was registered ({reason}); register the region again"
    )


def _shrunk(region: Region, size: int, end: int) -> ConflictError:
    return ConflictError(
        f"the object {region.key!r} of shared memory region {region.name!r} was "
        f"truncated: it ends at {size}, the tensor at {end}"
    )
