"""``nnz graph`` and ``nnz eigs``: graph algorithms and eigenpairs on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._answers import about, facts, print_facts, show_facts
from nnz_service.cli._app import FAILED, JsonFlag, app, print_table
from nnz_service.cli._remote import (
    KeyOption,
    MatrixArgument,
    TimeLimit,
    UrlOption,
    connected,
    placed,
)
from nnz_service.cli._waiting import watched

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Ends of an algorithm that answer the question: a cycle of negative weight is one.
_ANSWERS = frozenset({"converged", "unbounded"})
_FROM_A_VERTEX = frozenset({"bfs", "sssp"})


@app.command(rich_help_panel="Client")
def graph(
    algorithm: Annotated[
        str, typer.Argument(help="pagerank, bfs, sssp, components or triangles.")
    ],
    matrix: MatrixArgument,
    source: Annotated[
        int | None,
        typer.Option(help="Vertex where bfs and sssp begin; the first one is 0."),
    ] = None,
    damping: Annotated[
        float | None, typer.Option(help="Of pagerank; 0.85 if left out.")
    ] = None,
    tol: Annotated[
        float | None, typer.Option(help="Of pagerank; 1e-6 a vertex if left out.")
    ] = None,
    maxiter: Annotated[
        int | None, typer.Option(help="Most rounds of pagerank; 100 if left out.")
    ] = None,
    time_limit: TimeLimit = None,
    top: Annotated[
        int, typer.Option(help="How many ranks or components to list.", min=0)
    ] = 10,
    save: Annotated[
        Path | None,
        typer.Option("--save", "-o", help="Write a number a vertex to this .npy."),
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run an algorithm on a graph: entry (i, j) of MATRIX is an edge from i to j.

    The vector has ranks (pagerank), levels from the source (bfs; -1 where no path
    leads), distances (sssp; inf) or numbers of components. Vertices count from 0.
    Exits with 1 when it has not converged or was late. Ctrl-C cancels the job.

    Examples: `nnz graph pagerank web.mtx --top 20 -o ranks.npy`,
    `nnz graph sssp roads.mtx --source 0 -o distances.npy`, `nnz graph triangles M_ID`
    """
    if source is None and algorithm in _FROM_A_VERTEX:
        raise typer.BadParameter(f"{algorithm} begins at a vertex: give --source")
    if save is not None and algorithm == "triangles":
        raise typer.BadParameter("triangles gives a number: there is nothing to save")
    with connected(url, api_key) as client:
        job = client.jobs.graph(
            algorithm,
            placed(client, matrix),
            source=source,
            damping=damping,
            tol=tol,
            maxiter=maxiter,
            time_limit=time_limit,
        )
        found: Any = watched(job).result()
    if save is not None:
        _save(save, found.values)
    told = {"algorithm": algorithm} | dict(found.summary) | about(job)
    _show(told, _top(algorithm, found.values, top), as_json)
    if found.status not in _ANSWERS:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel="Client")
def eigs(
    matrix: MatrixArgument,
    k: Annotated[int, typer.Option("-k", "--k", help="How many.")] = 6,
    which: Annotated[str, typer.Option(help="largest, smallest or magnitude.")] = (
        "largest"
    ),
    tol: Annotated[
        float | None,
        typer.Option(help="Of a residual over the norm of A; 1e-8 if left out."),
    ] = None,
    maxiter: Annotated[int | None, typer.Option(help="Most products.")] = None,
    time_limit: TimeLimit = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            "-o",
            help="Write eigenvalues, eigenvectors and residuals to this .npz.",
        ),
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute eigenpairs of a symmetric matrix; exits with 1 unless all converged.

    Residuals are norms of A x - lambda x, recomputed. Ctrl-C cancels the job.

    Example: `nnz eigs bcsstk16.mtx.gz -k 4 --which smallest -o pairs.npz`
    """
    with connected(url, api_key) as client:
        job = client.jobs.eigs(
            placed(client, matrix),
            k,
            which=which,
            tol=tol,
            maxiter=maxiter,
            time_limit=time_limit,
        )
        found: Any = watched(job).result()
    if save is not None:
        _save(
            save,
            eigenvalues=found.eigenvalues,
            eigenvectors=found.eigenvectors,
            residuals=found.residuals,
        )
    told = facts(found, ("status", "iterations")) | {"which": which} | about(job)
    pairs = zip(found.eigenvalues.tolist(), found.residuals.tolist(), strict=True)
    rows = [{"eigenvalue": value, "residual": norm} for value, norm in pairs]
    _show(told, rows, as_json, name="pairs")
    if not found.converged:
        raise typer.Exit(FAILED)


def _save(path: Path, vector: NDArray[Any] | None = None, **arrays: Any) -> None:
    import numpy as np

    if vector is not None:
        np.save(path, vector, allow_pickle=False)
    else:
        np.savez(path, **arrays)


def _top(
    algorithm: str, values: NDArray[Any] | None, count: int
) -> list[dict[str, Any]]:
    """The highest ranks, or the largest components; others have no order of worth."""
    import numpy as np

    if algorithm == "pagerank" and values is not None:
        best = np.argsort(-values, kind="stable")[:count]
        return [{"vertex": int(v), "rank": float(values[v])} for v in best]
    if algorithm == "components" and values is not None:
        sizes = np.bincount(values)
        best = np.argsort(-sizes, kind="stable")[:count]
        return [{"component": int(v), "vertices": int(sizes[v])} for v in best]
    return []


def _show(
    told: dict[str, Any],
    rows: list[dict[str, Any]],
    as_json: bool,
    name: str = "top",
) -> None:
    if as_json:
        print_facts(told | ({name: rows} if rows else {}))
        return
    show_facts(told)
    if rows:
        columns = [f"{column} " for column in rows[0]]
        print_table("", columns, [tuple(row.values()) for row in rows])
