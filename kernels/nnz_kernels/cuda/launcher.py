"""What the back-end asks of a GPU, and of what stands in for one in tests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda.array import Memory
from nnz_kernels.cuda.registry import Kernel

#: Sizes of a grid or of a block of threads.
Dim = tuple[int, int, int]

#: The arguments of a launch as the driver takes them: a pointer to each.
Arguments = ctypes.Array[ctypes.c_void_p]


@dataclass(frozen=True, slots=True)
class Product:
    """A dense product ``C = A B`` of row-major matrices; C is float32.

    Attributes:
        rows: Of A and C.
        columns: Of B and C.
        depth: Columns of A, rows of B.
        a: Where A begins; its rows lie side by side.
        b: Where B begins.
        c: Where C begins.
        pitch: Elements from one row to the next, of B and of C.
        precision: Of A and B: ``fp32``, ``fp16`` or ``bf16``.
    """

    rows: int
    columns: int
    depth: int
    a: int
    b: int
    c: int
    pitch: int
    precision: str


class Launcher(Protocol):
    """One device, on which everything happens in order on one stream.

    Errors, all of them: DeviceMemoryError where memory does not suffice;
    DeviceLostError where the device cannot be used any more by this process.
    """

    @property
    def name(self) -> str:
        """Name of the device, version of driver and compiler: where it agrees, times
        do.
        """
        ...

    @property
    def processors(self) -> int:
        """How many multiprocessors it has."""
        ...

    def allocate(self, nbytes: int) -> Memory:
        """Take memory, aligned to 256 bytes."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return the bytes that are free and those that there are."""
        ...

    def upload(self, host: HostArray, address: int) -> None:
        """Copy an array in C order to the device; it may be changed at once after."""
        ...

    def download(self, address: int, host: HostArray) -> None:
        """Copy to an array in C order, after all that was asked before."""
        ...

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy on the device."""
        ...

    def zero(self, address: int, nbytes: int) -> None:
        """Write zeros."""
        ...

    def prepare(
        self, kernel: Kernel, grid: Dim, block: Dim, arguments: Arguments
    ) -> Callable[[], None]:
        """Return a launch that can be repeated; it keeps *arguments* alive."""
        ...

    @property
    def has_products(self) -> bool:
        """Whether a library of dense products is here."""
        ...

    def product(self, product: Product) -> Callable[[], None]:
        """Return a dense product that can be repeated."""
        ...

    def capture(self, calls: Callable[[], None]) -> Callable[[], None]:
        """Record the launches, copies and zeros of *calls* as one call."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was asked is done."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return facts for people: name, memory, driver, compute capability."""
        ...
