"""A flow shop as a linear program of 100,001 variables that lives on a server.

100 jobs pass 10 machines in an order of each machine's choice; who goes before whom
is one variable for each pair and machine. Dense, the matrix takes 120 GB; its nonzeros
take 5 MB. The instance is Taillard's ta071 (European Journal of Operational Research
64, 1993), made by his generator. Its relaxation, with orders between 0 and 1, is
bounded by the longest job alone: 730, which every solver must find (the best schedule
takes 5770: this model's bound is weak, and known for it).

Usage: python flow_shop.py [MACHINES JOBS SEED]
The server is the one at NNZ_URL; where that is not set, one inside this process.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from nnz import Client

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Program:
    """``min c'x`` with ``lc <= A x <= uc`` and ``lv <= x <= uv``."""

    a: scipy.sparse.csr_array
    c: Vector
    lc: Vector
    uc: Vector
    lv: Vector
    uv: Vector


def taillard(machines: int, jobs: int, seed: int) -> Vector:
    """Processing times (machines, jobs) by Taillard's generator of random numbers."""
    times = np.empty((machines, jobs))
    for place in np.ndindex(machines, jobs):
        high, low = divmod(seed, 127_773)
        seed = 16_807 * low - 2_836 * high
        seed += 2**31 - 1 if seed < 0 else 0
        times[place] = 1 + int(seed / (2**31 - 1) * 99)
    return times


def flow_shop(times: Vector) -> Program:
    """The relaxation, by ordered pairs on each machine.

    Variables: the start of each job on each machine, then for each machine and each
    ordered pair of jobs whether the first goes before the second, then the makespan.
    """
    machines, jobs = times.shape
    first, second = (~np.eye(jobs, dtype=bool)).nonzero()
    pairs, starts = first.size, machines * jobs
    last = starts + machines * pairs
    horizon = times.sum()
    machine = np.repeat(np.arange(machines), pairs)
    before = starts + np.arange(machines * pairs)
    i, j = np.tile(first, machines), np.tile(second, machines)
    # The same pair the other way round, and each pair once.
    number = np.full((jobs, jobs), -1)
    number[first, second] = np.arange(pairs)
    once = i < j
    other = starts + machine * pairs + number[j, i]
    start = np.arange(starts).reshape(machines, jobs)
    blocks = [
        # start of j - start of i - horizon * (i before j) >= time of i - horizon
        ([machine * jobs + j, machine * jobs + i, before], [1, -1, -horizon],
         times[machine, i] - horizon, np.inf),
        # i before j or j before i
        ([before[once], other[once]], [1, 1], np.ones(once.sum()), 1.0),
        # the next machine starts a job after this one has ended it
        ([start[1:].ravel(), start[:-1].ravel()], [1, -1], times[:-1].ravel(), np.inf),
        # the makespan is behind the last machine
        ([np.full(jobs, last), start[-1]], [1, -1], times[-1], np.inf),
    ]  # fmt: skip
    rows, columns, values, low, high = [], [], [], [], []
    count = 0
    for parts, factors, least, most in blocks:
        size = least.size
        for part, factor in zip(parts, factors, strict=True):
            rows.append(count + np.arange(size))
            columns.append(part)
            values.append(np.full(size, float(factor)))
        low.append(least)
        high.append(np.full(size, most))
        count += size
    # Indices of 32 bits are enough, and half as large.
    places = tuple(np.concatenate(part).astype(np.int32) for part in (rows, columns))
    entries = np.concatenate(values), places
    a = scipy.sparse.csr_array(entries, shape=(count, last + 1))
    c = np.zeros(last + 1)
    c[last] = 1
    uv = np.full(last + 1, np.inf)
    uv[starts:last] = 1
    return Program(
        a, c, np.concatenate(low), np.concatenate(high), np.zeros(last + 1), uv
    )


def main(machines: int, jobs: int, seed: int) -> None:
    """Send the program, solve it by both methods, print what came out."""
    times = taillard(machines, jobs, seed)
    p = flow_shop(times)
    rows, columns = p.a.shape
    print(f"{columns:,} variables, {rows:,} rows, {p.a.nnz:,} nonzeros")
    with Client.anywhere() as client:
        matrix = client.matrices.put(p.a, name=f"flow-shop-{machines}x{jobs}")
        dense = 8e-9 * rows * columns
        print(
            f"{(matrix.info.bytes or 0) / 1e6:.1f} MB instead of {dense:.1f} GB dense"
        )
        for method in ("pdhg", "highs"):
            found = client.solve_lp(
                matrix, c=p.c, lc=p.lc, uc=p.uc, lv=p.lv, uv=p.uv,
                method=method, eps_rel=1e-5, eps_abs=1e-5,
            )  # fmt: skip
            print(f"{method}: {found}")
    print(f"the longest job takes {times.sum(axis=0).max():.0f}")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments or (10, 100, 1_539_989_115)))
