"""Logging: one line an event on standard error, JSON unless a person is watching."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

import structlog


def configure(level: str, process: str) -> None:
    """Set up logging of this process; every line names it.

    Args:
        level: debug, info, warning or error.
        process: supervisor, web, worker or intake.
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(pad_event_to=0)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _naming(process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Logger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)


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


def _naming(process: str) -> structlog.typing.Processor:
    """Name the process in every line; a context variable would not reach threads."""

    def name(_logger: Any, _method: str, event: Any) -> Any:
        return {"process": process, **event}

    return name


def logger() -> structlog.typing.FilteringBoundLogger:
    """Give the logger; events are short lower-case phrases with named values."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
