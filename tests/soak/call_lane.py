"""Operations and jobs with wild parameters and inputs, one after the other.

A case is made from the seed and its number alone; both are named when one fails.
"""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import httpx2
from service.web.test_wild import UNFORESEEN
from service.web.wild import CALLS, Stored, call, packed
from soak.duration import SEED

#: Answers of the server's own faults that a caller may simply repeat.
_FAIR = frozenset({503, 504})


class CallLane:
    """Sends cases one after the other."""

    def __init__(self, url: str, stored: dict[str, Stored]) -> None:
        self._http = httpx2.Client(base_url=url, timeout=60)
        self._stored = stored
        self.seen: Counter[tuple[str, int]] = Counter()
        self.slowest = 0.0

    def close(self) -> None:
        self._http.close()

    def run(self, numbers: range) -> None:
        names = [*CALLS]
        for number in numbers:
            rng = Random(f"{SEED}:{number}")  # noqa: S311 - no secret
            name = rng.choice(names)
            made = call(rng, self._stored, name)
            content, length = packed(made)
            headers = {"Inference-Header-Content-Length": str(length)}
            began = time.monotonic()
            answer = self._http.post(made[0], content=content, headers=headers)
            self.slowest = max(self.slowest, time.monotonic() - began)
            status = answer.status_code
            self.seen[name, status] += 1
            about = (SEED, number, name, made, answer.text)
            assert status < 500 or status in _FAIR, about
            if status >= 400:
                assert answer.json()["error"], about
                assert not UNFORESEEN.search(answer.json()["error"]), about
