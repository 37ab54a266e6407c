from __future__ import annotations

import numpy as np
import pytest

from nnz_kernels.arrays import ALIGNMENT, arena


@pytest.mark.parametrize(
    "nbytes", [1, 1000, 1 << 20, (2 << 20) - 1, 2 << 20, 5_000_001]
)
def test_arena(nbytes: int) -> None:
    """Bytes to write, aligned, whether from malloc or in pages of their own."""
    memory = arena(nbytes)

    assert memory.shape == (nbytes,)
    assert memory.dtype == np.uint8
    assert memory.ctypes.data % (2 << 20 if nbytes >= 2 << 20 else ALIGNMENT) == 0
    memory[:] = 7
    assert int(memory.sum(dtype=np.int64)) == 7 * nbytes


def test_arenas_outlive_each_other() -> None:
    first, second = arena(3 << 20), arena(3 << 20)
    second[:] = 2
    first[:] = 1
    del first

    assert (second == 2).all()
