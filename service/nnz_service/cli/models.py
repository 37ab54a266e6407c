"""``nnz model``: put models on a server, list them, remove them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._remote import KeyOption, UrlOption, connected, extents

if TYPE_CHECKING:
    from nnz import ModelInfo, TensorSpec

COLUMNS = ("model", "version ", "state", "bytes ", "inputs", "outputs", "reason")

model = typer.Typer(
    no_args_is_help=True, help="Models on a server: put, list, rm.", name="model"
)
app.add_typer(model, rich_help_panel="Client")


@model.command()
def put(
    name: Annotated[str, typer.Argument(help="What the model will be called.")],
    file: Annotated[
        Path, typer.Argument(help="ONNX file.", exists=True, dir_okay=False)
    ],
    version: Annotated[
        int | None, typer.Option(help="Version; the next free one if left out.", min=1)
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put an ONNX file on a server under a name; it is ready for `nnz infer`.

    The same content again changes nothing. A model that the server cannot run is
    refused, with every unsupported node.

    Example: `nnz model put digits deploy/demo/digits_sparse.onnx`
    """
    with connected(url, api_key) as client:
        info = client.models.put(name, file, version=version).info
    if as_json:
        print_json(_document(info))
        return
    typer.echo(f"{info.name} version {info.version}: {info.state}, {info.bytes:,} B")
    for side, specs in (("inputs", info.inputs), ("outputs", info.outputs)):
        typer.echo(f"{side:8} {_signature(specs)}")


@model.command(name="list")
def list_(
    url: UrlOption = None, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """List every version of every model on a server.

    Example: `nnz model list --json`
    """
    with connected(url, api_key) as client:
        infos = client.models.list()
    if as_json:
        print_json({"models": [_document(info) for info in infos]})
        return
    rows: list[tuple[object, ...]] = [
        (
            info.name,
            info.version,
            info.state,
            "-" if info.bytes is None else f"{info.bytes:,}",
            _signature(info.inputs),
            _signature(info.outputs),
            info.reason,
        )
        for info in infos
    ]
    print_table(f"{len(rows)} models", COLUMNS, rows, spare=("outputs", "inputs"))


@model.command()
def rm(
    name: Annotated[str, typer.Argument(help="Of the model.")],
    version: Annotated[
        int | None, typer.Option(help="Version; all of them if left out.", min=1)
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a model from a server, file and all.

    Example: `nnz model rm digits --version 1`
    """
    with connected(url, api_key) as client:
        client.models.delete(name, version=version)
    if as_json:
        print_json({"name": name, "version": version, "removed": True})
    else:
        of = "all versions" if version is None else f"version {version}"
        typer.echo(f"removed {name}, {of}")


def _signature(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} {s.datatype} {extents(s.shape)}" for s in specs)


def _document(info: ModelInfo) -> dict[str, Any]:
    document = dataclasses.asdict(info)
    # `put` and `list` do not ask for these.
    del document["plan"], document["versions"]
    return document
