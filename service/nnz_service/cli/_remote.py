"""What the commands that talk to a server share: where it is, and how it fails."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnz_service.errors import ImpossibleError, UnavailableError

if TYPE_CHECKING:
    from nnz import Client, Matrix

_ID = re.compile(r"m-[0-9a-f]{16}")

MatrixArgument = Annotated[
    str,
    typer.Argument(
        metavar="MATRIX", help="Id of a matrix on the server, or a file to put there."
    ),
]
TimeLimit = Annotated[
    float | None, typer.Option(help="Most seconds of computing.", min=0)
]
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
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        help="PEM file to trust an https server by; NNZ_CA for every command.",
    ),
]


def address(url: str | None) -> str:
    """Where the server is: what was given, else NNZ_URL, else this machine."""
    return url or os.environ.get("NNZ_URL") or _here()


def _here() -> str:
    """The server that the same environment starts."""
    scheme = "https" if os.environ.get("NNZ_TLS_CERT") else "http"
    return f"{scheme}://127.0.0.1:{os.environ.get('NNZ_PORT', '8000')}"


def _trusted_here() -> ssl.SSLContext | None:
    """Trust the one certificate that our own server has, whatever its name.

    It was made for the name that others call, not for 127.0.0.1.
    """
    cert = os.environ.get("NNZ_TLS_CERT")
    if cert is None or os.environ.get("NNZ_CA"):
        return None
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    # Of a chain the server's own certificate is enough.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@contextlib.contextmanager
def connected(
    url: str | None, api_key: str | None = None, **options: Any
) -> Iterator[Client]:
    """Give a client; what the arguments have wrong is reported like a refusal."""
    from nnz import Client, ConnectError

    where = address(url)
    try:
        if where.startswith("https://") and where == _here():
            options.setdefault("verify", _trusted_here())
        with Client(where, api_key=api_key, **options) as client:
            yield client
    except ConnectError as exc:
        raise UnavailableError(
            f"{exc}; start one with `nnz serve`, or say where it is with --url"
        ) from exc
    except (TypeError, ValueError) as exc:
        raise ImpossibleError(str(exc)) from exc


def placed(client: Client, source: str) -> Matrix:
    """The matrix of an id, or of a file, which is put.

    Raises:
        ImpossibleError: It is neither.
    """
    if _ID.fullmatch(source):
        return client.matrices.get(source)
    path = Path(source)
    if not path.is_file():
        raise ImpossibleError(
            f"{source!r} is neither the id of a matrix, as m-0123456789abcdef, nor a "
            "file that is there"
        )
    return client.matrices.put(path)


def extents(shape: Sequence[int | None]) -> str:
    """Write a shape; a free extent is a question mark."""
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"
