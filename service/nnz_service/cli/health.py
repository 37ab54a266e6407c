"""``nnz health``: ask a server whether it can take work; for probes and scripts."""

from __future__ import annotations

from typing import Any

import typer

from nnz_service.cli._app import FAILED, JsonFlag, app, print_json
from nnz_service.cli._remote import CaOption, UrlOption, address, connected


@app.command(rich_help_panel="Server")
def health(
    url: UrlOption = None,
    ca: CaOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Exit with 0 when the server is ready, with 1 when it is not there or starting.

    Example: `nnz health --url http://127.0.0.1:8000`
    """
    options: dict[str, Any] = {} if ca is None else {"verify": ca}
    with connected(url, timeout=4.0, retries=0, **options) as client:
        ready = client.server.ready()
    where = address(url)
    if as_json:
        print_json({"url": where, "ready": ready})
    else:
        typer.echo(f"{where} is {'ready' if ready else 'not ready'}")
    if not ready:
        raise typer.Exit(FAILED)
