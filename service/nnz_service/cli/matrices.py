"""``nnz matrix``: put sparse matrices on a server, look at them, remove them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._remote import KeyOption, UrlOption, connected

if TYPE_CHECKING:
    from nnz import MatrixInfo

matrix = typer.Typer(
    no_args_is_help=True,
    help="Sparse matrices on a server: put, info, list, rm.",
    name="matrix",
)
app.add_typer(matrix, rich_help_panel="Client")

MatrixId = Annotated[str, typer.Argument(help="Id, as `nnz matrix put` printed it.")]


@matrix.command()
def put(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .npz of scipy.sparse.save_npz, a .mtx or a .mtx.gz.",
            exists=True,
            dir_okay=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="A label for people.")] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a sparse matrix on a server and print its id.

    The id is made from the content: the same matrix has the same id, whatever file it
    came in.

    Example: `nnz matrix put 494_bus.mtx.gz --name bus`
    """
    with connected(url, api_key) as client:
        info = client.matrices.put(file, name=name).info
    _show(info, as_json)


@matrix.command()
def info(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Describe a matrix: shape, stored entries, type, bytes.

    Example: `nnz matrix info m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        found = client.matrices.get(matrix_id).info
    _show(found, as_json)


@matrix.command(name="list")
def list_(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List the matrices on a server, newest first.

    Example: `nnz matrix list`
    """
    with connected(url, api_key) as client:
        infos = client.matrices.list()
    if as_json:
        print_json({"matrices": [dataclasses.asdict(info) for info in infos]})
        return
    rows = [
        (
            info.id,
            info.name,
            "x".join(map(str, info.shape)),
            f"{info.nnz:,}",
            info.dtype,
            "-" if info.bytes is None else f"{info.bytes:,}",
            info.state,
        )
        for info in infos
    ]
    columns = ("id", "name", "shape ", "nnz ", "type", "bytes ", "state")
    print_table(f"{len(rows)} matrices", columns, rows)


@matrix.command()
def rm(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a matrix from a server.

    Example: `nnz matrix rm m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        client.matrices.delete(matrix_id)
    if as_json:
        print_json({"id": matrix_id, "removed": True})
    else:
        typer.echo(f"removed {matrix_id}")


def _show(info: MatrixInfo, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(info))
        return
    rows, columns = info.shape
    density = info.nnz / max(1, rows * columns)
    typer.echo(info.id)
    typer.echo(f"name     {info.name or '-'}")
    typer.echo(f"shape    {rows} x {columns}")
    typer.echo(f"nnz      {info.nnz:,} (density {density:.3g})")
    typer.echo(f"type     {info.dtype}")
    if info.bytes is not None:
        typer.echo(f"bytes    {info.bytes:,}")
    typer.echo(f"state    {info.state or '-'}")
