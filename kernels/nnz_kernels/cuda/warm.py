"""Compile ahead, so that no request waits for a compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.kernels import CudaKernels

#: Told how many are done, of how many, and the name of the next.
Progress = Callable[[int, int, str], None]


def warm(kernels: CudaKernels, progress: Progress = lambda *_: None) -> int:
    """Compile every kernel for planes of this precision; CuPy keeps them on disk.

    Args:
        kernels: Of the device to compile for.
        progress: Called before each.

    Returns:
        How many there are.
    """
    others = {*registry.ELEMENTS} - {kernels.element, "float"}
    wanted = [k for k in registry.KERNELS if not others.intersection(k.template)]
    nothing = (ctypes.c_void_p * 1)()
    for number, kernel in enumerate(wanted):
        progress(number, len(wanted), kernel.expression)
        kernels.device.launcher.prepare(kernel, (1, 1, 1), (1, 1, 1), nothing)
    return len(wanted)
