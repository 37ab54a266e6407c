"""Netlib by first-order iterations beside PDLP's published counts, and by HiGHS.

    python tests/benchmarks/bench_lp.py FOLDER [--eps 1e-4] [--method pdhg] [--out FILE]

FOLDER holds `netlib/*.mps.gz` and `netlib_reference.csv`: optima of Clp's unit test,
and iterations of PDLP (google-research/FirstOrderLp.jl, after presolve) with at most
100,000 products. Ours has as many iterations, with presolve or, with --no-presolve,
without. A program counts as solved when the answer, recomputed on the file as it is,
meets the tolerance. FILE takes the table as JSON, beside what other runs put there.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path
from typing import NamedTuple

from nnz_service.algebra.lp.first_order import FirstOrder
from nnz_service.algebra.lp.highs import HighsSolve
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.outcome import SOLVED, LpOutcome
from nnz_service.algebra.lp.settings import LpSettings

LIMIT = 100_000
WHAT = (
    "bench_lp.py on 51 programs of Netlib, at most 100,000 iterations; objective error "
    "relative to the optimum of Clp's unit test; PDLP: published status and iterations"
)


class Row(NamedTuple):
    """One program: how it ended, and what PDLP needed."""

    name: str
    status: str
    iterations: int
    error: float
    worst: float
    seconds: float
    theirs: str
    their_iterations: int


def solved(lp: LinearProgram, settings: LpSettings) -> LpOutcome:
    """Solve to the end."""
    if settings.method == "highs":
        highs = HighsSolve(lp, settings)
        while (found := highs.step(1.0)) is None:
            pass
        highs.close()
        return found
    out = FirstOrder(lp, settings, threads=1).step()
    if not isinstance(out, LpOutcome):
        raise TypeError(out)
    return out


def measured(folder: Path, facts: dict[str, str], settings: LpSettings) -> Row:
    """Solve one program and compare."""
    name = facts["instance"]
    lp = read_mps(folder / "netlib" / f"{name}.mps.gz")
    began = time.perf_counter()
    out = solved(lp, settings)
    seconds = time.perf_counter() - began
    optimum = float(facts["optimum_clp_unittest"])
    value = out.kkt.objective if out.kkt else math.nan
    error = abs(value - optimum) / max(1.0, abs(optimum))
    column = "1e-4" if settings.eps_rel > 1e-6 else "1e-8"
    return Row(
        name, out.status, out.iterations, error, out.kkt.worst if out.kkt else math.nan,
        seconds, facts[f"pdlp_{column}_status"], int(facts[f"pdlp_{column}_iters"]),
    )  # fmt: skip


def summary(rows: list[Row], method: str) -> str:
    """Return counts and, for PDHG, means; what is not solved counts with the limit."""
    good = [row for row in rows if row.status in SOLVED]
    found = (
        f"solved {len(good)} of {len(rows)}; objective within 1e-3: "
        f"{sum(row.error <= 1e-3 for row in good)} of {len(good)}, within 1e-6: "
        f"{sum(row.error <= 1e-6 for row in good)}"
    )
    if method != "pdhg":  # whose iterations are of another kind
        return found
    ours = [row.iterations if row.status in SOLVED else LIMIT for row in rows]
    theirs = [
        row.their_iterations if row.theirs == "OPTIMAL" else LIMIT for row in rows
    ]
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    return (
        f"{found}; PDLP solved {sum(row.theirs == 'OPTIMAL' for row in rows)}; "
        f"iterations over PDLP's, geometric mean {math.exp(sum(logs) / len(logs)):.2f}"
    )


def written(rows: list[Row], path: Path, run: str) -> None:
    """Put the table into a file of results."""
    whole = json.loads(path.read_text()) if path.exists() else {"what": WHAT}
    method = run[: run.index(",")].split()[0]
    whole[run] = {
        "summary": summary(rows, method),
        "programs": [
            {
                "name": row.name,
                "status": row.status,
                "iterations": row.iterations,
                "objective error": float(f"{row.error:.2g}"),
                "worst relative residual": float(f"{row.worst:.2g}"),
            }
            | ({"PDLP": [row.theirs, row.their_iterations]} if method == "pdhg" else {})
            for row in rows
        ],
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--eps", type=float, default=1e-4)
    parser.add_argument("--method", choices=["pdhg", "highs"], default="pdhg")
    parser.add_argument("--no-presolve", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings = LpSettings(
        method=given.method, eps_rel=given.eps, eps_abs=given.eps,
        max_iterations=LIMIT if given.method == "pdhg" else None,
        presolve=False if given.no_presolve else None,
    )  # fmt: skip
    with (given.folder / "netlib_reference.csv").open() as file:
        facts = list(csv.DictReader(file))
    rows = []
    for fact in facts:
        rows.append(row := measured(given.folder, fact, settings))
        print(
            f"{row.name:10s} {row.status:21s} {row.iterations:7d} "
            f"PDLP {row.theirs[:8]:8s} {row.their_iterations:7d} "
            f"error {row.error:.1e} worst {row.worst:.1e} {row.seconds:6.1f} s",
            flush=True,
        )
        if given.out is not None:
            how = " without presolve" if given.no_presolve else ""
            written(rows, given.out, f"{given.method}{how}, {given.eps:g}")
    print(f"{summary(rows, given.method)}; {sum(row.seconds for row in rows):.0f} s")


if __name__ == "__main__":
    main()
