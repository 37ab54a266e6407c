"""What the commands that talk to a server share: where it is, and how it fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.errors import ImpossibleError, UnavailableError

if TYPE_CHECKING:
    from nnz import Client

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Of the server; NNZ_URL, or this machine's NNZ_PORT."),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="Key of the server. NNZ_API_KEY is better: arguments can be seen by all.",
    ),
]


def address(url: str | None) -> str:
    """Where the server is: what was given, else NNZ_URL, else this machine."""
    port = os.environ.get("NNZ_PORT", "8000")
    return url or os.environ.get("NNZ_URL") or f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def connected(
    url: str | None, api_key: str | None = None, **options: Any
) -> Iterator[Client]:
    """Give a client; what the arguments have wrong is reported like a refusal."""
    from nnz import Client, ConnectError

    try:
        with Client(address(url), api_key=api_key, **options) as client:
            yield client
    except ConnectError as exc:
        raise UnavailableError(
            f"{exc}; start one with `nnz serve`, or say where it is with --url"
        ) from exc
    except (TypeError, ValueError) as exc:
        raise ImpossibleError(str(exc)) from exc


def extents(shape: Sequence[int | None]) -> str:
    """Write a shape; a free extent is a question mark."""
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"
