"""Primal-dual hybrid gradients on the device: two launches an iteration, in a graph.

A call uploads three numbers and replays a graph that is recorded when a problem and a
number of iterations come for the second time: small programs wait for launches, not for
memory.
"""

from __future__ import annotations

import functools
import threading
import weakref
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.attach import in_turn
from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.saddle import check_saddle
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray, Memory
from nnz_kernels.cuda.device import Call, Device, blocks_of
from nnz_kernels.cuda.family import INDICES, Family
from nnz_kernels.cuda.structs import Side
from nnz_kernels.formats import Csr
from nnz_kernels.saddle import SaddleProblem, SaddleState

#: Rows of a block, as in rows.cuh.
_ROWS = 128

#: Launches that are kept of one state.
_MOST = 64


@dataclass(slots=True)
class Run:
    """The launches of some iterations; they hold no array of the problem.

    Attributes:
        steps: What they read: tau, sigma, iterations done.
        calls: Each launch.
        was_made: Whether they have been made once.
        replay: All of them as one, from the second time on.
    """

    steps: DeviceArray
    calls: list[Call]
    was_made: bool = False
    replay: Call | None = None


#: Of one state, by the places of all arrays and the number of iterations.
Runs = dict[tuple[bytes, int], Run]


class Saddle(Family):
    """Iterations; launches are kept as long as the first array of their state."""

    def __init__(self, device: Device, precision: str = "fp32") -> None:
        super().__init__(device, precision)
        self._runs: weakref.WeakKeyDictionary[Memory, Runs] = (
            weakref.WeakKeyDictionary()
        )
        self._saddle_lock = threading.Lock()

    def halpern_pdhg(
        self,
        problem: SaddleProblem[DeviceArray],
        state: SaddleState[DeviceArray],
        tau: float,
        sigma: float,
        done: int,
        count: int,
        /,
        *,
        threads: int | None = None,
    ) -> None:
        """Replay *count* iterations; they move on, so they cannot be recorded."""
        check_saddle(problem, state)
        sides = _sides(problem, state)
        with self._saddle_lock, self.device.turn:
            run = self._run(problem, state, sides, count)
            steps = np.array([tau, sigma, done], np.float64)
            self.device.to_device(steps, run.steps)
            if run.replay is None and run.was_made:
                run.replay = self.device.capture(run.calls)
            # The first time loads kernels, which a recording must not.
            run.was_made = True
            (run.replay or functools.partial(in_turn, run.calls))()

    def _run(
        self,
        problem: SaddleProblem[DeviceArray],
        state: SaddleState[DeviceArray],
        sides: tuple[Side, Side],
        count: int,
    ) -> Run:
        runs = self._runs.setdefault(state.x.memory, {})
        key = bytes(sides[0]) + bytes(sides[1]), count
        if key not in runs:
            while len(runs) >= _MOST:
                del runs[next(iter(runs))]
            runs[key] = self._prepared(problem, sides, count)
        return runs[key]

    def _prepared(
        self,
        problem: SaddleProblem[DeviceArray],
        sides: tuple[Side, Side],
        count: int,
    ) -> Run:
        steps = self.device.empty((3,), np.float64)
        launches = [
            (registry.find(name, INDICES[a.indices.dtype]), side)
            for name, side, a in zip(
                ("pdhg_primal", "pdhg_dual"),
                sides,
                (problem.at, problem.a),
                strict=True,
            )
        ]
        calls = [
            self.device.prepare(
                kernel, (blocks_of(side.rows, _ROWS), 1, 1), (_ROWS, 1, 1),
                side, steps, number, int(number == count - 1),
            )
            for number in range(count)
            for kernel, side in launches
        ]  # fmt: skip
        return Run(steps, calls)


def _sides(
    problem: SaddleProblem[DeviceArray], state: SaddleState[DeviceArray]
) -> tuple[Side, Side]:
    """Return where everything lies.

    Raises:
        ShapeError: An array is not in C order.
    """
    p, s = problem, state
    primal = (
        *_matrix(p.at), s.y, p.lv, p.uv, p.c, s.x0, s.x, s.xh, s.dx, s.r, s.xb,
    )  # fmt: skip
    dual = *_matrix(p.a), s.xb, p.lc, p.uc, None, s.y0, s.y, s.yh, s.dy, None, None
    return _side(primal, p.at.shape[0]), _side(dual, p.a.shape[0])


def _matrix(a: Csr[DeviceArray]) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
    return a.indptr, a.indices, a.data


def _side(arrays: tuple[DeviceArray | None, ...], rows: int) -> Side:
    for array in arrays:
        if array is not None:
            check_steady("an array of the problem", array)
    return Side(*(0 if array is None else array.address for array in arrays), rows)
