"""``nnz health``: ask a server whether it can take work; for probes and scripts."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from nnz_service.cli._app import FAILED, JsonFlag, app, print_json


@app.command(rich_help_panel="Server")
def health(
    url: Annotated[
        str | None,
        typer.Option(help="Of the server; NNZ_URL, or this machine's NNZ_PORT."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Exit with 0 when the server is ready, with 1 when it is not there or starting.

    Example: `nnz health --url http://127.0.0.1:8000`
    """
    from nnz import Client

    port = os.environ.get("NNZ_PORT", "8000")
    where = url or os.environ.get("NNZ_URL") or f"http://127.0.0.1:{port}"
    with Client(where, timeout=4.0, retries=0) as client:
        ready = client.server.ready()
    if as_json:
        print_json({"url": where, "ready": ready})
    else:
        typer.echo(f"{where} is {'ready' if ready else 'not ready'}")
    if not ready:
        raise typer.Exit(FAILED)
