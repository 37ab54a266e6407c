"""``nnz keys``: create, list and revoke API keys, whether a server runs or not."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnz_service.cli._app import JsonFlag, app, print_json, print_table
from nnz_service.errors import ImpossibleError

if TYPE_CHECKING:
    from nnz_service.keys import Scope
    from nnz_service.keys.key import Key

keys = typer.Typer(
    no_args_is_help=True,
    help="API keys of a home: create, list, revoke. A server notices within a second.",
    name="keys",
)
app.add_typer(keys, rich_help_panel="Server")

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="NNZ_HOME", help="Home of the server.")
]
KeyId = Annotated[str, typer.Argument(help="Id, as `nnz keys list` shows it.")]

_HOME = Path("nnz-home")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What people call the key.")],
    scope: Annotated[
        list[str],
        typer.Option(help="infer, algebra or admin; several by repeating it."),
    ],
    expires: Annotated[
        str | None, typer.Option(help="From now: 90d, 12h (s, m, h, d, w).")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second, at most.")
    ] = None,
    inflight: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    work: Annotated[
        float | None, typer.Option(help="Seconds of computing a minute, of requests.")
    ] = None,
    stored: Annotated[
        int | None, typer.Option(help="Bytes of matrices that it keeps, at most.")
    ] = None,
    home: HomeOption = _HOME,
    as_json: JsonFlag = False,
) -> None:
    """Create a key and print its secret, which is shown this once.

    `infer` is for models, `algebra` for matrices, operations and jobs, `admin` for
    everything, such as putting models. From the first key on a server asks for keys.

    Example: `nnz keys create --name alice --scope infer --scope algebra --expires 90d`
    """
    from nnz_service.keys import KeyFile, Quota

    key, secret = KeyFile(home).create(
        name,
        _scopes(scope),
        expires=None if expires is None else _span(expires),
        quota=Quota(inflight, rate, work, stored),
    )
    if as_json:
        print_json({**key.to_json(), "secret": secret})
        return
    typer.echo(f"{key.id} ({key.name}), kept in {home}; the secret, shown this once:")
    typer.echo(secret)


@keys.command(name="list")
def list_(home: HomeOption = _HOME, as_json: JsonFlag = False) -> None:
    """List the keys; their secrets are not known any more.

    Example: `nnz keys list`
    """
    from nnz_service.keys import KeyFile

    found = sorted(KeyFile(home).read().values(), key=lambda key: key.created)
    if as_json:
        print_json({"keys": [key.to_json() for key in found]})
        return
    columns = (
        *("id", "name", "scopes", "created", "expires", "rate ", "inflight ", "work "),
        *("stored ", "state"),
    )
    rows = [_row(key) for key in found]
    spare = ("created", "stored ", "work ")
    print_table(f"{len(rows)} keys", columns, rows, spare=spare)


@keys.command()
def revoke(key_id: KeyId, home: HomeOption = _HOME, as_json: JsonFlag = False) -> None:
    """Close the door to a key for good.

    What it made stays, for admins to see and to remove.

    Example: `nnz keys revoke k-0123abcd`
    """
    from nnz_service.keys import KeyFile

    key = KeyFile(home).revoke(key_id)
    if as_json:
        print_json(key.to_json())
    else:
        typer.echo(f"revoked {key.id} ({key.name})")


def _row(key: Key) -> tuple[object, ...]:
    quota = key.quota
    if key.disabled:
        state = "revoked"
    else:
        state = "usable" if key.usable(time.time()) else "expired"
    return (
        key.id,
        key.name,
        " ".join(sorted(key.scopes)),
        _day(key.created),
        _day(key.expires),
        *(quota.rate, quota.inflight, quota.work, quota.stored),
        state,
    )


def _day(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _scopes(names: list[str]) -> frozenset[Scope]:
    from nnz_service.keys import Scope

    for name in names:
        if name not in {*Scope}:
            raise ImpossibleError(
                f"there is no scope {name[:40]!r}; there are {', '.join(Scope)}"
            )
    return frozenset(map(Scope, names))


def _span(text: str) -> float:
    found = _SPAN.fullmatch(text)
    if not found:
        raise ImpossibleError(
            f"--expires is {text[:40]!r}; it is a number and one of s, m, h, d, w: 90d"
        )
    return float(found[1]) * _SECONDS[found[2]]
