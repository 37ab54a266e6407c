"""``nnz bench``: time models beside peers, after checking that all agree."""

from __future__ import annotations

import enum
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli import _bench_tables
from nnz_service.cli._app import FAILED, JsonFlag, app, print_json

if TYPE_CHECKING:  # they import numpy, which `nnz --help` does without
    from nnz_service.cli._measure import Terms
    from nnz_service.cli._peers import Problem


class Peer(enum.StrEnum):
    """The systems to compare with."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    MNN = "mnn"


BLOCKS = (1, 2, 4, 8, 16)
SPARSITIES = "0,0.3,0.5,0.75,0.85,0.9,0.95"

Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL", help="ONNX files.", exists=True, dir_okay=False),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of each system; all cores.", min=1)
]
Pin = Annotated[
    bool | None,
    typer.Option(
        "--pin/--no-pin",
        help="Keep the process to a core a thread; default with one thread.",
    ),
]
Backends = Annotated[
    str, typer.Option(help="Of nnz: cpu, cuda or auto; peers compute on the CPU.")
]
Peers = Annotated[
    list[Peer] | None,
    typer.Option(help="Compare with this system; may be repeated."),
]
Batch = Annotated[int, typer.Option(help="Extent of a free first axis.", min=1)]
Rounds = Annotated[int, typer.Option(help="Timed runs of each.", min=3)]
Shape = Annotated[
    list[str] | None,
    typer.Option(help="NAME=1x3x8x8, for an input with other free axes."),
]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="Prune dense models, time at each sparsity.")
]
Blocks = Annotated[
    list[int] | None,
    typer.Option(help="Sweep: output channels in a block; 4 and 1. May be repeated."),
]
Sparsities = Annotated[
    str | None, typer.Option(help=f"Sweep: shares to drop; {SPARSITIES}.")
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Sweep: draw time against sparsity (PNG).", dir_okay=False),
]
Out = Annotated[
    Path | None, typer.Option(help="Write what --json prints.", dir_okay=False)
]


@app.command(rich_help_panel="Models")
def bench(
    models: Models,
    threads: Threads = None,
    pin: Pin = None,
    backend: Backends = "cpu",
    peer: Peers = None,
    batch: Batch = 1,
    rounds: Rounds = 30,
    shape: Shape = None,
    sweep: Sweep = False,
    block: Blocks = None,
    sparsities: Sparsities = None,
    plot: Plot = None,
    out: Out = None,
    as_json: JsonFlag = False,
) -> None:
    """Time models: median of interleaved rounds, each with inputs of its own.

    Peers answer the same inputs first and again at the end; where an answer differs by
    more than 1e-4 there is no ratio and the exit code is 1. Memory is that of processes
    which do nothing else. A sweep prunes each model by magnitude, times nnz on what is
    left beside the peers on the dense model, and says from where on nnz is faster.

    Examples: `nnz bench sparse.onnx --threads 1 --peer onnxruntime --peer openvino`,
    `nnz bench dense.onnx --threads 1 --peer onnxruntime --sweep --plot sweep.png`
    """
    from nnz_service.cli import _machine, _measure

    grid = _grid(sweep, block, sparsities, plot, models)
    names = tuple(name.value for name in dict.fromkeys(peer or []))
    _check_first(names, plot, out)
    count = threads or _machine.cores()
    terms = _measure.Terms(names, count, rounds)
    with _machine.pinned(count, pin) as pinned:
        document = _machine.describe(names)
        document |= {"threads": count, "pinned": pinned, "rounds": rounds}
        document |= _machine.resolve(backend)
        records = document["results"] = []
        for path in models:
            asked = _measure.problem_of(path, batch, shape or [])
            problem = replace(asked, backend=document["backend"])
            record: dict[str, Any] = {
                "model": str(path),
                "shapes": {name: list(s) for name, (_, s) in problem.inputs.items()},
            }
            if grid:
                record |= _swept(path, problem, terms, grid)
            else:
                record |= _timed(path, problem, terms)
            records.append(record)
    _report(document, plot, out, as_json)


def _grid(
    sweep: bool,
    block: Sequence[int] | None,
    sparsities: str | None,
    plot: Path | None,
    models: Sequence[Path],
) -> list[tuple[int, list[float]]]:
    """Return the blocks and sparsities of a sweep; without one there are none."""
    if not sweep:
        given = {"--block": block, "--sparsities": sparsities, "--plot": plot}
        for name, value in given.items():
            if value:
                raise typer.BadParameter("only with --sweep", param_hint=name)
        return []
    if plot and len(models) > 1:
        raise typer.BadParameter("draws one model, not more", param_hint="--plot")
    chosen = list(dict.fromkeys(block or (4, 1)))
    for size in chosen:
        if size not in BLOCKS:
            raise typer.BadParameter(
                f"{size} is not 1, 2, 4, 8 or 16", param_hint="--block"
            )
    shares = _shares(SPARSITIES if sparsities is None else sparsities)
    return [(size, shares) for size in chosen]


def _shares(text: str) -> list[float]:
    try:
        shares = sorted({float(word) for word in text.split(",")})
    except ValueError:
        shares = []
    if not shares or not all(0 <= share < 1 for share in shares):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers 0 <= S < 1, as in {SPARSITIES}",
            param_hint="--sparsities",
        )
    return shares


def _check_first(names: Sequence[str], plot: Path | None, out: Path | None) -> None:
    """Find out before anything is measured what would fail afterwards."""
    from nnz_service.cli import _peers, _plot

    for name in names:
        _peers.require(name)
    if plot:
        if plot.suffix.lower() != ".png":
            raise typer.BadParameter(f"{plot} is no .png", param_hint="--plot")
        _plot.require()
    for option, target in (("--plot", plot), ("--out", out)):
        if target and not target.resolve().parent.is_dir():
            raise typer.BadParameter(
                f"there is no folder {target.parent}", param_hint=option
            )


def _timed(path: Path, problem: Problem, terms: Terms) -> dict[str, Any]:
    from nnz_service.cli import _measure, _memory, _peers

    systems, memory = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("nnz", *terms.peers):
            file = _peers.convert(name, path, Path(folder))
            memory[name] = _memory.memory_of(name, file, terms.threads, problem)
            systems[name] = _peers.open_system(name, file, terms.threads, problem)
        found = _measure.race(systems, systems, problem, terms)
    for name, sizes in memory.items():
        found["systems"][name] |= sizes
    return found


def _swept(
    path: Path, problem: Problem, terms: Terms, grid: Sequence[tuple[int, list[float]]]
) -> dict[str, Any]:
    from nnz_service.cli import _sweep

    def say(line: str) -> None:
        typer.echo(line, err=True)

    return {"sweep": _sweep.sweep(path, problem, terms, grid, say)}


def _report(
    document: dict[str, Any], plot: Path | None, out: Path | None, as_json: bool
) -> None:
    records = document["results"]
    if out:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if plot:
        from nnz_service.cli import _plot

        note = f"{document['processor']}, {document['threads']} thread(s)"
        _plot.draw(records[0], note, plot)
    if as_json:
        print_json(document)
    for record in records:
        if not as_json:
            _bench_tables.show(record, document["threads"])
    if _bench_tables.complain_of(records):
        raise typer.Exit(FAILED)
