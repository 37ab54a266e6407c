"""``nnz infer``: apply a model on a server to arrays in files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._remote import KeyOption, UrlOption, connected, extents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nnz import ModelInfo

COLUMNS = ("output", "type", "shape", "min ", "mean ", "max ", "first numbers")
#: Numbers of each output that the table shows.
SHOWN = 4


@app.command(rich_help_panel="Client")
def infer(
    name: Annotated[str, typer.Argument(help="Of the model, or a matrix id.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="INPUT=FILE.npy, or FILE.npy for a model with one input, or FILE.npz "
            "with arrays named like the inputs.",
        ),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            metavar="BATCH", help="Send random inputs, BATCH for free extents.", min=1
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="Version; the newest if left out.", min=1)
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="Output wanted; may be repeated.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the outputs to this .npz.")
    ] = None,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply a model on a server and show, print or save what comes out.

    Files are numpy's and are read without pickle. Arrays are sent in the type that
    they have. In JSON, numbers that are not finite become null.

    Examples: `nnz infer digits images.npy --save out.npz`,
    `nnz infer digits --random 8`, `nnz infer bert ids=ids.npy mask=mask.npy --json`
    """
    if (random is None) == (not inputs):
        raise typer.BadParameter("give input files, or --random BATCH, one of them")
    import numpy as np

    feeds = {} if random is not None else _read(inputs or [])
    with connected(url, api_key) as client:
        if random is not None:
            signature = client.models.signature(name, version=version)
            feeds = _random(signature, random)
        single = feeds.get("")
        answer = client.infer(
            name,
            feeds if single is None else single,
            outputs=output or None,
            version=version,
        )
    if save is not None:
        # the stubs take a keyword of savez to be meant by **
        np.savez(save, **answer)  # type: ignore[arg-type]
    if as_json:
        print_json({"outputs": [_document(*item) for item in answer.items()]})
    else:
        print_table("", COLUMNS, [_row(*item) for item in answer.items()])


def _read(words: list[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays; one that has no name yet is under the empty name."""
    import numpy as np

    feeds: dict[str, NDArray[Any]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        path = path if equals else word
        try:
            loaded = np.load(path, allow_pickle=False)
        except OSError as exc:
            raise typer.BadParameter(f"{path}: {exc.strerror}") from exc
        except (EOFError, ValueError) as exc:  # its own words advise to allow pickle
            message = f"{path} is not a .npy or .npz file of numbers"
            raise typer.BadParameter(message) from exc
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                feeds |= dict(loaded)
        else:
            feeds[name if equals else ""] = loaded
    if "" in feeds and len(feeds) > 1:
        raise typer.BadParameter("with several inputs, say which: INPUT=FILE.npy")
    return feeds


def _random(signature: ModelInfo, batch: int) -> dict[str, NDArray[Any]]:
    """Uniform numbers in [0, 1), or zeros and ones for whole numbers."""
    import numpy as np

    rng = np.random.default_rng(0)
    feeds = {}
    for spec in signature.inputs:
        shape = [batch if extent is None else extent for extent in spec.shape]
        whole = spec.dtype.kind != "f"
        numbers = rng.integers(0, 2, shape) if whole else rng.random(shape)
        feeds[spec.name] = numbers.astype(spec.dtype)
    return feeds


def _document(name: str, array: NDArray[Any]) -> dict[str, Any]:
    numbers = array.reshape(-1).tolist()
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "data": [number if math.isfinite(number) else None for number in numbers],
    }


def _row(name: str, array: NDArray[Any]) -> tuple[object, ...]:
    head: tuple[object, ...] = (name, str(array.dtype), extents(array.shape))
    if not array.size:
        return (*head, None, None, None, None)
    first = ", ".join(f"{number:.4g}" for number in array.reshape(-1)[:SHOWN])
    more = ", ..." if array.size > SHOWN else ""
    numbers = (float(array.min()), float(array.mean()), float(array.max()))
    return (*head, *numbers, first + more)
