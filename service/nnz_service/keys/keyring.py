"""The keys that a running server knows, from its settings and from the file."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nnz_service import logs
from nnz_service.errors import ForbiddenError, UnauthorizedError
from nnz_service.keys.caller import ANYBODY, Caller, Scope
from nnz_service.keys.file import KeyFile, KeyFileError, Stamp
from nnz_service.keys.key import Key, digest, id_in

#: Seconds between two looks at the file.
_LOOK = 1.0
#: Who sends the key of the settings.
ENVIRONMENT = Caller("env")
#: Compared with where there is no key, so that an unknown id costs as much.
_NOBODY = digest("")


class Keyring:
    """Finds out who a caller is; the file is read again when it changes.

    From the first key on keys are asked for, until the process ends: neither revoking
    all of them nor losing the file opens the door again. A file that is damaged or gone
    leaves the keys as they were; where none were known yet, none is.

    Args:
        environment: The key of the settings, with every scope; None is none.
        home: Folder of the file; None does without.
        clock: Gives seconds since 1970.
        ticks: Gives monotonic seconds.
    """

    def __init__(
        self,
        environment: str | None = None,
        home: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment = None if environment is None else digest(environment)
        self._file = None if home is None else KeyFile(home)
        self._clock = clock
        self._ticks = ticks
        self._keys: Mapping[str, Key] = {}
        self._required = environment is not None
        self._stamp: Stamp | None = None
        self._fault = ""
        self._due = ticks()

    @property
    def required(self) -> bool:
        """Whether callers must send a key."""
        self._look()
        return self._required

    @property
    def usable(self) -> bool:
        """Whether there is a key with which somebody can come in."""
        self._look()
        now = self._clock()
        return self._environment is not None or any(
            key.usable(now) for key in self._keys.values()
        )

    def caller(self, sent: str | None) -> Caller:
        """Return who sent a key, in a time that says nothing about the keys.

        Args:
            sent: The bearer token of the request; None when there is none.

        Raises:
            UnauthorizedError: It is missing; or unknown, expired or revoked, which
                sound alike.
        """
        if not self.required:
            return ANYBODY
        if sent is None:
            raise UnauthorizedError("send the API key as `Authorization: Bearer <key>`")
        found = digest(sent)
        key = self._keys.get(id_in(sent) or "")
        same = hmac.compare_digest(found, key.sha256 if key else _NOBODY)
        first = hmac.compare_digest(found, self._environment or _NOBODY)
        if first and self._environment is not None:
            return ENVIRONMENT
        if key is not None and same and key.usable(self._clock()):
            return key.caller()
        raise UnauthorizedError("this API key is not known here")

    def holder(self, key_id: str) -> Caller | None:
        """Return who holds a key, be it disabled; None when none has this id."""
        self._look()
        key = self._keys.get(key_id)
        return None if key is None else key.caller()

    def _look(self) -> None:
        if self._file is None or self._ticks() < self._due:
            return
        self._due = self._ticks() + _LOOK
        try:
            self._read(self._file)
            self._fault = ""
        except KeyFileError as error:
            self._required = True
            if str(error) != self._fault:  # said once, not every second
                self._fault = str(error)
                logs.logger().error("keys not read", reason=self._fault)

    def _read(self, file: KeyFile) -> None:
        stamp = file.stamp()
        if stamp is None:
            if self._stamp is not None:
                raise KeyFileError(f"{file.path} is gone; the keys stay as they were")
            return
        if stamp == self._stamp:
            return
        self._keys = file.read()
        # Of before the reading: what changed meanwhile is read once more.
        self._stamp = stamp
        self._required = self._required or bool(self._keys)
        logs.logger().info("keys read", keys=len(self._keys))


def authorise(caller: Caller, scopes: frozenset[Scope], what: str) -> None:
    """Let a caller do what one of some scopes allows; an admin may do everything.

    Args:
        caller: Who asks.
        scopes: One of them is needed; none where any key will do.
        what: They ask for, as they wrote it.

    Raises:
        ForbiddenError: They have none of them.
    """
    if caller.admin or not scopes or not scopes.isdisjoint(caller.scopes):
        return
    needed = " or ".join(sorted(scopes))
    raise ForbiddenError(
        f"this API key may not do {what}: it needs the scope {needed} and has "
        f"{', '.join(sorted(caller.scopes))}"
    )
