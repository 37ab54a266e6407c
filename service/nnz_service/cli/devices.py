"""``nnz devices``: where a server can compute, and why not elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.cli._remote import KeyOption, UrlOption, connected

#: Shown in columns of their own; what else there is goes into the last one.
NAMED = ("backend", "available", "reason", "families")


@app.command(rich_help_panel="Client")
def devices(
    here: Annotated[
        bool, typer.Option("--here", help="Look at this machine, without a server.")
    ] = False,
    url: UrlOption = None,
    api_key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the back-ends: whether they can run, why not, and what they can do.

    Example: `nnz devices --here`
    """
    if here:
        rows = _probe()
    else:
        with connected(url, api_key) as client:
            rows = client.server.devices()
    if as_json:
        print_json({"devices": rows})
        return
    columns = ("back-end", "runs", "families", "details")
    print_table("", columns, [_row(device) for device in rows])


def _probe() -> list[dict[str, Any]]:
    from nnz_kernels.backends import Backend, probe

    found = [probe(backend) for backend in Backend]
    return [
        {
            "backend": one.backend.value,
            "available": one.available,
            "reason": one.reason,
            "families": list(one.families),
            **one.details,
        }
        for one in found
    ]


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    details = [f"{key} {value}" for key, value in device.items() if key not in NAMED]
    reason = device.get("reason")
    return (
        device.get("backend"),
        "yes" if device.get("available") else "no",
        ", ".join(device.get("families") or ()) or None,
        ", ".join([reason] if reason else details) or None,
    )
