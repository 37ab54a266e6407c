"""Give memory back to the system that a load has used and freed."""

from __future__ import annotations

import ctypes
import gc

from nnz_kernels.backends import release_idle


def trim() -> bool:
    """Let malloc give back what is free; return False where it cannot be asked.

    A load reads a file and packs its weights several times over, and glibc keeps what
    was freed, up to several times the model, for allocations that never come.
    """
    gc.collect()
    return give_back()


def give_back() -> bool:
    """The same of what is free already, without holding anybody up."""
    release_idle()
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if found is None:
        return False
    found(0)
    return True
