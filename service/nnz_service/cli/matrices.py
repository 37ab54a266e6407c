"""``nnz matrix``: put sparse matrices on a server, look at them, remove them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._remote import KeyOption, UrlOption, connected
from nnz_service.cli._waiting import sending

if TYPE_CHECKING:
    from nnz import MatrixInfo

matrix = typer.Typer(
    no_args_is_help=True,
    help="Sparse matrices on a server: put, get, info, spy, list, load, pin, rm.",
    name="matrix",
)
app.add_typer(matrix, rich_help_panel="Client")

MatrixId = Annotated[str, typer.Argument(help="Id, as `nnz matrix put` printed it.")]


@matrix.command()
def put(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .npz of scipy.sparse.save_npz, .mtx, .mtx.gz, .mps or .mps.gz.",
            exists=True,
            dir_okay=False,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="A label for people.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Id of an upload that was cut: send the rest.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a sparse matrix on a server and print its id.

    The id is made from the content: the same matrix has the same id, whatever file it
    came in.

    Example: `nnz matrix put 494_bus.mtx.gz --name bus`
    """
    from nnz import NnzError

    with connected(url, api_key) as client, sending(file) as progress:
        try:
            put = client.matrices.put
            info = put(file, name=name, progress=progress, resume=resume).info
        except NnzError as error:
            if upload := error.details.get("upload"):
                typer.echo(f"send the rest with --resume {upload}", err=True)
            raise
    _show(info, as_json)


@matrix.command()
def info(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Describe a matrix: sizes, symmetry, rows, bandwidth, diagonal.

    Example: `nnz matrix info m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        found = client.matrices.get(matrix_id).info
    _show(found, as_json)


@matrix.command()
def spy(
    matrix_id: MatrixId,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the PNG file goes.")],
    size: Annotated[
        int, typer.Option(min=16, max=2048, help="Pixels of the longer side.")
    ] = 512,
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Draw where the entries of a matrix are.

    Example: `nnz matrix spy m-0123456789abcdef -o spy.png`
    """
    with connected(url, api_key) as client:
        out.write_bytes(client.matrices.get(matrix_id).spy(size))


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
def get(
    matrix_id: MatrixId,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the .npz file goes.")],
    url: UrlOption = None,
    api_key: KeyOption = None,
) -> None:
    """Fetch a matrix as a file that scipy.sparse.load_npz reads.

    Example: `nnz matrix get m-0123456789abcdef -o a.npz`
    """
    from scipy.sparse import save_npz

    with connected(url, api_key) as client:
        save_npz(out, client.matrices.get(matrix_id).to_scipy(), compressed=False)


@matrix.command()
def load(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a matrix resident now instead of at its next use.

    Example: `nnz matrix load m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        _show(client.matrices.load(matrix_id), as_json)


@matrix.command()
def unload(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Free the memory of a matrix; its next use loads it again.

    Example: `nnz matrix unload m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        _show(client.matrices.unload(matrix_id), as_json)


@matrix.command()
def pin(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep a matrix resident whatever else is loaded; for admins.

    Example: `nnz matrix pin m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        _show(client.matrices.pin(matrix_id), as_json)


@matrix.command()
def unpin(
    matrix_id: MatrixId,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a matrix go when others need the memory; for admins.

    Example: `nnz matrix unpin m-0123456789abcdef`
    """
    with connected(url, api_key) as client:
        _show(client.matrices.unpin(matrix_id), as_json)


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


def document(info: MatrixInfo) -> dict[str, Any]:
    """A matrix as JSON."""
    return dataclasses.asdict(info)


def show_matrix(info: MatrixInfo) -> None:
    """Describe a matrix to people."""
    rows, columns = info.shape
    density = info.nnz / max(1, rows * columns)
    lines = [
        ("name", info.name or "-"),
        ("shape", f"{rows} x {columns}"),
        ("nnz", f"{info.nnz:,} (density {density:.3g})"),
        ("type", f"{info.dtype}, indices {info.index_dtype or '-'}"),
    ]
    if info.bytes is not None:
        dense = "" if info.dense_bytes is None else f" (dense {info.dense_bytes:,})"
        lines.append(("bytes", f"{info.bytes:,}{dense}"))
    typer.echo(info.id)
    for name, text in [*lines, *_facts(info), ("state", info.state or "-")]:
        typer.echo(f"{name:<9}{text}")


def _show(info: MatrixInfo, as_json: bool) -> None:
    if as_json:
        print_json(document(info))
    else:
        show_matrix(info)


def _facts(info: MatrixInfo) -> list[tuple[str, str]]:
    """What the server found out, if it did."""
    if info.symmetry is None or info.row_nnz is None or info.bandwidth is None:
        return []
    places = "symmetric" if info.pattern_symmetric else "not symmetric"
    row, band = info.row_nnz, info.bandwidth
    return [
        ("symmetry", f"{info.symmetry}, stored places {places}"),
        (
            "rows",
            f"{row['min']} to {row['max']} entries, {row['mean']:.3g} on average, "
            f"{row['empty']:,} empty",
        ),
        ("band", f"{band['lower']:,} below and {band['upper']:,} above the diagonal"),
        ("diagonal", f"{info.zero_diagonal:,} zeros"),
        (
            "entries",
            f"{info.stored_zeros:,} stored zeros, "
            f"{'all finite' if info.finite else 'not all finite'}",
        ),
    ]
