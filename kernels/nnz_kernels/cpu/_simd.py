"""Register shapes of the product kernel on the machine that numba compiles for."""

from __future__ import annotations

import platform

from nnz_kernels.cpu import _runtime

#: Floats in one vector register.
LANES = _runtime.vector_floats()

#: Whether there are 32 vector registers (AVX-512, Neon) and not 16 (AVX2, SSE).
MANY_REGISTERS = LANES == 16 or platform.machine() in ("aarch64", "arm64")

#: Vectors of pixels that a micro-kernel of so many output rows keeps in registers, at
#: most: rows x vectors accumulators, the vectors of the input, one weight.
WIDTHS = {1: 8, 2: 8, 4: 6, 8: 3} if MANY_REGISTERS else {1: 8, 2: 4, 4: 3}

#: Rows of the widest micro-kernel; wider blocks run as several of these.
TALLEST = max(WIDTHS)
