"""`highs_child` with a task that takes for ever."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nnz_service.algebra.lp import highs_child


def endless(_: Any) -> Any:
    """Compute until the process is ended, and say that it has begun."""
    (Path(sys.argv[2]) / "begun").touch()
    while True:
        pass


if __name__ == "__main__":
    highs_child.solve = endless
    highs_child.main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
