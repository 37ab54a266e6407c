"""Copies of arrays that stay on a device while there is room; the host without it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import DeviceLimitError, DeviceMemoryError

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: All of this process, to make room.
_ALL: weakref.WeakSet[Copies] = weakref.WeakSet()


class Copies:
    """Arrays of the host that do not change, each copied at its first use.

    Args:
        device: Where copies are made.
    """

    def __init__(self, device: DeviceMemory[Any]) -> None:
        self._device = device
        # An array is held with its copy, so that no other gets its address meanwhile.
        self._held: dict[object, tuple[HostArray, Any]] = {}
        self._lock = threading.Lock()
        _ALL.add(self)

    def add(self, array: HostArray) -> None:
        """Keep a copy of an array, and of views that are equal to it, from now on."""
        with self._lock:
            self._held.setdefault(_key(array), (array, None))

    def moved(self, array: HostArray) -> Any:
        """Return an array on the device: the copy that is kept, or one of its own."""
        key = _key(array)
        held = self._held.get(key)
        if held is None:
            return self._device.to_device(array)
        if held[1] is not None:
            return held[1]
        copy = self._device.to_device(array)
        with self._lock:
            self._held[key] = held[0], copy
        return copy

    def drop(self) -> bool:
        """Let go of all copies until they are needed again; whether there were any."""
        with self._lock:
            had = any(copy is not None for _, copy in self._held.values())
            self._held = {key: (array, None) for key, (array, _) in self._held.items()}
        return had


def with_room(there: Callable[[], T]) -> T:
    """Do something on a device; copies that are only kept go if there is no room.

    Raises:
        DeviceMemoryError: There is none without them.
    """
    try:
        return there()
    except DeviceMemoryError:
        dropped = [each.drop() for each in list(_ALL)]
        if not any(dropped):
            raise
    # Behind the handler, for the error holds what was there already.
    return there()


def or_host(
    what: str,
    there: Callable[[], T],
    here: Callable[[], T],
    tell: Callable[[str], None],
) -> T:
    """Do something on a device, or here what it has no room or no numbers for.

    Args:
        what: Its name, for the log.
        there: Does it on the device.
        here: Does the same on the host.
        tell: Is told why, if it was done on the host.
    """
    try:
        return with_room(there)
    except (DeviceMemoryError, DeviceLimitError) as exc:
        why = f"{what} runs on the CPU: {exc}"
    _log.warning(why)
    tell(why)
    return here()


def _key(array: HostArray) -> object:
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype.str
