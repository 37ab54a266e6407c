"""The client for programs that run an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _content, _local
from nnz import _rules as rules
from nnz._async_jobs import AsyncJobs
from nnz._async_matrix import AsyncMatrix
from nnz._async_resources import (
    AsyncMatrices,
    AsyncModels,
    AsyncOps,
    AsyncServer,
)
from nnz._calls import Answer, Call
from nnz._errors import NnzError, ProtocolError
from nnz._expressions import Dense, Expression
from nnz._matrices import MatrixSource
from nnz._programs import LpResult
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


class AsyncClient:
    """A connection to an nnz server: the names and arguments of `nnz.Client`.

    Example:
        >>> async with AsyncClient() as client:  # doctest: +SKIP
        ...     A = await client.matrices.put(matrix)
        ...     y, z = await asyncio.gather(A.matvec(x), A.matvec(w))

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
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._session = Session(url, api_key, timeout, retries, verify)
        self._http = httpx2.AsyncClient(**self._session.options(), transport=transport)
        self.server = AsyncServer(self._send)
        self.models = AsyncModels(self._send)
        self.matrices = AsyncMatrices(self._send)
        self.ops = AsyncOps(self._send)
        self.jobs = AsyncJobs(self._send, self._follow)

    @classmethod
    def local(cls, **options: Any) -> AsyncClient:
        """A client with a server of its own inside this process; blocks to start it."""
        server = _local.LocalServer(_local.open_app(options))
        return cls(_local.URL, transport=_local.AsyncTransport(server))

    @classmethod
    def anywhere(cls, **options: Any) -> AsyncClient:
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

    async def infer(
        self,
        name: str,
        feeds: Mapping[str, ArrayLike] | ArrayLike,
        *,
        outputs: Sequence[str] | None = None,
        version: str | int | None = None,
    ) -> dict[str, Array]:
        """Apply a model to arrays; see `nnz.Client.infer`."""
        if not isinstance(feeds, Mapping):
            signature = await self.models.signature(name, version=version)
            feeds = rules.feeds(signature, feeds)
        return await self._send(calls.infer(name, feeds, outputs, version))

    async def solve_lp(
        self,
        source: MatrixSource | AsyncMatrix,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (the same names as Client's)
        **given: Any,
    ) -> LpResult:
        """Solve a linear program and wait; see `nnz.Client.solve_lp`."""
        held = (
            source
            if isinstance(source, AsyncMatrix)
            else await self.matrices.put(source)
        )
        job = await self.jobs.lp(held, **given)
        found = await job.result(timeout)
        if not isinstance(found, LpResult):
            raise ProtocolError(f"job {job.id} is of kind {job.info.kind!r}, not lp")
        return found

    async def chain(
        self,
        *wanted: Expression | Dense,
        names: Sequence[str | None] | None = None,
    ) -> list[AsyncMatrix | Array | float]:
        """Compute expressions in one request; see `nnz.Client.chain`."""
        made = await self._send(chain_calls.chain(wanted, names))
        return chain_calls.held(partial(AsyncMatrix, self._send), wanted, made)

    async def preflight(self, *wanted: Expression | Dense) -> dict[str, Any]:
        """What expressions would cost at most; see `nnz.Client.preflight`."""
        return await self._send(chain_calls.preflight(wanted))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def __repr__(self) -> str:
        """The server's URL; never the key."""
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> AsyncClient:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._session, call)
        while True:
            try:
                answer = await self._exchange(call)
            except NnzError as error:
                await asyncio.sleep(attempts.pause(error))
            else:
                self._session.budget.success()
                return call.parse(answer)

    async def _follow(self, watch: Callable[[str], Call[T]]) -> AsyncGenerator[T, None]:
        """See `nnz.Client._follow`."""
        last, attempts = "", Attempts(self._session, watch(""))
        while True:
            call = watch(last)
            try:
                async with aclosing(self._events(call)) as events:
                    async for event in events:
                        last, attempts = event.id, Attempts(self._session, call)
                        if (told := event_of(call, event)) is not None:
                            yield told
                        if event.event == LAST_EVENT:
                            return
            except NothingLeftError:
                return
            except NnzError as error:
                await asyncio.sleep(attempts.pause(error))
            else:
                await asyncio.sleep(RECONNECT)

    async def _events(
        self, call: Call[Any]
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        with self._session.translated():
            async with self._http.stream(**self._session.request(call)) as response:
                if response.status_code != OK:
                    answer_of(response, bytearray(await response.aread()))
                    raise NothingLeftError
                async for event in httpx2.EventSource(response):
                    yield event

    async def _exchange(self, call: Call[Any]) -> Answer:
        content = None if call.content is None else _content.stream(call.content)
        with self._session.translated():
            async with self._http.stream(
                **self._session.request(call), content=content
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                return answer_of(response, body)
