"""What both clients share: settings, headers, error translation, retry bookkeeping."""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import httpx2

from nnz import _retry
from nnz._calls import Answer, Call
from nnz._errors import (
    ConnectError,
    NnzError,
    ProtocolError,
    RequestTimeoutError,
    StatusError,
    class_of,
)
from nnz._retry import RetryBudget, RetryPolicy

#: How the certificate of a server is checked.
Verify = str | os.PathLike[str] | ssl.SSLContext | bool | None

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
#: Below the five seconds for which common servers keep an idle connection: a connection
#: that the server is about to close is never used for the next call.
KEEPALIVE = 4.0
#: Seconds after which a stream that a server ended, as it does when it stops, is asked
#: for again.
RECONNECT = 1.0
OK = 200
#: The last event of a stream.
LAST_EVENT = "end"
#: Characters of an unexpected error body that are shown.
SHOWN = 200


class NothingLeftError(Exception):
    """All events of a stream were told before."""


class Session:
    """Settings of one client and its retry budget; does no input or output.

    Args:
        url: Of the server; None reads NNZ_URL, then takes the local default.
        api_key: Sent as a bearer token; None reads NNZ_API_KEY.
        timeout: Seconds without a byte after which a call fails.
        retries: A policy, or a number of retries.
        verify: See `Client`.
    """

    def __init__(
        self,
        url: str | None,
        api_key: str | None,
        timeout: float,
        retries: int | RetryPolicy,
        verify: Verify = None,
    ) -> None:
        self.url = (url or os.environ.get("NNZ_URL") or DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is not a URL; try {DEFAULT_URL}")
        if timeout <= 0:
            raise ValueError(f"timeout is a positive number of seconds, not {timeout}")
        self._key = _checked(api_key or os.environ.get("NNZ_API_KEY"))
        self._timeout = timeout
        self._verify = verify
        if isinstance(retries, int):
            retries = RetryPolicy(retries=retries)
        self.policy = retries
        self.budget = RetryBudget()

    def options(self) -> dict[str, Any]:
        """Keyword arguments of httpx2's clients."""
        headers = {
            "User-Agent": f"nnz-python/{_version()}",
            # Packed tensors do not compress well enough to pay for the attempt.
            "Accept-Encoding": "identity",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        host = httpx2.URL(self.url).host
        return {
            "base_url": self.url,
            "headers": headers,
            "limits": httpx2.Limits(keepalive_expiry=KEEPALIVE),
            # A proxy named by the environment cannot reach our own loopback.
            "trust_env": host not in ("localhost", "127.0.0.1", "::1"),
            "verify": self._trusted(),
        }

    def _trusted(self) -> ssl.SSLContext | bool:
        """What httpx2 takes for `verify`; a file is read only where it is used."""
        verify = self._verify
        if verify is None:
            verify = os.environ.get("NNZ_CA") or True
        if isinstance(verify, ssl.SSLContext | bool):
            return verify
        if not self.url.startswith("https://"):
            return True
        try:
            return ssl.create_default_context(cafile=verify)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"{verify} cannot be read as certificates in PEM form: {error}"
            ) from error

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Keyword arguments of one request, without its body."""
        headers = dict(call.headers)
        if call.content is not None:
            headers["Content-Length"] = str(call.content.length)
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params),
            "headers": headers,
            "timeout": httpx2.Timeout(self._timeout, read=self._timeout + call.wait),
        }

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn httpx2's exceptions into ours."""
        try:
            yield
        except (
            httpx2.ConnectTimeout,
            httpx2.NetworkError,
            httpx2.ProxyError,
            httpx2.RemoteProtocolError,
        ) as error:
            raise ConnectError(
                f"no answer from {self.url}: {error or type(error).__name__}"
            ) from error
        except httpx2.TimeoutException as error:
            raise RequestTimeoutError(
                f"{self.url} sent nothing for {self._timeout:g} s"
            ) from error
        except httpx2.HTTPError as error:
            raise ProtocolError(f"{self.url}: {error}") from error


def answer_of(response: httpx2.Response, body: bytearray) -> Answer:
    """The answer, or the error that it stands for."""
    if response.is_success:
        return Answer(response.status_code, response.headers, body)
    raise status_error(response.status_code, response.headers, bytes(body))


def event_of(call: Call[T], event: httpx2.ServerSentEvent) -> T | None:
    """What an event says; None when it carries no data."""
    if not event.data:
        return None
    return call.parse(Answer(200, {}, bytearray(event.data.encode())))


def status_error(status: int, headers: httpx2.Headers, body: bytes) -> StatusError:
    """The exception of a refusal, with the server's own words."""
    try:
        details = json.loads(body)
        message = str(details.pop("error"))
    except (ValueError, KeyError, TypeError, AttributeError):
        details = {}
        message = body[:SHOWN].decode(errors="replace") or "the server gave no reason"
    return class_of(status)(
        message,
        status=status,
        request_id=headers.get("x-request-id"),
        retry_after=_retry.retry_after(headers, now=datetime.now(UTC)),
        details=details,
    )


class Attempts:
    """Counts the tries of one call and says how long to pause before the next.

    Args:
        session: Whose policy and budget apply.
        call: The call that is tried.
    """

    def __init__(self, session: Session, call: Call[Any]) -> None:
        self._session = session
        self._idempotent = call.idempotent
        self._made = 0

    def pause(self, error: NnzError) -> float:
        """Seconds to wait after this error.

        Raises:
            NnzError: The same error, when trying again is not right.
        """
        self._made += 1
        if not self._idempotent or not isinstance(error, ConnectError | StatusError):
            raise error
        # The server itself says when waiting can help; a proxy before it seldom does.
        if error.status == 503 and error.request_id and error.retry_after is None:
            raise error
        pause = _retry.delay(
            self._session.policy,
            attempt=self._made,
            status=error.status,
            retry_after=error.retry_after,
            random=random.random(),  # noqa: S311 (jitter, not a secret)
        )
        if pause is None or not self._session.budget.take():
            raise error
        return pause


def _checked(key: str | None) -> str | None:
    """The key, if a header can carry it; the message does not give it away."""
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError("the API key holds characters that are not printable ASCII")
    return key or None


def _version() -> str:
    try:
        return version("nnz")
    except PackageNotFoundError:
        return "0"
