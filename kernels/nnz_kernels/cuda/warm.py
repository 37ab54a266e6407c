"""Compile ahead, so that no request waits for a compiler."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.kernels import CudaKernels

#: Threads that compile at most.
_MOST = 16

#: Told how many are done, of how many, and the name of the next.
Progress = Callable[[int, int, str], None]


def warm(kernels: CudaKernels, progress: Progress = lambda *_: None) -> int:
    """Compile every kernel for planes of this precision; CuPy keeps them on disk.

    Args:
        kernels: Of the device to compile for.
        progress: Called before each is waited for; several are compiled at once.

    Returns:
        How many there are.
    """
    others = {*registry.ELEMENTS} - {kernels.element, "float"}
    wanted = [k for k in registry.KERNELS if not others.intersection(k.template)]
    nothing = (ctypes.c_void_p * 1)()

    def compile_one(kernel: registry.Kernel) -> None:
        kernels.device.launcher.prepare(kernel, (1, 1, 1), (1, 1, 1), nothing)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST)) as pool:
        waiting = [pool.submit(compile_one, kernel) for kernel in wanted]
        try:
            for number, (kernel, one) in enumerate(zip(wanted, waiting, strict=True)):
                progress(number, len(wanted), kernel.expression)
                one.result()
        finally:  # of those that have not begun: nobody waits for them
            pool.shutdown(cancel_futures=True)
    return len(wanted)
