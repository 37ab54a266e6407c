"""How `nnz bench` tells people what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from nnz_service.cli._app import complain, print_table

Record = Mapping[str, Any]

_TIMES = ("median ms ", "p10 ", "p90 ")
#: What a narrow terminal does without in the table of a sweep, the first first.
SPARE = ("p10 ", "p90 ", "weights MB ", "density ")
_SIZES = ("weight_bytes", "resident_weights", "peak_rss")


def show(record: Record, threads: int) -> None:
    """Print the tables of one model and a line for each ratio."""
    sizes = ", ".join(
        f"{name} {'x'.join(map(str, extents))}"
        for name, extents in record["shapes"].items()
    )
    title = f"{record['model']}, {sizes}, {threads} thread(s)"
    if "sweep" in record:
        _show_sweep(record, title)
    else:
        _show_systems(record, title)


def disagreements(record: Record) -> list[str]:
    """Say which peers answered differently, and where."""
    places = [(record["model"], record)] + [
        (f"{record['model']}, {point['sparsity']:.0%} in 1x{line['block']}", point)
        for line in record.get("sweep", ())
        for point in line["points"]
    ]
    return [
        f"{place}: the answers of {peer} differ {_gap(found)}; "
        "a ratio would mean nothing"
        for place, part in places
        for peer, found in part.get("peers", {}).items()
        if not found["agrees"]
    ]


def complain_of(records: Sequence[Record]) -> bool:
    """Print the disagreements; return whether there are any."""
    found = [line for record in records for line in disagreements(record)]
    for line in found:
        complain(line)
    return bool(found)


def _gap(found: Record) -> str:
    gap = found["max_relative_difference"]
    return "without bound" if gap is None else f"by {gap:.1e}"


def _show_systems(record: Record, title: str) -> None:
    columns = ("", *_TIMES, "images/s ", "weights MB ", "resident MB ", "peak RSS MB ")
    rows = [(name, *_cells(found)) for name, found in record["systems"].items()]
    print_table(title, columns, rows)
    for peer, found in record["peers"].items():
        if found["agrees"]:
            typer.echo(
                f"{peer} takes {found['ratio']:.2f} times as long as nnz "
                f"({found['ratio_p10']:.2f} to {found['ratio_p90']:.2f} in single "
                f"rounds); answers agree to {found['max_relative_difference']:.1e}"
            )


def _cells(found: Record) -> tuple[str, ...]:
    rate = found.get("images_per_second")
    sizes = [found[key] for key in _SIZES]
    return (
        *_milliseconds(found),
        "-" if rate is None else f"{rate:.1f}",
        *("-" if size is None else f"{size / 1e6:.2f}" for size in sizes),
    )


def _milliseconds(found: Record) -> tuple[str, ...]:
    return tuple(f"{found[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))


def _show_sweep(record: Record, title: str) -> None:
    peers = list(record["sweep"][0]["break_even"])
    theirs = [f"{peer} {what} " for peer in peers for what in ("ms", "ratio")]
    columns = ("block", "sparsity ", "density ", *_TIMES, "weights MB ", *theirs)
    rows = [
        (f"1x{line['block']}", *_point_cells(point, peers))
        for line in record["sweep"]
        for point in line["points"]
    ]
    print_table(title, columns, rows, SPARE)
    for line in record["sweep"]:
        block, fit = f"1x{line['block']}", line["correlation"]
        if fit is not None:
            typer.echo(f"{block}: correlation of time and density {fit:.4f}")
        for peer, place in line["break_even"].items():
            where = "nowhere" if place is None else f"from sparsity {place:.2f} on"
            typer.echo(f"{block}: as fast as dense {peer} {where}")


def _point_cells(point: Record, peers: list[str]) -> tuple[str, ...]:
    ours = point["systems"]["nnz"]
    cells = [f"{point['sparsity']:.0%}", f"{point['density']:.1%}"]
    cells += [*_milliseconds(ours), f"{ours['weight_bytes'] / 1e6:.2f}"]
    for peer in peers:
        ratio = point["peers"][peer]["ratio"]
        cells.append(f"{point['systems'][peer]['median_ms']:.3f}")
        cells.append("-" if ratio is None else f"{ratio:.2f}")
    return tuple(cells)
