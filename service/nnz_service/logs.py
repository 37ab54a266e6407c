"""Logging: one line an event on standard error, JSON unless a person is watching."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import structlog

#: Levels that can be switched, from the most talkative on; an `error` covers all above.
LEVELS = ("debug", "info", "warning", "error")

#: Those that are written now; None until this process has set up logging itself.
_chosen: frozenset[str] | None = None

_NONE: Mapping[str, Any] = MappingProxyType({})
#: Fields of every line of the current task.
_bound: ContextVar[Mapping[str, Any]] = ContextVar("bound", default=_NONE)


def configure(level: str, process: str) -> None:
    """Set up logging of this process; every line names it.

    Args:
        level: debug, info, warning, error or critical.
        process: supervisor, web, grpc, worker or intake.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(pad_event_to=0)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            _only_chosen,
            _add_bound,
            _naming(process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=lambda *_: _Logger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    choose(name for name in LEVELS if logging.getLevelName(name.upper()) >= number)
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)


def choose(levels: Iterable[str]) -> None:
    """Write lines of these `LEVELS` alone from now on, in this process."""
    global _chosen
    _chosen = frozenset(levels)
    numbers = [logging.getLevelNamesMapping()[name.upper()] for name in _chosen]
    lowest = min(numbers, default=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(lowest))


def chosen() -> frozenset[str] | None:
    """Return the levels that are written; None where logging is somebody else's."""
    return _chosen


def bound(**fields: Any) -> _Bound:
    """Add fields to every line of a block, also of the threads that it waits for."""
    return _Bound(fields)


class _Bound:
    """Structlog's own costs five times as much, and one stands around every request."""

    __slots__ = ("_fields", "_token")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _bound.set({**_bound.get(), **self._fields})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


class _Logger(structlog.WriteLogger):
    """Loses a line rather than fail what it tells of: a full disk, a reader gone."""

    def msg(self, message: str) -> None:
        """Write one line if it can be written."""
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def quieten() -> None:
    """Let only warnings out, on standard error, unless somebody has set up logging.

    For a server inside somebody else's program.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Looked up at each line, for the program may put another stream there.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )


def _only_chosen(_logger: Any, method: str, event: Any) -> Any:
    """Drop a line of a level that is switched off between others that are on."""
    level = method if method in LEVELS else "error"
    if _chosen is not None and level not in _chosen:
        raise structlog.DropEvent
    return event


def _add_bound(_logger: Any, _method: str, event: Any) -> Any:
    return {**_bound.get(), **event}


def _naming(process: str) -> structlog.typing.Processor:
    """Name the process in every line; a context variable would not reach threads."""

    def name(_logger: Any, _method: str, event: Any) -> Any:
        return {"process": process, **event}

    return name


def logger() -> structlog.typing.FilteringBoundLogger:
    """Give the logger; events are short lower-case phrases with named values."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
