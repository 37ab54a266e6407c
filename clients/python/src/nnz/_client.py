"""The client for programs that wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _local
from nnz import _rules as rules
from nnz._calls import Answer, Call
from nnz._errors import NnzError, ProtocolError
from nnz._expressions import Dense, Expression
from nnz._jobs import Jobs
from nnz._matrices import MatrixSource
from nnz._matrix import Matrix
from nnz._programs import LpResult
from nnz._resources import Matrices, Models, Ops, Server
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

    @classmethod
    def anywhere(cls, **options: Any) -> Client:
        """A client of the server at NNZ_URL, or `local` where that is not set.

        A program that begins with it runs remotely or in its own process, unchanged.

        Args:
            **options: Settings of a server of its own; one elsewhere has its own.

        Raises:
            LocalServerMissingError: As `local`.
        """
        return cls() if os.environ.get("NNZ_URL") else cls.local(**options)

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

    def solve_lp(
        self,
        source: MatrixSource | Matrix,
        *,
        timeout: float | None = None,
        **given: Any,
    ) -> LpResult:
        """Solve a linear program and wait for it.

        Args:
            source: An MPS file, a matrix of scipy or in a file, or a handle.
            timeout: Seconds to wait; None waits as long as it takes.
            **given: Costs, bounds and settings, as `jobs.lp` takes them.

        Raises:
            JobFailedError: It failed; its message says why.
            RequestTimeoutError: It had not ended in time; it goes on.
        """
        held = source if isinstance(source, Matrix) else self.matrices.put(source)
        job = self.jobs.lp(held, **given)
        found = job.result(timeout)
        if not isinstance(found, LpResult):
            raise ProtocolError(f"job {job.id} is of kind {job.info.kind!r}, not lp")
        return found

    def chain(
        self,
        *wanted: Expression | Dense,
        names: Sequence[str | None] | None = None,
    ) -> list[Matrix | Array | float]:
        """Compute expressions in one request; what only they need is never stored.

        Example:
            >>> a, p = A.lazy(), P.lazy()  # doctest: +SKIP
            >>> coarse = p.T @ a @ p  # doctest: +SKIP
            >>> C, d = client.chain(coarse, coarse.diagonal())  # doctest: +SKIP

        Args:
            *wanted: Made of `Matrix.lazy`; parts that they share are computed once.
            names: A label for each result that is a matrix.

        Returns:
            In the order of `wanted`: handles, arrays, and numbers for norms.

        Raises:
            ValueError: An expression is a stored matrix as it is.
            TooLargeError, ImpossibleError: A step cannot be done; the message names it.
        """
        made = self._send(chain_calls.chain(wanted, names))
        return chain_calls.held(partial(Matrix, self._send), wanted, made)

    def preflight(self, *wanted: Expression | Dense) -> dict[str, Any]:
        """What expressions would cost at most; nothing is computed.

        Returns:
            ``flops``, ``output_bytes``, ``seconds``, ``fits``, the limits, and the same
            of each of the ``steps``.
        """
        return self._send(chain_calls.preflight(wanted))

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
