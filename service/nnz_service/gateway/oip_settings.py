"""What the protocol lets clients change about logs and traces, fixed here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nnz_service import logs
from nnz_service.errors import ImpossibleError

#: Tracing is off and stays off.
TRACE: Mapping[str, Any] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
#: What to do instead of a change.
LOG_INSTEAD = "set NNZ_LOG_LEVEL and restart"
TRACE_INSTEAD = "read the Server-Timing header of HTTP instead"


def log_settings() -> dict[str, Any]:
    """Say what is logged by this process."""
    level = logs.logger().get_effective_level()
    return {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": 0 if level > logging.DEBUG else 1,
        "log_format": "default",
    }


def must_equal(asked: Mapping[str, Any], held: Mapping[str, Any], instead: str) -> None:
    """Refuse a change; None clears a setting, which changes nothing here.

    Raises:
        ImpossibleError: A setting is not one of those held, or has another value.
    """
    for name, value in asked.items():
        if name not in held:
            raise ImpossibleError(
                f"there is no setting {name[:80]!r}; there are {', '.join(held)}"
            )
        if value is not None and value != held[name]:
            raise ImpossibleError(
                f"{name} is {held[name]!r} and cannot be changed here; {instead}"
            )
