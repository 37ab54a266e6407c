"""The typer application and what every command shares: errors, JSON, tables.

A command file imports `app` from here and decorates its functions; the package's
``__init__`` imports the command files. Whatever is slow to import (numba, onnx, the
engine, the SDK) is imported inside the command, so that ``nnz --help`` stays quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from typer.core import TyperGroup

from nnz_service import __version__
from nnz_service.errors import ServiceError

#: Panels of the help, as a newcomer needs them.
PANELS = ("Server", "Models", "Client")
#: Exit codes: a command could not do what was asked; it was asked wrongly (as typer).
FAILED, WRONG_USAGE = 1, 2

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, for programs.")
]

#: Columns of a table that goes to a file or a pipe: every row stays on one line.
PIPE_WIDTH = 400


class Commands(TyperGroup):
    """A group whose commands report expected errors in one line, with exit code 1."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands in the order of their panels in the help."""
        panels = {
            n: getattr(c, "rich_help_panel", "") for n, c in self.commands.items()
        }
        places = {panel: place for place, panel in enumerate(PANELS)}
        return sorted(panels, key=lambda name: (places.get(panels[name], 9), name))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; bad files, bad input and lost servers are no tracebacks."""
        try:
            return super().invoke(ctx)
        except Exception as exc:
            if not _expected(exc):
                raise
            # A reader who needs the place finds it with the library, not the command.
            complain(str(exc) or type(exc).__name__)
            raise typer.Exit(FAILED) from None


app = typer.Typer(
    cls=Commands,
    name="nnz",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def describe(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve pruned neural networks and sparse matrices: pay only for the nonzeros.

    `nnz serve` starts the server; `nnz COMMAND --help` ends with an example of each
    command. Exit codes: 0 done, 1 failed, 2 wrong usage.
    """
    if version:
        typer.echo(f"nnz {__version__}")
        raise typer.Exit


def complain(message: str) -> None:
    """Print an error to stderr; square brackets in it are text, not markup."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"error: {message}", style="red", markup=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to stdout, as it is: no colours, no line breaks added."""
    typer.echo(json.dumps(document, indent=2))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    spare: Sequence[str] = (),
) -> None:
    """Print rows as a table; columns whose name ends in a space align right.

    Out of a terminal the table is as wide as it needs, so that `grep` sees whole rows.
    In a terminal that is too narrow the `spare` columns are left out, the first of
    them first, and a line says so; what is still too long is folded, but no number.
    """
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    unbounded = console.options.update(max_width=PIPE_WIDTH)
    without: list[str] = []
    for name in [None, *spare]:
        without += [name] if name is not None else []
        table = _table(title, columns, rows, without)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            break
    console.print(table)
    if without:
        names = ", ".join(name.strip() for name in without)
        console.print(f"not shown for want of room: {names}", highlight=False)


def _table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    without: Sequence[str],
) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    shown = [place for place, name in enumerate(columns) if name not in without]
    for name in (columns[place] for place in shown):
        if name.endswith(" "):
            table.add_column(name.strip(), justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[place]) for place in shown))
    return table


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell).replace("[", r"\[")


def _expected(exc: Exception) -> bool:
    if isinstance(exc, BrokenPipeError):
        return False  # the reader has gone, as `head` does; typer ends quietly
    if isinstance(exc, ServiceError | OSError):
        return True
    # The errors of the SDK and the kernels, told by their home: importing those
    # packages for a command that never used them would cost every start.
    homes = {kind.__module__.partition(".")[0] for kind in type(exc).__mro__}
    return not homes.isdisjoint({"nnz", "nnz_kernels"})
