"""Both clients behind one blocking face, and a scripted server at the transport."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import numpy as np
import pytest

from nnz import AsyncClient, Client, RetryPolicy

Handler = Callable[[httpx2.Request], httpx2.Response]
#: Retries without pauses.
AT_ONCE = RetryPolicy(retries=3, first=0.0)


class Blocking:
    """An asynchronous object used as if it were its blocking twin."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self.target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return self._wrap(getattr(self.target, name))

    __array_ufunc__ = None

    def __matmul__(self, x: Any) -> Any:
        return self._wrap(self.target @ _plain(x))

    def __rmatmul__(self, x: Any) -> Any:
        return self._wrap(x @ self.target)

    def __add__(self, other: Any) -> Any:
        return self._wrap(self.target + _plain(other))

    def __sub__(self, other: Any) -> Any:
        return self._wrap(self.target - _plain(other))

    def __mul__(self, factor: Any) -> Any:
        return self._wrap(self.target * factor)

    def __rmul__(self, factor: Any) -> Any:
        return self._wrap(factor * self.target)

    def __truediv__(self, divisor: Any) -> Any:
        return self._wrap(self.target / divisor)

    def __neg__(self) -> Any:
        return self._wrap(-self.target)

    def __getitem__(self, key: Any) -> Any:
        return self._wrap(self.target[key])

    def __repr__(self) -> str:
        return repr(self.target).removeprefix("Async")

    def _wrap(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._wrap(self._runner.run(value))
        if inspect.isasyncgen(value):
            return self._each(value)
        if isinstance(value, list):
            return [self._wrap(item) for item in value]
        if callable(value):
            return lambda *args, **named: self._call(value, args, named)
        if type(value).__name__.startswith("Async"):
            return Blocking(value, self._runner)
        return value

    def _each(self, values: Any) -> Iterator[Any]:
        try:
            while True:
                yield self._wrap(self._runner.run(anext(values)))
        except StopAsyncIteration:
            return
        finally:
            self._runner.run(values.aclose())

    def _call(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        named = {name: _plain(value) for name, value in named.items()}
        return self._wrap(function(*map(_plain, args), **named))


def _plain(value: Any) -> Any:
    return value.target if isinstance(value, Blocking) else value


class Fake:
    """A server that answers from a script and remembers what it was asked."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(
            answer.status_code, headers=answer.headers, content=answer.content
        )

    @property
    def json(self) -> Any:
        """The JSON of the last request."""
        length = self.requests[-1].headers["Inference-Header-Content-Length"]
        return json.loads(self.bodies[-1][: int(length)])

    @property
    def tail(self) -> bytes:
        """The bytes behind the JSON of the last request."""
        length = self.requests[-1].headers["Inference-Header-Content-Length"]
        return self.bodies[-1][int(length) :]


def tensors(outputs: Mapping[str, Any], status: int = 200) -> httpx2.Response:
    """An answer with binary tensors, made by hand."""
    names = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "i8": "INT64", "b1": "BOOL"}
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    head = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype.str[1:]],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    text = json.dumps({"outputs": head}).encode()
    return httpx2.Response(
        status,
        headers={"Inference-Header-Content-Length": str(len(text))},
        content=text + b"".join(array.tobytes() for array in arrays.values()),
    )


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    return str(request.param)


@pytest.fixture
def connect(mode: str) -> Iterator[Connect]:
    """Makes a client of either kind whose network is a handler; closed at the end."""
    clients: list[Any] = []
    with asyncio.Runner() as runner:

        def make(handler: Handler, url: str = "http://server", **options: Any) -> Any:
            options = {"retries": AT_ONCE, **options}
            transport = httpx2.MockTransport(handler)
            if mode == "sync":
                client: Any = Client(url, transport=transport, **options)
            else:
                inner = AsyncClient(url, transport=transport, **options)
                client = Blocking(inner, runner)
            clients.append(client)
            return client

        yield make
        for client in clients:
            client.close()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NNZ_URL", "NNZ_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> type[Fake]:
    """The scripted server's class."""
    return Fake


@pytest.fixture
def answer_tensors() -> Callable[..., httpx2.Response]:
    """`tensors`, as a fixture, for tests import nothing from one another."""
    return tensors


@pytest.fixture(scope="session")
def blocking() -> type[Blocking]:
    """The blocking face's class."""
    return Blocking
