"""``nnz inspect``: what a model is made of and how it would be computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from nnz_service.cli._app import (
    FAILED,
    JsonFlag,
    app,
    complain,
    print_json,
    print_table,
)
from nnz_service.errors import UnsupportedModelError

#: A trailing space aligns a column to the right.
COLUMNS = (
    "layer", "op", "gives", "weights", "density ", "found", "kernel", "bytes ",
    "dense ", "reason",
)  # fmt: skip
#: What a narrow terminal does without, the first of them first.
SPARE = ("reason", "op", "gives", "weights", "dense ")


@app.command(rich_help_panel="Models")
def inspect(
    model: Annotated[
        Path, typer.Argument(help="ONNX file.", exists=True, dir_okay=False)
    ],
    threads: Annotated[
        int | None, typer.Option(help="Plan for so many threads.", min=1)
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, as the server; cpu or cuda.")
    ] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Show a model's layers: shape, density, block structure, chosen kernel, bytes.

    The model is loaded exactly as the server loads it. `found` is the largest block
    whose pattern the zeros follow: 1x4 is four output channels with one input in
    common. A model that cannot run is refused with every unsupported node.

    Example: `nnz inspect sparse.onnx`
    """
    from nnz_service.engine import load

    try:
        loaded = load(model, backend, threads)
    except UnsupportedModelError as exc:
        _refuse(model, exc, as_json)
    rows = loaded.explain()
    signature = {
        side: [_tensor(t) for t in tensors]
        for side, tensors in (("inputs", loaded.inputs), ("outputs", loaded.outputs))
    }
    if as_json:
        weights = {"nbytes": loaded.nbytes, "max_batch": loaded.max_batch}
        print_json({"model": str(model), **signature, **weights, "layers": rows})
        return
    for side, tensors in signature.items():
        named = ", ".join(f"{t['name']} {t['dtype']} {_shape(t)}" for t in tensors)
        typer.echo(f"{side:8} {named}")
    print_table("", COLUMNS, [_row(row) for row in rows], SPARE)
    stored = sum(row["bytes"] or 0 for row in rows)
    dense = sum(row["dense_bytes"] or 0 for row in rows)
    typer.echo(f"weights: {stored:,} bytes, dense they would be {dense:,}")


def _refuse(model: Path, exc: UnsupportedModelError, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"model": str(model), "error": str(exc), "nodes": list(exc.nodes)})
    else:
        complain(f"{model} cannot run here, unsupported nodes ({len(exc.nodes)}):")
        for node in exc.nodes:
            typer.echo(f"  {node}", err=True)
    raise typer.Exit(FAILED)


def _tensor(info: Any) -> dict[str, Any]:
    return {"name": info.name, "dtype": str(info.dtype), "shape": list(info.shape)}


def _shape(tensor: dict[str, Any]) -> str:
    extents = ("?" if extent is None else str(extent) for extent in tensor["shape"])
    return f"[{', '.join(extents)}]"


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    found = row["blocks_found"]
    return (
        row["name"],
        row["op"],
        _extents(row["shape"]),
        _extents(row.get("weights")),
        "-" if row["density"] is None else f"{row['density']:.1%}",
        f"1x{max(found)}" if found else "-",
        row["kernel"] or "-",
        "-" if row["bytes"] is None else f"{row['bytes']:,}",
        "-" if row["dense_bytes"] is None else f"{row['dense_bytes']:,}",
        row["reason"] or "",
    )


def _extents(shape: Sequence[int] | None) -> str:
    return "x".join(map(str, shape or ())) or "-"
