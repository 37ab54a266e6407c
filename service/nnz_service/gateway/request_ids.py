"""The name of a request, by which its caller and the log speak of it."""

from __future__ import annotations

import os
import re

_USABLE = re.compile(r"[!-~]{1,128}")


def request_id(given: str) -> str:
    """Return the caller's own name for a request when it can stand in a log, or one."""
    return given if _USABLE.fullmatch(given) else os.urandom(16).hex()
