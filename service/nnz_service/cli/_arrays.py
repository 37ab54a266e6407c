"""Arrays of numpy as commands read and show them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nnz_service.cli._remote import extents

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers of an array that a table shows.
SHOWN = 4


def load_array(path: Path) -> NDArray[Any]:
    """Read one array of a .npy file, without pickle.

    Raises:
        typer.BadParameter: It is none.
    """
    found = load_arrays(path)
    if isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds several arrays; a .npy file holds one")
    return found


def load_arrays(path: str | Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Read a .npy file, or all of a .npz file.

    Raises:
        typer.BadParameter: It is neither.
    """
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as exc:
        raise typer.BadParameter(f"{path}: {exc.strerror}") from exc
    except (EOFError, ValueError) as exc:  # its own words advise to allow pickle
        message = f"{path} is not a .npy or .npz file of numbers"
        raise typer.BadParameter(message) from exc
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        array: NDArray[Any] = loaded
        return array
    with loaded:
        return dict(loaded)


def array_document(name: str, array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON; numbers that are not finite become null."""
    numbers = array.reshape(-1).tolist()
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "data": [number if math.isfinite(number) else None for number in numbers],
    }


def array_row(name: str, array: NDArray[Any]) -> tuple[object, ...]:
    """A row of a table: name, type, shape, smallest, mean, largest, first numbers."""
    head: tuple[object, ...] = (name, str(array.dtype), extents(array.shape))
    if not array.size:
        return (*head, None, None, None, None)
    first = ", ".join(f"{number:.4g}" for number in array.reshape(-1)[:SHOWN])
    more = ", ..." if array.size > SHOWN else ""
    numbers = (float(array.min()), float(array.mean()), float(array.max()))
    return (*head, *numbers, first + more)
