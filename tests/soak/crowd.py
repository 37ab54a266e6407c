"""Many callers in one thread: they cost little beside the server that they load."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from soak.load import GRACE, tensor_body
from soak.raw import Answer, Line

#: Seconds that every request is given.
DEADLINE = 1.0
_LENGTH = "inference-header-content-length"


@dataclass
class Tally:
    """What became of the requests of a crowd.

    Args:
        seconds: How long it was there.
        codes: Answers by status.
        good: Right answers within their deadline.
        wrong: Answers of 200 that were not right.
        late: Answers more than `GRACE` after their deadline.
    """

    seconds: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    good: int = 0
    wrong: int = 0
    late: int = 0
    slowest: float = 0.0

    @property
    def rate(self) -> float:
        """Right answers in time, a second."""
        return self.good / self.seconds

    @property
    def asked(self) -> float:
        """Requests a second."""
        return sum(self.codes.values()) / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.asked:.0f}/s asked, {self.rate:.0f}/s good, {dict(self.codes)}, "
            f"{self.wrong} wrong, {self.late} late, slowest {self.slowest:.3f} s"
        )


class Crowd:
    """Callers who multiply with one matrix, and know every answer beforehand.

    Args:
        address: Host and port.
        a: The matrix.
        name: Its id.
    """

    def __init__(self, address: tuple[str, int], a: sp.csr_array, name: str) -> None:
        self._address = address
        rng = np.random.default_rng(0)
        self._known = itertools.cycle([_product(a, name, rng) for _ in range(50)])

    def run(
        self, number: int, seconds: float, tally: Tally, *, polite: bool = False
    ) -> None:
        """So many callers for so long, each of whom asks again when it is answered.

        Polite ones wait as long as a refusal tells them to.
        """
        lines = [Line(self._address) for _ in range(number)]
        asked = [self._ask(line) for line in lines]
        waiting: list[tuple[float, int]] = []
        tally.seconds += seconds
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for at, line in enumerate(lines):
                selector.register(line, selectors.EVENT_READ, at)
            while (now := time.monotonic()) < until:
                while waiting and waiting[0][0] <= now:
                    at = heapq.heappop(waiting)[1]
                    asked[at] = self._ask(lines[at])
                for key, _ in selector.select(0.01):
                    at, line = key.data, lines[key.data]
                    line.receive(1.0)
                    assert not line.ended, "the server hung up"
                    if line.answers:
                        answer = line.answers.pop()
                        _judge(tally, answer, *asked[at])
                        pause = int(answer.headers.get("retry-after", 0)) * polite
                        heapq.heappush(waiting, (now + pause, at))
        for line in lines:
            line.close()

    def _ask(self, line: Line) -> tuple[float, np.ndarray]:
        request, right = next(self._known)
        line.send(request)
        return time.monotonic(), right


def _product(
    a: sp.csr_array, name: str, rng: np.random.Generator
) -> tuple[bytes, np.ndarray]:
    """A request as bytes, and its right answer."""
    x = rng.standard_normal(a.shape[1])
    timeout = int(DEADLINE * 1e6)
    body, headers = tensor_body({"x": x}, {"matrix": name, "timeout": timeout})
    lines = [f"{key}: {value}" for key, value in headers.items()]
    head = ["POST /v1/ops/spmv HTTP/1.1", "Host: localhost", *lines]
    text = "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""])
    return text.encode() + body, a @ x


def _judge(tally: Tally, answer: Answer, sent: float, right: np.ndarray) -> None:
    spent = time.monotonic() - sent
    tally.codes[answer.status] += 1
    tally.slowest = max(tally.slowest, spent)
    tally.late += spent > DEADLINE + GRACE
    if answer.status == 200:
        y = np.frombuffer(answer.body[int(answer.headers[_LENGTH]) :])
        fits = np.allclose(y, right, rtol=1e-12, atol=1e-12)
        tally.wrong += not fits
        tally.good += fits and spent <= DEADLINE
