"""Which lines the log has, changed while the server runs (`/v2/logging`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnz_service import logs
from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.shared_file import SharedFile

_SWITCHES = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
_VERBOSE = "log_verbose_level"
_FIXED = {"log_file": "", "log_format": "default"}
_LOUDEST = 10


class LogLevels:
    """The log settings of the protocol, the same in all front doors and workers.

    Lines above zero of `log_verbose_level` are those of level debug. The settings of
    the start hold again when the server starts again.

    Args:
        file: Where changes are written down.
    """

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self._start = logs.chosen()
        self._followed: Mapping[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """Return all settings as they are now."""
        start = self._start if self._start is not None else frozenset(("warning",))
        held: dict[str, Any] = {
            name: level in start for name, level in _SWITCHES.items()
        }
        held[_VERBOSE] = 1 if "debug" in start else 0
        return {"log_file": "", **held, "log_format": "default", **self._file.read()}

    def change(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Change some settings, null to what they were at the start; returns all.

        Blocks for a moment.

        Raises:
            MalformedError: A value has another type.
            ImpossibleError: There is no such setting, or it is fixed.
        """
        for name, value in asked.items():
            _check(name, value)
        if self._start is None and asked:
            raise ImpossibleError(
                "the log belongs to the program that this server runs in"
            )
        with self._file.change() as held:
            for name, value in asked.items():
                if value is None:
                    held.pop(name, None)
                elif name not in _FIXED:
                    held[name] = value
        self.follow()
        return self.settings()

    def follow(self) -> None:
        """Let the log of this process be what was last asked for, here or elsewhere."""
        changed = self._file.read()
        if changed == self._followed or self._start is None:
            return
        self._followed = changed
        held = self.settings()
        levels = {level for name, level in _SWITCHES.items() if held[name]}
        levels |= {"debug"} if held[_VERBOSE] else set()
        logs.choose(levels)
        logs.logger().debug("log changed", written=sorted(levels))


def _check(name: str, value: object) -> None:
    names = [*_SWITCHES, _VERBOSE, *_FIXED]
    if name not in names:
        raise ImpossibleError(
            f"there is no setting {name[:80]!r}; there are {', '.join(names)}"
        )
    if value is None:
        return
    if name in _FIXED:
        if value != _FIXED[name]:
            raise ImpossibleError(
                f"{name} is {_FIXED[name]!r} and cannot be changed: the log goes to "
                "standard error, for whoever started the server to keep"
            )
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            raise MalformedError(f"{name} is {value!r}; it must be true or false")
    elif type(value) is not int or not 0 <= value <= _LOUDEST:
        raise MalformedError(f"{name} is {value!r}; it must be 0 to {_LOUDEST}")
