"""Callers who check every answer, and count what became of every request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import numpy as np
import orjson
import scipy.sparse as sp
from numpy.typing import NDArray

DEADLINE = 5.0  # seconds that every request is given
GRACE = 0.5  # seconds after it in which the answer must be there
_OPEN = 30.0  # seconds after which a request counts as hung


def matrix(size: int = 400, seed: int = 0) -> sp.csr_array:
    """A symmetric positive definite matrix; every product has one right answer."""
    random = sp.random_array((size, size), density=0.02, rng=seed)
    return sp.csr_array(random @ random.T + sp.eye_array(size) * 4)


def poisson(size: int) -> sp.csr_array:
    """A matrix whose systems take a solver some seconds when they are large."""
    diagonals = [-np.ones(size - 1), 2.02 * np.ones(size), -np.ones(size - 1)]
    return sp.csr_array(sp.diags_array(diagonals, offsets=[-1, 0, 1]))


def solved(a: sp.csr_array, x: np.ndarray, b: np.ndarray) -> bool:
    """Whether x solves a x = b, as far as jobs are asked to."""
    return bool(np.linalg.norm(b - a @ x) <= 1e-9 * np.linalg.norm(b))


def tensor_body(
    tensors: dict[str, NDArray[np.float64]], parameters: dict[str, object], **more: str
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with binary tensors and a deadline."""
    inputs = [
        {
            "name": name,
            "shape": list(tensor.shape),
            "datatype": "FP64",
            "parameters": {"binary_data_size": tensor.nbytes},
        }
        for name, tensor in tensors.items()
    ]
    asked = {"binary_data_output": True, "timeout": int(DEADLINE * 1e6)} | parameters
    head = orjson.dumps({**more, "parameters": asked, "inputs": inputs})
    tail = b"".join(tensor.tobytes() for tensor in tensors.values())
    return head + tail, {"Inference-Header-Content-Length": str(len(head))}


@dataclass
class Counts:
    """What became of the requests.

    Args:
        codes: Answers by status; 0 counts connections that broke.
        wrong: Answers of 200 that were not right.
        late: Answers that came more than `GRACE` after their deadline.
        hung: Requests without an answer.
    """

    codes: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    late: int = 0
    hung: int = 0
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def good(self) -> int:
        """Right answers."""
        return self.codes[200] - self.wrong

    def faultless(self) -> bool:
        """Whether nothing went wrong but what a caller may simply repeat."""
        strange = set(self.codes) - {0, 200, 429, 503, 504}
        return not (self.wrong or self.late or self.hung or strange)


class Caller:
    """One thread that multiplies, checks and counts until it is told to stop."""

    def __init__(self, url: str, a: sp.csr_array, name: str, counts: Counts) -> None:
        self._url, self._a, self._name, self._counts = url, a, name, counts
        self.stop = threading.Event()
        self.pause = 0.0
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def _loop(self) -> None:
        rng = np.random.default_rng(threading.get_ident() % 2**32)
        client = httpx2.Client(base_url=self._url, timeout=_OPEN)
        with client:
            while not self.stop.is_set():
                self._one(client, rng)
                time.sleep(self.pause)

    def _one(self, client: httpx2.Client, rng: np.random.Generator) -> None:
        x = rng.standard_normal(self._a.shape[1])
        body, headers = tensor_body({"x": x}, {"matrix": self._name})
        began, code, wrong, hung = time.monotonic(), 0, False, False
        try:
            answer = client.post("/v1/ops/spmv", content=body, headers=headers)
            code = answer.status_code
            if code == 200:
                at = int(answer.headers["Inference-Header-Content-Length"])
                y = np.frombuffer(answer.content[at:])
                wrong = not np.allclose(y, self._a @ x, rtol=1e-12, atol=1e-12)
        except httpx2.TimeoutException:
            hung = True
        except httpx2.TransportError:
            time.sleep(0.05)
        spent = time.monotonic() - began
        counts = self._counts
        with counts.lock:
            counts.codes[code] += not hung
            counts.wrong += wrong
            counts.hung += hung
            counts.late += code != 0 and spent > DEADLINE + GRACE
            counts.slowest = max(counts.slowest, spent)


@contextmanager
def callers(
    url: str, a: sp.csr_array, name: str, number: int, pause: float = 0.0
) -> Iterator[Counts]:
    """So many callers at once, until the block ends."""
    counts = Counts()
    made = [Caller(url, a, name, counts) for _ in range(number)]
    for one in made:
        one.pause = pause
        one.thread.start()
    try:
        yield counts
    finally:
        for one in made:
            one.stop.set()
        for one in made:
            one.thread.join(_OPEN + 5)
            counts.hung += one.thread.is_alive()


def meanwhile(seconds: float, every: float, do: Callable[[], object]) -> int:
    """Do something again and again; returns how often."""
    until, times = time.monotonic() + seconds, 0
    while time.monotonic() + every < until:
        time.sleep(every)
        do()
        times += 1
    time.sleep(max(0.0, until - time.monotonic()))
    return times
