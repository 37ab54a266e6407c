"""``nnz op``: one operation on matrices of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._arrays import array_document, array_row, load_arrays
from nnz_service.cli._remote import (
    KeyOption,
    MatrixArgument,
    UrlOption,
    connected,
    placed,
)
from nnz_service.cli.matrices import document, show_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("output", "type", "shape", "min ", "mean ", "max ", "first numbers")

InputArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Dense operand: NAME=FILE.npy."),
]
SemiringOption = Annotated[
    str | None,
    typer.Option(
        help="Of spgemm, spmv and spmm: plus_times, min_plus, max_times or or_and."
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(help="Matrix whose places of the result of spgemm are wanted."),
]
SettingOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Parameter; may be repeated."),
]


@app.command(rich_help_panel="Client")
def op(
    name: Annotated[
        str, typer.Argument(metavar="OP", help="Such as spgemm, add, norm, spmv.")
    ],
    matrix: MatrixArgument,
    inputs: InputArguments = None,
    other: Annotated[
        str | None, typer.Option(help="The second matrix, where it takes two.")
    ] = None,
    semiring: SemiringOption = None,
    mask: MaskOption = None,
    settings: SettingOptions = None,
    label: Annotated[
        str | None, typer.Option(help="Name for the matrix that it makes.")
    ] = None,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Only say what it would cost.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="With --preflight: count, do not bound.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option("--save", "-o", help="An .npz for dense outputs.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Do an operation on matrices of a server and show what it gives.

    A matrix stays on the server, under the id that is printed. Values of `--set` are
    JSON; what is not is text.

    Examples: `nnz op spgemm A_ID --other B_ID --preflight`,
    `nnz op add A_ID --other B_ID --set beta=-1`, `nnz op norm A_ID --set kind=inf`,
    `nnz op spmv a.mtx x=x.npy --semiring min_plus -o y.npz`
    """
    arrays = _inputs(inputs or [])
    parameters = dict(_setting(one) for one in settings or [])
    if semiring is not None:
        parameters["semiring"] = semiring
    with connected(url, api_key) as client:
        handle = placed(client, matrix)
        second = None if other is None else placed(client, other)
        if mask is not None:
            parameters["mask"] = placed(client, mask).id
        if preflight:
            cost = handle.preflight(
                name, second, exact=exact, inputs=arrays, **parameters
            )
        else:
            made = client.ops.apply(
                name, handle, second, inputs=arrays, name=label, **parameters
            )
    if preflight:
        _show_cost(cost, as_json)
    elif not isinstance(made, dict):
        print_json(document(made.info)) if as_json else show_matrix(made.info)
    else:
        _show(made, save, as_json)


def _show(made: dict[str, NDArray[Any]], save: Path | None, as_json: bool) -> None:
    if save is not None:
        import numpy as np

        # numpy's stub takes names of arrays for its own options.
        np.savez(save, **made)  # type: ignore[arg-type]
    if as_json:
        print_json({"outputs": [array_document(*item) for item in made.items()]})
    else:
        print_table("", COLUMNS, [array_row(*item) for item in made.items()])


def _show_cost(cost: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"preflight": cost})
        return
    for name, value in cost.items():
        text = f"{value:,}" if isinstance(value, int) and value is not True else value
        typer.echo(f"{name:<18}{text}")


def _inputs(words: list[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals:
            raise typer.BadParameter(f"{word!r} is not NAME=FILE.npy")
        loaded = load_arrays(path)
        if isinstance(loaded, dict):
            raise typer.BadParameter(f"{path} holds several arrays; name a .npy file")
        arrays[name] = loaded
    return arrays


def _setting(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"{word!r} is not NAME=VALUE")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
