"""``nnz infer``: apply a model on a server to arrays in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._arrays import array_document, array_row, load_arrays
from nnz_service.cli._remote import KeyOption, UrlOption, connected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nnz import ModelInfo

COLUMNS = ("output", "type", "shape", "min ", "mean ", "max ", "first numbers")


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
        Path | None, typer.Option("--save", "-o", help="Write outputs to this .npz.")
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
        print_json({"outputs": [array_document(*item) for item in answer.items()]})
    else:
        print_table("", COLUMNS, [array_row(*item) for item in answer.items()])


def _read(words: list[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays; one that has no name yet is under the empty name."""
    feeds: dict[str, NDArray[Any]] = {}
    for word in words:
        name, equals, path = word.partition("=")
        loaded = load_arrays(path if equals else word)
        if isinstance(loaded, dict):
            feeds |= loaded
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
