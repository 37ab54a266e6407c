"""Arrays that lie elsewhere than NumPy's, and work that is asked for ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from nnz_kernels.arrays import HostArray

Array = TypeVar("Array")

#: Work that can be asked for again and again.
Call = Callable[[], None]


class DeviceMemory(Protocol[Array]):
    """Where a back-end's arrays live, if not in the host's memory.

    What is asked for happens in order, and later than the call that asks returns.

    Errors, all of them: DeviceMemoryError, DeviceLostError.
    """

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Hold it from the first to the last step of what nobody may come between."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Take an array of any content."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Take an array of zeros."""
        ...

    def to_device(self, host: HostArray, target: Array | None = None) -> Array:
        """Copy an array to the device, into *target* if there is one."""
        ...

    def to_host(self, array: Array) -> HostArray:
        """Copy an array to the host, after all that was asked before."""
        ...

    def view(
        self,
        memory: Array,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> Array:
        """Return an array in the bytes of another, from *offset* on."""
        ...

    def record(self, ask: Callable[[], object]) -> Call:
        """Return what *ask* would start as one call, instead of starting it."""
        ...

    def capture(self, calls: Sequence[Call]) -> Call:
        """Make one call of several, which costs the host next to nothing to repeat."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was asked is done."""
        ...
