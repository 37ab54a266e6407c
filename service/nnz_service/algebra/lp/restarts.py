"""When to restart Halpern iterations, and how to weigh primal against dual.

Lu, Yang, "cuPDLPx", arXiv 2507.14051: restarts follow the fixed-point error, and a
controller moves the weight at each restart. Theirs has gains of 0.99 and 0.01 for the
error and its memory; on Netlib it swings to weights that it never leaves. A smaller
gain without memory, as in PDLP (arXiv 2106.04756, section 4.4), and restarts that ask
for less than theirs (0.2, 0.5) solve more of it in fewer iterations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Fall of the fixed-point error, since the anchor, at which to restart at once; and at
#: which to restart as soon as it grows.
SUFFICIENT, NECESSARY = 0.3, 0.8

#: Share of all iterations after which an anchor has served its time.
ARTIFICIAL = 0.36

#: Share of the error, in logarithms, by which the weight moves; and share of the
#: imbalance of the residuals, where an anchor served its time. Both are cut at a factor
#: of e^5: while x waits at its bounds it does not move, and a weight made by that takes
#: y in one leap to where no step brings it back from.
GAIN, BALANCE, MOST = 0.7, 0.2, 5.0

#: Movements that are none or too large to be trusted; ratios beyond which residuals are
#: not balanced.
_MOVES, _RATIOS = (1e-16, 1e12), (1e-8, 1e8)


@dataclass(slots=True)
class Restarts:
    """The policy and its memory.

    Args:
        weight: Of the primal: steps are ``step / weight`` and ``step * weight``.
        inner: Iterations since the anchor was set.
        total: Iterations in all.
        first: Fixed-point error of the first iteration since then.
        last: The one at the last check.
        stuck: Whether the last restart was due to time alone.
        best_weight: Weight at which both residuals were most alike.
        best_ratio: How alike, in powers of ten.
        count: Restarts so far.
    """

    weight: float = 1.0
    inner: int = 0
    total: int = 0
    first: float = math.inf
    last: float = math.inf
    stuck: bool = False
    best_weight: float = 1.0
    best_ratio: float = math.inf
    count: int = 0

    def state(self) -> dict[str, Any]:
        """Return all numbers."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Restarts:
        """Return what `state` came from."""
        found = cls()
        for name in cls.__slots__:
            kind = type(getattr(found, name))
            setattr(found, name, kind(state[name]))
        return found

    def is_due(self, error: float) -> bool:
        """Whether the anchor should move; *error* is the fixed-point error now."""
        fell = error <= SUFFICIENT * self.first or (
            error <= NECESSARY * self.first and error > self.last
        )
        late = self.inner >= ARTIFICIAL * self.total
        self.stuck = self.count > 0 and late and not fell
        self.last = error
        return self.count == 0 or fell or late

    def restart(
        self, moved: tuple[float, float], residuals: tuple[float, float]
    ) -> None:
        """Begin anew and choose the next weight.

        Args:
            moved: 2-norms by which x and y moved since the anchor.
            residuals: Relative primal and dual residual.
        """
        primal, dual = residuals
        ratio = dual / primal if primal > 0 else math.inf
        change = self._change(moved)
        if change is None:
            self.weight = self.best_weight
        else:
            if self.stuck and _RATIOS[0] < ratio < _RATIOS[1]:
                change -= BALANCE * _cut(math.log(ratio))
            self.weight *= math.exp(_cut(change))
        if 0 < ratio < math.inf and abs(math.log10(ratio)) < self.best_ratio:
            self.best_ratio = abs(math.log10(ratio))
            self.best_weight = self.weight
        self.inner, self.last = 0, math.inf
        self.count += 1

    def _change(self, moved: tuple[float, float]) -> float | None:
        """Return by how much the logarithm of the weight should move, if that is known.

        Where x or y stood still it is the most that it may be.
        """
        x, y = moved
        if not max(moved) < _MOVES[1] or max(moved) <= _MOVES[0]:
            return None
        if min(moved) <= _MOVES[0]:
            return MOST if x < y else -MOST
        return GAIN * math.log(y / x / self.weight)


def _cut(change: float) -> float:
    return max(-MOST, min(MOST, change))
