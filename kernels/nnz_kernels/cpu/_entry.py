"""The description of a compiled entry point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One jitted function and the argument types that Python calls it with.

    Args:
        function: What ``numba.njit`` returned.
        signatures: One tuple of numba types a variant, such as
            ``(types.float32[::1], types.int64)``.
        rare: More of them, which compile when they are first called: most machines
            never see them.
    """

    function: Any
    signatures: tuple[tuple[Any, ...], ...]
    rare: tuple[tuple[Any, ...], ...] = ()

    @property
    def name(self) -> str:
        """Name of the function, without the leading underscore."""
        return str(self.function.__name__).lstrip("_")

    @property
    def misses(self) -> int:
        """How many variants this process did not find in the cache."""
        return sum(self.function.stats.cache_misses.values())
