from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from kernels.vector_cases import (
    U,
    V,
    W,
    pairs,
    random_vector,
    same,
    vector,
)

from nnz_kernels import cpu, reference
from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.cpu import stamps
from nnz_kernels.errors import StructureError

#: In no order: vectors in order need no workspace.
MIXED = U[::-1]

#: A dimension that is too large for bitmaps of so few entries.
FAR = 2_000

FOUND = sorted([*W, (5, -6), (6, 6)])


class InterruptedLoopError(Exception):
    """Stands for whatever ends a loop half way."""


class Interrupting(np.ndarray[Any, Any]):
    """An array of indices that raises when it has been read a number of times."""

    left: int

    @classmethod
    def of(cls, x: HostArray, steps: int) -> Interrupting:
        out = x.view(cls)
        out.left = steps
        return out

    def __getitem__(self, key: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise InterruptedLoopError
        return np.asarray(self)[key]


class TestWorkspace:
    @pytest.mark.parametrize("size", [FAR, 2_000_000_000])
    def test_failed_call_leaves_nothing(self, kernels: Kernels[Any], size: int) -> None:
        """After a call that ended half way the next answer is right."""
        workspace = Workspace()
        bad = vector([(0, 1), (5, 2), (6, 3), (5, 4), (7, 1)], size)

        with pytest.raises(StructureError):
            kernels.axpy(bad, 1.0, bad, workspace=workspace, duplicates="error")
        u, v = vector(MIXED, size), vector(V, size)
        w = kernels.axpy(u, -2.0, v, workspace=workspace)

        assert sorted(pairs(w)) == FOUND

    def test_reused_many_times(self, kernels: Kernels[Any]) -> None:
        """One workspace serves calls of every size, dense and hashed, in any order."""
        rng = np.random.default_rng(3)
        workspace = Workspace()

        for size in [40, 1_000_000_000, 7, 100_000, 1_000_000_000, 40]:
            u = random_vector(rng, size, 25, np.float64, np.int64)
            v = random_vector(rng, size, 30, np.float64, np.int64)
            w = kernels.axpy(u, 2.0, v, workspace=workspace)
            same(w, reference.axpy(u, 2.0, v), np.float64)

    @pytest.mark.parametrize("size", [FAR, 2_000_000_000])
    @pytest.mark.parametrize("steps", range(0, 40, 3))
    def test_interrupted_anywhere(self, size: int, steps: int) -> None:
        """Whatever cell the CPU's loop had reached, the next call is right."""
        workspace = Workspace()
        u, v = vector(MIXED, size), vector(V, size)
        cpu.axpy(u, 1.0, v, workspace=workspace)
        dense = size == FAR
        out = np.empty(14, np.int32), np.empty(14)

        with suppress(InterruptedLoopError):
            stamps.axpy.py_func(
                Interrupting.of(u.indices, steps),
                u.values,
                -2.0,
                Interrupting.of(v.indices, steps),
                v.values,
                *out,
                workspace.stamps,
                dense,
                stamps.SUM,
                False,
            )
        w = cpu.axpy(u, -2.0, v, workspace=workspace)

        assert sorted(pairs(w)) == FOUND

    def test_epoch_overflow(self) -> None:
        """When 31 bits of epochs are used up, the old stamps are forgotten at once."""
        workspace = Workspace()
        u, v = vector(MIXED, FAR), vector(V, FAR)
        cpu.axpy(u, -2.0, v, workspace=workspace)
        workspace.stamps[0] = stamps.LAST_EPOCH - 2

        for _ in range(4):
            w = cpu.axpy(u, -2.0, v, workspace=workspace)
            assert sorted(pairs(w)) == FOUND
        assert workspace.stamps[0] < 10

    def test_cost_ignores_the_dimension(self) -> None:
        """A call touches as many cells as it has entries, and memory does not grow."""
        workspace = Workspace()
        u, v = vector(MIXED, 2_000_000), vector(V, 2_000_000)
        workspace.reserve(2_000_000)

        cpu.axpy(u, -2.0, v, workspace=workspace)
        huge = Workspace()
        far = vector(MIXED, 2**53, index=np.int64)
        cpu.axpy(far, 1.0, far, workspace=huge)

        assert np.count_nonzero(workspace.stamps[1:]) == 10
        assert huge.nbytes < 1000

    def test_scratch_of_threads(self) -> None:
        """Calls without a workspace may run at once in many Python threads."""
        rng = np.random.default_rng(29)
        us = [random_vector(rng, 500, 60, np.float64, np.int32) for _ in range(40)]
        wanted = [cpu.axpy(u, 2.0, us[0]) for u in us]

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda u: cpu.axpy(u, 2.0, us[0]), us * 5))

        for k, w in enumerate(got):
            assert pairs(w) == pairs(wanted[k % 40])


class TestHash:
    @pytest.mark.parametrize("shift", [0, 8, 20, 36])
    def test_regular_indices_spread(self, shift: int) -> None:
        """Indices that are multiples of a power of two do not share a few cells."""
        counts, free = [], np.zeros(4097, np.int64)
        # One multiplier in some hundreds does badly: nine are drawn.
        for _ in range(9):
            epoch = int(Workspace().reserve(4096)[0]) + 2
            cells = {
                stamps._cell(
                    free, 4095, epoch, np.int64(i << shift), np.empty(0, np.int64)
                )
                for i in range(1024)
            }
            counts.append(len(cells))

        assert np.median(counts) > 700

    def test_cells_cannot_be_foreseen(self) -> None:
        """Else indices could be chosen that all meet in one cell."""
        epochs = {int(Workspace().reserve(100)[0]) for _ in range(20)}

        assert len(epochs) > 10
