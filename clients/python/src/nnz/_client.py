"""The client for programs that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _local
from nnz import _rules as rules
from nnz._calls import Answer, Call
from nnz._errors import NnzError
from nnz._resources import Jobs, Matrices, Models, Ops, Server
from nnz._retry import RetryPolicy
from nnz._session import (
    LAST_EVENT,
    OK,
    RECONNECT,
    Attempts,
    NothingLeftError,
    Session,
    Verify,
    answer_of,
    event_of,
)
from nnz._tensors import Array

T = TypeVar("T")


class Client:
    """A connection to an nnz server; may be shared by threads.

    Example:
        >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     model = client.models.put("digits", "digits.onnx")
        ...     y = model.infer(images)["logits"]

    Args:
        url: Of the server; None reads NNZ_URL, then takes http://127.0.0.1:8000.
        api_key: Sent as a bearer token; None reads NNZ_API_KEY.
        timeout: Seconds without a byte from the server after which a call fails.
        retries: How many times a call that failed for a passing reason is sent again,
            or a `RetryPolicy`.
        verify: How the certificate of an https server is checked: a path of a PEM file
            that is trusted in place of the system's authorities, an `ssl.SSLContext`
            (for a certificate of one's own), or False for not at all. None reads
            NNZ_CA, then trusts the system's authorities.
        transport: Replaces the network; for tests and for `local`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int | RetryPolicy = 4,
        verify: Verify = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._session = Session(url, api_key, timeout, retries, verify)
        self._http = httpx2.Client(**self._session.options(), transport=transport)
        self.server = Server(self._send)
        self.models = Models(self._send)
        self.matrices = Matrices(self._send)
        self.ops = Ops(self._send)
        self.jobs = Jobs(self._send, self._follow)

    @classmethod
    def local(cls, **options: Any) -> Client:
        """A client with a server of its own inside this process, no network.

        Args:
            **options: Settings of the server, such as ``home`` and ``threads``.

        Raises:
            LocalServerMissingError: The distribution nnz-server is not installed.
        """
        server = _local.LocalServer(_local.open_app(options))
        return cls(_local.URL, transport=_local.Transport(server))

    @property
    def url(self) -> str:
        """Of the server."""
        return self._session.url

    def infer(
        self,
        name: str,
        feeds: Mapping[str, ArrayLike] | ArrayLike,
        *,
        outputs: Sequence[str] | None = None,
        version: str | int | None = None,
    ) -> dict[str, Array]:
        """Apply a model to arrays.

        Args:
            name: Of the model, or the id of a matrix (input x ``(k, n)``, output y).
            feeds: Arrays by input name. One bare array costs a request more, to learn
                the input's name; a handle from `models.get` remembers it.
            outputs: Names of the outputs wanted; None asks for all of them.
            version: Digits; None takes the newest.
        """
        if not isinstance(feeds, Mapping):
            feeds = rules.feeds(self.models.signature(name, version=version), feeds)
        return self._send(calls.infer(name, feeds, outputs, version))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        """The server's URL; never the key."""
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._session, call)
        while True:
            try:
                answer = self._exchange(call)
            except NnzError as error:
                time.sleep(attempts.pause(error))
            else:
                self._session.budget.success()
                return call.parse(answer)

    def _follow(self, watch: Callable[[str], Call[T]]) -> Generator[T, None, None]:
        """What the events say that `watch`, given the id of the last one, asks for;
        over as many connections as it takes.
        """
        last, attempts = "", Attempts(self._session, watch(""))
        while True:
            call = watch(last)
            try:
                with closing(self._events(call)) as events:
                    for event in events:
                        last, attempts = event.id, Attempts(self._session, call)
                        if (told := event_of(call, event)) is not None:
                            yield told
                        if event.event == LAST_EVENT:
                            return
            except NothingLeftError:
                return
            except NnzError as error:
                time.sleep(attempts.pause(error))
            else:
                time.sleep(RECONNECT)

    def _events(self, call: Call[Any]) -> Generator[httpx2.ServerSentEvent, None, None]:
        with (
            self._session.translated(),
            self._http.stream(**self._session.request(call)) as response,
        ):
            if response.status_code != OK:
                answer_of(response, bytearray(response.read()))
                raise NothingLeftError
            yield from httpx2.EventSource(response)

    def _exchange(self, call: Call[Any]) -> Answer:
        content = None if call.content is None else call.content.open()
        with (
            self._session.translated(),
            self._http.stream(
                **self._session.request(call), content=content
            ) as response,
        ):
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
            return answer_of(response, body)
