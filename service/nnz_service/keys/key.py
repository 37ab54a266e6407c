"""One API key: its secret, what is kept of it, and who holds it.

A secret is 256 random bits behind the id of its key, `nnz_<id>_<43 characters>`. Only
its SHA-256 is kept. A slow hash is right for passwords, which can be guessed one by
one; of 2^256 equally likely secrets none can, so that one round of a fast hash gives
nothing away, and a request is checked in microseconds.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnz_service.errors import ImpossibleError
from nnz_service.keys.caller import ROWS, Caller, Quota, Scope

_SECRET_BYTES = 32
_ID = re.compile(r"k-[0-9a-f]{8}")
_SECRET = re.compile(r"nnz_(k-[0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 128
NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class Key:
    """What is stored of a key.

    Args:
        id: `k-` and eight hexadecimal digits; names the key everywhere.
        name: What people call it; only shown.
        sha256: Of the secret, in hexadecimal.
        scopes: What it is good for.
        created: Seconds since 1970.
        row: Of the tables that all web processes share, 1 to `ROWS` - 1.
        expires: Seconds since 1970 from which it is not known any more.
        quota: How much its holder may ask for.
        disabled: Whether it was revoked.
    """

    id: str
    name: str
    sha256: str = field(repr=False)
    scopes: frozenset[Scope]
    created: float
    row: int
    expires: float | None = None
    quota: Quota = NO_QUOTA
    disabled: bool = False

    def usable(self, now: float) -> bool:
        """Whether it opens anything at `now`, seconds since 1970."""
        return not self.disabled and (self.expires is None or now < self.expires)

    def caller(self) -> Caller:
        """Its holder."""
        return Caller(self.id, self.scopes, self.quota, self.row)

    def to_json(self) -> dict[str, Any]:
        """Everything but the hash, for people to look at."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "created": self.created,
            "expires": self.expires,
            "quota": {
                "inflight": self.quota.inflight,
                "rate": self.quota.rate,
                "work": self.quota.work,
                "stored": self.quota.stored,
            },
            "disabled": self.disabled,
            "row": self.row,
        }

    def to_record(self) -> dict[str, Any]:
        """Everything, for the file."""
        return {**self.to_json(), "sha256": self.sha256}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> Key:
        """Rebuild what `to_record` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, ImpossibleError: It is no
                such record.
        """
        quota = record["quota"]
        key = Key(
            id=record["id"],
            name=record["name"],
            sha256=record["sha256"],
            scopes=frozenset(Scope(name) for name in record["scopes"]),
            created=float(record["created"]),
            row=int(record["row"]),
            expires=None if record["expires"] is None else float(record["expires"]),
            # Older files know no bound of bytes.
            quota=Quota(
                quota["inflight"], quota["rate"], quota["work"], quota.get("stored")
            ),
            disabled=record["disabled"],
        )
        if not (_ID.fullmatch(key.id) and _DIGEST.fullmatch(key.sha256)):
            raise ValueError(f"{key.id!r} has a wrong id or hash")
        if not (0 < key.row < ROWS and isinstance(key.disabled, bool)):
            raise ValueError(f"{key.id} has a wrong row or flag")
        check_quota(key.quota)
        return key


def new_secret(key_id: str) -> str:
    """Draw a secret for a key; nobody can tell it again."""
    drawn = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES))
    return f"nnz_{key_id}_{drawn.decode().rstrip('=')}"


def new_id() -> str:
    """Draw an id."""
    return f"k-{secrets.token_hex(4)}"


def id_in(secret: str) -> str | None:
    """Return the id of the key that a secret claims to be of; None when of none."""
    found = _SECRET.fullmatch(secret)
    return found[1] if found else None


def digest(secret: str) -> str:
    """Return the hash of a secret that is kept in its place."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_name(name: str) -> str:
    """Return a usable name of a key unchanged.

    Raises:
        ImpossibleError: It is not one.
    """
    if not (0 < len(name) <= _MAX_NAME and name.isprintable()):
        raise ImpossibleError(f"a key name has 1 to {_MAX_NAME} printable characters")
    return name


def check_quota(quota: Quota) -> None:
    """Refuse a bound that is no positive number.

    Raises:
        ImpossibleError: naming the bound.
    """
    for name, bound in dataclasses.asdict(quota).items():
        if bound is not None and not (math.isfinite(bound) and bound > 0):
            raise ImpossibleError(f"{name} is {bound}; it must be a positive number")
