"""Messages on their way: how many at once, for how long, and whose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import SOON, Line, Running, line, pending, refusal, request_of

from nnz_service.gateway import Limits
from nnz_service.grpc import traffic
from nnz_service.grpc.protocol import messages as m
from nnz_service.keys import Keyring, Quota, Scope
from nnz_service.keys.file import KeyFile

REQUEST = request_of(x=np.ones((2, 3), np.float32))
#: One place for each kind of call.
NARROW = Limits(max_body=1 << 20, max_inflight_bytes=1 << 20, body_timeout=0.5)


def silent(
    channel: grpc.Channel, name: str, over: threading.Event, **options: Any
) -> Any:
    """Open a call that sends no message until it is over."""
    call = channel.stream_unary(f"/inference.GRPCInferenceService/{name}")
    return call.future(pending(over), timeout=SOON, **options)


@contextmanager
def stalled(server: Running, name: str, count: int, **options: Any) -> Iterator[Line]:
    """Beside so many calls that stay silent: another line to the server."""
    over = threading.Event()
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stack.callback(over.set)
        held = [silent(channel, name, over, **options) for _ in range(count)]
        for one in held:
            one.initial_metadata()  # it has arrived
        yield stack.enter_context(line(server.address))


class TestSilence:
    @pytest.mark.parametrize("name", ["ModelInfer", "ModelReady"])
    def test_ends(self, serve: Serve, name: str) -> None:
        """What holds a place and does not come is given up for the next."""
        message = (
            m.ModelReadyRequest(name="double") if name == "ModelReady" else REQUEST
        )
        with serve(NARROW) as found, stalled(found, name, 3) as call:
            call.later(name, message, timeout=SOON / 2).result()

    def test_probes(self, serve: Serve) -> None:
        """Who needs no key is not waited for: nothing of what they send is received."""
        limits = Limits(body_timeout=30.0, max_body=1 << 20, max_inflight_bytes=1 << 20)
        with serve(limits) as found, stalled(found, "ServerReady", 50) as call:
            call("ServerReady", b"")
            call("ServerLive", b"no message" * 50_000)

    def test_leaves_room_to_others(self, serve: Serve, tmp_path: Path) -> None:
        """One key cannot take every place."""
        secrets = [
            KeyFile(tmp_path).create(name, frozenset({Scope.INFER}))[1] for name in "ab"
        ]
        first, second = ([("authorization", f"Bearer {secret}")] for secret in secrets)
        limits = Limits(body_timeout=30.0)
        with (
            serve(limits, key=Keyring(None, tmp_path)) as found,
            stalled(found, "ModelInfer", 40, metadata=first),
            stalled(found, "ModelReady", 40, metadata=first) as call,
        ):
            call("ModelInfer", REQUEST, metadata=second)
            call("ModelReady", m.ModelReadyRequest(name="double"), metadata=second)

    def test_of_a_stream(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is ended, once what it took is answered."""
        monkeypatch.setattr(traffic, "_IDLE", 0.3)
        over = threading.Event()

        def one() -> Iterator[bytes]:
            yield REQUEST.SerializeToString()
            yield from pending(over)

        with serve() as found, line(found.address) as call:
            answers = call.stream(one(), timeout=SOON)
            answer = m.ModelStreamInferResponse.FromString(next(answers))
            error = refusal(lambda: next(answers))
            over.set()

        assert not answer.error_message
        assert error.code() is StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "no request came for 0.3 s"


class TestSize:
    def test_a_large_question_holds_what_it_has(self, serve: Serve) -> None:
        """What is longer than a name counts among the bytes of all."""
        limits = Limits(max_body=1 << 20, max_inflight_bytes=100_000)
        question = m.ModelMetadataRequest(name="a" * 90_000)
        larger = m.ModelMetadataRequest(name="a" * 110_000)
        with serve(limits) as found, line(found.address) as call:
            first = refusal(lambda: call("ModelMetadata", question))
            second = refusal(lambda: call("ModelMetadata", larger))
            assert found.admission.used_slots == found.admission.used_bytes == 0

        assert first.code() is StatusCode.NOT_FOUND
        assert second.code() is StatusCode.RESOURCE_EXHAUSTED
        assert "110" in second.details()

    def test_what_does_not_fit_is_counted(self, serve: Serve) -> None:
        """A request is refused after it came as before it did."""
        limits = Limits(max_body=40_000, max_inflight_bytes=50_000)
        large = request_of(x=np.zeros((3000, 3), np.float32))
        with serve(limits) as found, line(found.address) as call:
            with found.admission.reserve(30_000):
                refused = refusal(lambda: call("ModelInfer", large))

            assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
            assert found.parts.metrics.refused._value.get() == 1


class TestStreams:
    def test_of_a_key(self, serve: Serve, tmp_path: Path) -> None:
        """A key has as many open as it may have requests under way."""
        file, scopes = KeyFile(tmp_path), frozenset({Scope.INFER})
        small = file.create("s", scopes, quota=Quota(inflight=1))[1]
        other = file.create("o", scopes)[1]
        over = threading.Event()
        first, second = (
            {"metadata": [("authorization", f"Bearer {secret}")], "timeout": SOON}
            for secret in (small, other)
        )
        keyring = Keyring(None, tmp_path)
        with serve(key=keyring) as found, line(found.address) as call:
            held = call.stream(pending(over), **first)
            held.initial_metadata()
            refused = refusal(lambda: next(call.stream([], **first)))
            assert list(call.stream([], **second)) == []
            over.set()
            assert list(held) == []
            assert list(call.stream([], **first)) == []
            assert found.parts.metrics.refused._value.get() == 1

        assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
        assert "1 streams of this key are open" in refused.details()
