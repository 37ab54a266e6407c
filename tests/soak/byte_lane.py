"""Broken requests on raw sockets, one after the other, on one connection if it lives.

A case is made from the seed and its number alone; both are named when one fails.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from random import Random

import numpy as np
import orjson
from service.web.near_misses import REAL, Spec
from service.web.wire import WEIGHTS
from soak.duration import SEED
from soak.mutations import LENGTH, Draft, pieces, spoil
from soak.raw import BOUND, Answer, Line

#: After so many cases a right request must have its right answer.
EVERY = 10
#: Seconds in which an answer to a broken request may begin, before we hang up.
_PAUSE = 0.02
#: Answers of the server's own faults that a caller may simply repeat, and what the
#: protocol has and this server does not.
_FAIR = frozenset({501, 503, 504})

Call = tuple[str, list[Spec], dict[str, object]]
DIAGONAL = np.array([1, 2, 4], np.float32)
#: An answer that does not fit into one packet.
LARGE: Call = ("/v2/models/fuzzed/infer", [("x", "FP32", [20000, 3])], {})


class ByteLane:
    """Sends cases one after the other, on one connection for as long as it lives."""

    def __init__(self, url: str, matrix: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._line: Line | None = None
        self._calls = [_named(call, matrix) for call in REAL if "jobs" not in call[0]]
        self.seen: Counter[int | str] = Counter()
        self.slowest = 0.0

    def run(self, numbers: range) -> None:
        for count, number in enumerate(numbers):
            rng = Random(f"{SEED}:{number}")  # noqa: S311 - no secret
            began, self.what = time.monotonic(), b""
            try:
                self._case(rng)
                if count % EVERY == 0:
                    self._right_answers()
            except Exception as error:
                about = f"seed {SEED}, case {number}, sent {self.what[:3000]!r}"
                raise AssertionError(about) from error
            self.slowest = max(self.slowest, time.monotonic() - began)
        self._hang_up()

    def _case(self, rng: Random) -> None:
        kind = rng.random()
        if kind < 0.05:
            self._leave_early(rng)
        elif kind < 0.15:
            self._several(rng)
        else:
            self._one(rng)

    def _one(self, rng: Random) -> None:
        draft = Draft(rng.choice(self._calls))
        ways = spoil(rng, draft)
        self.seen.update(ways)
        line = self._connected()
        self._send(line, rng, draft.raw)
        if draft.sound:
            self._await(line, 1)
        else:
            line.read(1, _PAUSE)
            assert line.finish(), "the server did not hang up"
        self._judge(line)

    def _several(self, rng: Random) -> None:
        """Requests that do not wait for the answers of those before."""
        drafts = [Draft(rng.choice(self._calls)) for _ in range(rng.randint(2, 8))]
        for draft in drafts:
            if rng.random() < 0.5:
                spoil(rng, draft)
        sound = [*itertools.takewhile(lambda draft: draft.sound, drafts)]
        line = self._connected()
        self._send(line, rng, b"".join(draft.raw for draft in sound))
        self._await(line, len(sound))
        self._judge(line)

    def _leave_early(self, rng: Random) -> None:
        """Before the answer, or in the middle of it."""
        line = self._connected()
        line.send(Draft(rng.choice((LARGE, LARGE, *self._calls))).raw)
        line.abandon(rng.choice((0, 0, 1, 100, 50000)))

    def _right_answers(self) -> None:
        model, product = Draft(self._calls[0]), Draft(self._calls[2])
        line = self._connected()
        line.send(model.raw + product.raw)
        self._await(line, 2)
        first, second = line.answers
        x = np.frombuffer(model.tail, np.float32).reshape(2, 3)
        np.testing.assert_array_equal(_numbers(first), (x @ WEIGHTS.T).ravel())
        x = np.frombuffer(product.tail, np.float32)
        np.testing.assert_array_equal(_numbers(second), DIAGONAL * x)
        line.answers.clear()

    def _connected(self) -> Line:
        if self._line is None or self._line.ended:
            self._hang_up()
            self._line = Line(self._address)
        return self._line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _send(self, line: Line, rng: Random, data: bytes) -> None:
        self.what = data
        line.send(*(pieces(rng, data, 4) if rng.random() < 0.3 else [data]))

    def _await(self, line: Line, due: int) -> None:
        assert line.read(due), f"no answer within {BOUND} s"
        if len(line.answers) < due:
            assert line.ended
            assert line.answers, "hung up without an answer"
            assert line.answers[-1].last, "hung up without a word"

    def _judge(self, line: Line) -> None:
        for answer in line.answers:
            self.seen[answer.status] += 1
            assert answer.status < 500 or answer.status in _FAIR, answer
            assert answer.headers["x-request-id"], answer
            if answer.status >= 400:
                assert orjson.loads(answer.body)["error"], answer
        if line.ended or (line.answers and line.answers[-1].last):
            self._hang_up()
        line.answers.clear()


def _named(call: Call, matrix: str) -> Call:
    path, specs, parameters = call
    if "matrix" in parameters:
        parameters = {**parameters, "matrix": matrix}
    return path.format(matrix=matrix), specs, parameters


def _numbers(answer: Answer) -> np.ndarray:
    assert answer.status == 200, answer
    at = int(answer.headers[LENGTH.decode().lower()])
    return np.frombuffer(answer.body[at:], np.float32)
