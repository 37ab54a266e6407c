"""``nnz bench``: time a model beside a peer, after checking that both agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnz_service.cli._app import (
    FAILED,
    JsonFlag,
    app,
    complain,
    print_json,
    print_table,
)


@app.command(rich_help_panel="Models")
def bench(
    model: Annotated[
        Path, typer.Argument(help="ONNX file.", exists=True, dir_okay=False)
    ],
    threads: Annotated[
        int | None, typer.Option(help="Threads of each system; all cores.", min=1)
    ] = None,
    peer: Annotated[
        Literal["onnxruntime"] | None, typer.Option(help="Compare with this system.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Extent of a free first axis.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Timed runs of each.", min=3)] = 30,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="NAME=1x3x8x8, for an input with other free axes."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Time a model: median of interleaved rounds, each with inputs of its own.

    With a peer both answers are compared first and again at the end; where they differ
    by more than 1e-4 no ratio is printed and the exit code is 1. Memory is the peak of
    a process that does nothing else.

    Example: `nnz bench sparse.onnx --threads 1 --peer onnxruntime`
    """
    from nnz_service.cli import _measure

    count = threads or _measure.cores()
    names = ["nnz", *([peer] if peer else [])]
    given = shape or []
    peaks = [_measure.memory_of(n, str(model), count, batch, given) for n in names]
    systems = [_measure.open_system(name, str(model), count) for name in names]
    shapes = _measure.input_shapes(systems[0], batch, given)

    gap = _measure.compare(systems, shapes, seeds=(0, 1))
    times = _measure.interleave(systems, shapes, rounds)
    gap = max(gap, _measure.compare(systems, shapes, seeds=(2, 3)))
    measured = {
        name: _measure.summary(t)
        | {"weight_bytes": system.weight_bytes, "peak_rss": peak}
        for name, system, t, peak in zip(names, systems, times, peaks, strict=True)
    }
    result: dict[str, Any] = {
        "model": str(model),
        "threads": count,
        "rounds": rounds,
        "shapes": {name: list(extents) for name, extents in shapes.items()},
        "systems": measured,
    }
    if peer:
        result |= {"peer": peer} | _measure.verdict(gap, *times)
    _report(result, as_json)


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        columns = ("", "median ms ", "p10 ", "p90 ", "weights MB ", "peak RSS MB ")
        rows = [(name, *_cells(found)) for name, found in result["systems"].items()]
        sizes = ", ".join(
            f"{name} {'x'.join(map(str, extents))}"
            for name, extents in result["shapes"].items()
        )
        title = f"{result['model']}, {sizes}, {result['threads']} thread(s)"
        print_table(title, columns, rows)
    if not result.get("agrees", True):
        gap = result["max_relative_difference"]
        complain(f"the answers differ by {gap:.1e}; a ratio would mean nothing")
        raise typer.Exit(FAILED)
    if "peer" in result and not as_json:
        typer.echo(
            f"answers agree to {result['max_relative_difference']:.1e}; "
            f"{result['peer']} takes {result['ratio']:.2f} times as long as nnz"
        )


def _cells(found: dict[str, Any]) -> tuple[str, ...]:
    megabytes = (found["weight_bytes"], found["peak_rss"])
    return (
        f"{found['median_ms']:.3f}",
        f"{found['p10_ms']:.3f}",
        f"{found['p90_ms']:.3f}",
        *("-" if size is None else f"{size / 1e6:.2f}" for size in megabytes),
    )
