"""Python imports this at its start when PYTHONPATH names the folder: a clock of the
wall that a file sets, for every process of a server.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_FILE = Path(os.environ["CLOCK_SET_BY"])
_true = time.time


def _time() -> float:
    return _true() + float(_FILE.read_text())


time.time = _time
