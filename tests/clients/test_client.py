"""Sending: addresses, keys, retries, errors; both clients."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

import nnz
from nnz import AsyncClient, Client, RetryPolicy

OK = httpx2.Response(200, json={"name": "nnz", "version": "1"})
BUSY = httpx2.Response(429, json={"error": "full"}, headers={"Retry-After": "0"})


def jobs_cg(client: Any) -> Any:
    return client.jobs.cg("m-1", [1.0])


class TestAddress:
    def test_default(self) -> None:
        with Client() as client:
            assert client.url == "http://127.0.0.1:8000"

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NNZ_URL", "https://far:1/")

        with Client() as client:
            assert client.url == "https://far:1"
        with Client("http://near") as client:
            assert client.url == "http://near"

    def test_a_prefix_is_kept(self, connect: Any, fake: Any) -> None:
        server = fake(OK)

        connect(server, url="https://host/some/where/").server.metadata()

        assert str(server.requests[0].url) == "https://host/some/where/v2"

    def test_no_scheme(self) -> None:
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match="'localhost:8000' is not a URL"):
                kind("localhost:8000")

    def test_timeout_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            Client(timeout=0)


class TestHeaders:
    def test_key_from_the_argument(self, connect: Any, fake: Any) -> None:
        server = fake(OK)

        connect(server, api_key="k1").server.metadata()

        assert server.requests[0].headers["Authorization"] == "Bearer k1"

    def test_key_from_the_environment(
        self, connect: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NNZ_API_KEY", "k2")
        server = fake(OK)

        connect(server).server.metadata()

        assert server.requests[0].headers["Authorization"] == "Bearer k2"

    def test_a_key_that_no_header_carries_is_not_shown(self) -> None:
        for key in ("g\u00e4nsefleisch", "two\nlines"):
            with pytest.raises(ValueError, match="not printable ASCII") as caught:
                Client(api_key=key)
            assert key not in str(caught.value)

    def test_the_key_is_not_in_the_repr(self) -> None:
        with Client("http://near", api_key="k3") as client:
            assert repr(client) == "Client('http://near')"

    def test_no_key(self, connect: Any, fake: Any) -> None:
        server = fake(OK)

        connect(server).server.metadata()

        assert "Authorization" not in server.requests[0].headers
        assert server.requests[0].headers["User-Agent"].startswith("nnz-python/")


class TestRetries:
    @pytest.mark.parametrize(
        "failure",
        [
            pytest.param(BUSY, id="429"),
            pytest.param(httpx2.Response(503), id="503"),
            pytest.param(httpx2.ConnectError("refused"), id="refused"),
            pytest.param(httpx2.ConnectTimeout("slow"), id="connect timeout"),
            pytest.param(httpx2.ReadError("reset"), id="reset"),
            pytest.param(httpx2.RemoteProtocolError("left"), id="left"),
        ],
    )
    def test_a_passing_failure_is_hidden(
        self, connect: Any, fake: Any, failure: Any
    ) -> None:
        server = fake(failure, failure, OK)

        assert connect(server).server.metadata().name == "nnz"
        assert len(server.requests) == 3

    def test_the_last_failure_is_raised(self, connect: Any, fake: Any) -> None:
        server = fake(BUSY)

        with pytest.raises(nnz.OverloadedError, match="full"):
            connect(server).server.metadata()

        assert len(server.requests) == 4

    def test_they_can_be_turned_off(self, connect: Any, fake: Any) -> None:
        server = fake(BUSY, OK)

        with pytest.raises(nnz.OverloadedError):
            connect(server, retries=0).server.metadata()

    def test_a_wait_that_is_too_long_is_the_callers_decision(
        self, connect: Any, fake: Any
    ) -> None:
        server = fake(httpx2.Response(503, headers={"Retry-After": "3600"}), OK)

        with pytest.raises(nnz.UnavailableError) as caught:
            connect(server).server.metadata()

        assert caught.value.retry_after == 3600
        assert len(server.requests) == 1

    def test_the_server_knows_when_waiting_is_in_vain(
        self, connect: Any, fake: Any
    ) -> None:
        server = fake(httpx2.Response(503, headers={"X-Request-Id": "r-1"}), OK)

        with pytest.raises(nnz.UnavailableError):
            connect(server).server.metadata()

        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "failure",
        [
            pytest.param(httpx2.Response(500), id="500"),
            pytest.param(httpx2.Response(504), id="504"),
            pytest.param(httpx2.ReadTimeout("slow"), id="read timeout"),
        ],
    )
    def test_other_failures_are_final(
        self, connect: Any, fake: Any, failure: Any
    ) -> None:
        server = fake(failure, OK)

        with pytest.raises(nnz.NnzError):
            connect(server).server.metadata()

        assert len(server.requests) == 1

    def test_a_submission_keeps_its_key(self, connect: Any, fake: Any) -> None:
        job = {"id": "j", "kind": "cg", "status": "queued"}
        server = fake(httpx2.ReadError("reset"), BUSY, httpx2.Response(202, json=job))

        jobs_cg(connect(server))

        keys = {request.headers["Idempotency-Key"] for request in server.requests}
        assert len(server.requests) == 3
        assert len(keys) == 1
        assert server.bodies[0] == server.bodies[2]

    def test_each_submission_has_a_key_of_its_own(
        self, connect: Any, fake: Any
    ) -> None:
        job = {"id": "j", "kind": "cg", "status": "queued"}
        server = fake(httpx2.Response(202, json=job))
        client = connect(server)

        jobs_cg(client)
        jobs_cg(client)

        keys = [request.headers["Idempotency-Key"] for request in server.requests]
        assert keys[0] != keys[1]

    def test_a_budget_ends_a_storm(self, connect: Any, fake: Any) -> None:
        server = fake(BUSY)
        client = connect(server, retries=RetryPolicy(retries=3, first=0.0))

        for _ in range(20):
            with pytest.raises(nnz.OverloadedError):
                client.server.metadata()

        assert len(server.requests) == 20 + 10


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, nnz.BadRequestError),
            (401, nnz.AuthenticationError),
            (403, nnz.PermissionDeniedError),
            (404, nnz.NotFoundError),
            (405, nnz.StatusError),
            (409, nnz.ConflictError),
            (413, nnz.TooLargeError),
            (415, nnz.UnsupportedMediaError),
            (422, nnz.ImpossibleError),
            (429, nnz.OverloadedError),
            (500, nnz.ServerError),
            (502, nnz.ServerError),
            (503, nnz.UnavailableError),
            (504, nnz.DeadlineError),
        ],
    )
    def test_class_by_status(
        self, connect: Any, fake: Any, status: int, kind: type[Exception]
    ) -> None:
        headers = {"X-Request-Id": "r-1", "Retry-After": "2"}
        server = fake(httpx2.Response(status, json={"error": "why"}, headers=headers))

        with pytest.raises(nnz.StatusError) as caught:
            connect(server, retries=0).server.metadata()

        error = caught.value
        assert type(error) is kind
        assert (error.status, error.message) == (status, "why")
        assert (error.request_id, error.retry_after) == ("r-1", 2.0)
        assert str(error) == f"why (status {status}, request r-1)"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            pytest.param(b"", "the server gave no reason", id="empty"),
            pytest.param(b"Bad Gateway", "Bad Gateway", id="text"),
            pytest.param(b"\xff" * 999, "\ufffd" * 200, id="long and binary"),
            pytest.param(b"[1]", r"\[1\]", id="other JSON"),
        ],
    )
    def test_a_refusal_without_our_json(
        self, connect: Any, fake: Any, body: bytes, message: str
    ) -> None:
        with pytest.raises(nnz.ServerError, match=f"^{message} "):
            connect(fake(httpx2.Response(502, content=body))).server.metadata()

    def test_the_server_may_say_more(self, connect: Any, fake: Any) -> None:
        reply = {"error": "2 nodes cannot run", "nodes": ["a", "b"]}
        server = fake(httpx2.Response(422, json=reply))

        with pytest.raises(nnz.ImpossibleError, match=r"^2 nodes cannot run") as caught:
            connect(server).models.put("m", b"")

        assert caught.value.details == {"nodes": ["a", "b"]}

    def test_a_redirect_is_an_error(self, connect: Any, fake: Any) -> None:
        server = fake(httpx2.Response(302, headers={"Location": "http://elsewhere"}))

        with pytest.raises(nnz.StatusError):
            connect(server).server.metadata()

        assert len(server.requests) == 1

    def test_a_timeout_is_pythons_too(self, connect: Any, fake: Any) -> None:
        with pytest.raises(TimeoutError, match="sent nothing for 3 s") as caught:
            connect(fake(httpx2.ReadTimeout("")), timeout=3).server.metadata()

        assert isinstance(caught.value, nnz.RequestTimeoutError)

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        with (
            Client(f"http://127.0.0.1:{port}", retries=0) as client,
            pytest.raises(ConnectionError, match=f"no answer from .*:{port}") as caught,
        ):
            client.server.metadata()

        assert isinstance(caught.value, nnz.ConnectError)
        assert caught.value.status is None


class TestVerify:
    def test_of_https_only(self, tmp_path: Path) -> None:
        """A file that is no certificate is told at once, and not read for http."""
        (tmp_path / "ca.pem").write_text("nothing")
        for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
            with pytest.raises(ValueError, match=r"cannot be read as certificates"):
                Client("https://127.0.0.1:1", verify=path)
            Client("http://127.0.0.1:1", verify=path).close()

    def test_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NNZ_CA", str(tmp_path / "absent.pem"))

        with pytest.raises(ValueError, match=r"absent\.pem"):
            Client("https://127.0.0.1:1")
        Client("https://127.0.0.1:1", verify=False).close()
