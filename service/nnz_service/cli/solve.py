"""``nnz solve`` and ``nnz lp``: linear systems and linear programs on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._answers import about, facts, print_facts, show_facts
from nnz_service.cli._app import FAILED, JsonFlag, app
from nnz_service.cli._arrays import load_array
from nnz_service.cli._remote import (
    KeyOption,
    TimeLimit,
    UrlOption,
    connected,
    placed,
)
from nnz_service.cli._waiting import watched

if TYPE_CHECKING:
    from nnz import Job

#: Ends of a program that answer the question.
_ANSWERS = frozenset({"optimal", "optimal_relative_only", "infeasible", "unbounded"})
_SOLVED = (
    "status", "method", "preconditioner", "iterations", "residual",
    "relative_residual", "backward_error", "componentwise_backward_error", "message",
)  # fmt: skip
_PROGRAM = (
    "status", "method", "iterations", "seconds", "objective", "dual_objective",
    "relative_gap", "relative_primal_residual", "relative_dual_residual",
    "max_primal_violation", "max_dual_violation", "message", "notes",
)  # fmt: skip


@app.command(rich_help_panel="Client")
def solve(
    matrix: Annotated[
        str,
        typer.Argument(help="Id of a matrix on the server, or a file to put there."),
    ],
    rhs: Annotated[
        Path,
        typer.Option("--rhs", "-b", help="Right-hand side: a .npy, [n] or [n, k]."),
    ],
    method: Annotated[
        str, typer.Option(help="cg, minres, bicgstab, gmres, lsqr or direct.")
    ] = "cg",
    preconditioner: Annotated[
        str, typer.Option(help="none, jacobi, ilu0, ic0 or chebyshev.")
    ] = "none",
    rtol: Annotated[float, typer.Option(help="Of the residual over that of b.")] = 1e-5,
    maxiter: Annotated[int | None, typer.Option(help="Most iterations.")] = None,
    time_limit: TimeLimit = None,
    save: Annotated[
        Path | None, typer.Option("--save", "-o", help="Write x to this .npy.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Solve A x = b on a server; exits with 1 when it has not converged.

    The residuals are recomputed from their definition. Ctrl-C cancels the job.

    Example: `nnz solve bcsstk16.mtx.gz -b b.npy --preconditioner ic0 --save x.npy`
    """
    b = load_array(rhs)
    with connected(url, api_key) as client:
        job = client.jobs.solve(
            placed(client, matrix),
            b,
            method=method,
            preconditioner=preconditioner,
            rtol=rtol,
            maxiter=maxiter,
            time_limit=time_limit,
        )
        found: Any = watched(job).result()
    _save(save, found.x)
    _show(found, _SOLVED, job, as_json)
    if not found.converged:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel="Client")
def lp(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A .mps or .mps.gz file, or the id of one put before."
        ),
    ],
    method: Annotated[str, typer.Option(help="auto, highs or pdhg.")] = "auto",
    eps_rel: Annotated[
        float | None, typer.Option(help="Relative tolerance; 1e-6 if left out.")
    ] = None,
    eps_abs: Annotated[
        float | None, typer.Option(help="Absolute tolerance; 1e-6 if left out.")
    ] = None,
    max_iterations: Annotated[int | None, typer.Option(help="Of pdhg.")] = None,
    presolve: Annotated[
        bool | None, typer.Option(help="Whether pdhg iterates on what presolve leaves.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Job whose solution pdhg starts from.")
    ] = None,
    polish: Annotated[
        float | None, typer.Option(help="Residuals that polishing is to reach.")
    ] = None,
    time_limit: TimeLimit = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", "-o", help="Write x, y and reduced_costs to this .npz."),
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Solve a linear program on a server and show its objective and residuals.

    Infeasible and unbounded are answers too; exits with 1 when a limit came first.
    Integer variables become continuous, which is noted. Ctrl-C cancels the job.

    Example: `nnz lp afiro.mps --method pdhg --eps-rel 1e-8`
    """
    with connected(url, api_key) as client:
        job = client.jobs.lp(
            placed(client, source),
            method=method,
            eps_rel=eps_rel,
            eps_abs=eps_abs,
            max_iterations=max_iterations,
            presolve=presolve,
            start=start,
            polish=polish,
            time_limit=time_limit,
        )
        found: Any = watched(job).result()
    if save is not None:
        import numpy as np

        np.savez(save, x=found.x, y=found.y, reduced_costs=found.reduced_costs)
    _show(found, _PROGRAM, job, as_json)
    if found.status not in _ANSWERS:
        raise typer.Exit(FAILED)


def _save(path: Path | None, x: Any) -> None:
    if path is not None:
        import numpy as np

        np.save(path, x, allow_pickle=False)


def _show(found: object, names: tuple[str, ...], job: Job, as_json: bool) -> None:
    told = facts(found, names) | about(job)
    if as_json:
        print_facts(told)
    else:
        show_facts(told)
