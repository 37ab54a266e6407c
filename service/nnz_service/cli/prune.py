"""``nnz prune``: set the least weights of a model to zero, without data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table


@app.command(rich_help_panel="Models")
def prune(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="ONNX file to read.", exists=True, dir_okay=False
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="ONNX file to write.")],
    sparsity: Annotated[
        float,
        typer.Option(help="Share of the weights to drop, 0 <= S < 1.", min=0, max=1),
    ],
    block: Annotated[
        int,
        typer.Option(help="Output channels in a block: 1, 2, 4, 8 or 16."),
    ] = 4,
    scope: Annotated[
        Literal["layer", "global"],
        typer.Option(help="This sparsity in every layer, or over the whole model."),
    ] = "layer",
    first: Annotated[
        bool,
        typer.Option("--first", help="Prune the convolution of the picture too."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Prune a model by the magnitude of its weights; no data is needed.

    Blocks of consecutive output channels are dropped, the unit that the sparse kernels
    store. Depthwise convolutions, biases and the first convolution stay. The result is
    an ordinary ONNX file of the same graph; how much accuracy is lost depends on the
    model, and training it a little further brings most of it back.

    Example: `nnz prune model.onnx sparse.onnx --sparsity 0.8 --block 4`
    """
    if block not in (1, 2, 4, 8, 16):
        raise typer.BadParameter(
            f"{block} is not 1, 2, 4, 8 or 16", param_hint="--block"
        )
    if sparsity >= 1:
        raise typer.BadParameter("must be below 1", param_hint="--sparsity")
    import onnx

    from nnz_service.engine.pruning import prune as prune_model
    from nnz_service.engine.pruning import totals

    model, rows = prune_model(source, sparsity, block, scope=scope, first=first)
    onnx.save_model(model, str(target))
    summary = totals(rows)
    if as_json:
        print_json({"model": str(target), "layers": rows, "total": summary})
        return
    columns = ("layer", "op", "shape", "block", "before ", "after ", "")
    print_table(f"{source} -> {target}", columns, [_row(r) for r in rows])
    typer.echo(
        f"{summary['weights']:,} weights, density {summary['density_before']:.1%}"
        f" -> {summary['density_after']:.1%}"
    )


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["name"],
        row["op"],
        "x".join(map(str, row["shape"])),
        f"1x{row['block']}" if row["block"] else "-",
        f"{row['density_before']:.1%}",
        f"{row['density_after']:.1%}",
        row["note"] or "",
    )
