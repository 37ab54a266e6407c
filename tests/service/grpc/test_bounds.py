"""Keys, limits, deadlines, and clients that leave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import (
    SOON,
    Held,
    Line,
    Running,
    line,
    pending,
    refusal,
    request_of,
    trailing,
)
from service.processes import until
from service.web.doubler import Doubler

from nnz_service.gateway import Limits
from nnz_service.grpc.protocol import messages as m

REQUEST = request_of(x=np.ones((2, 3), np.float32))
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def call(server: Running) -> Iterator[Line]:
    with line(server.address) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(serve: Serve) -> Iterator[Line]:
    with serve(key="sesame") as found, line(found.address) as call:
        yield call


@pytest.fixture(scope="module")
def small(serve: Serve) -> Iterator[Line]:
    limits = Limits(max_body=4000, max_json=500)
    with serve(limits) as found, line(found.address) as call:
        yield call


class TestKey:
    @pytest.mark.parametrize("name", ["ServerLive", "ServerReady"])
    def test_health_is_open(self, guarded: Line, name: str) -> None:
        """A probe needs no key."""
        guarded(name, b"")

    @pytest.mark.parametrize(
        "name", ["ServerMetadata", "ModelReady", "ModelInfer", "RepositoryModelUnload"]
    )
    @pytest.mark.parametrize(
        "sent", [None, "Bearer wrong", "Basic sesame", "sesame", "Bearer"]
    )
    def test_refused(self, guarded: Line, name: str, sent: str | None) -> None:
        """Everything else is refused without the right key, before it is received."""
        metadata = [("authorization", sent)] if sent else []

        error = refusal(lambda: guarded(name, b"no message", metadata=metadata))

        assert error.code() is StatusCode.UNAUTHENTICATED

    @pytest.mark.parametrize("sent", ["Bearer sesame", "bearer sesame"])
    def test_let_in(self, guarded: Line, sent: str) -> None:
        guarded("ModelInfer", REQUEST, metadata=[("authorization", sent)])

    @pytest.mark.parametrize("sent", [("sesame", "sesame"), ("wrong", "sesame")])
    def test_two(self, guarded: Line, sent: tuple[str, str]) -> None:
        """Of two keys a proxy may have looked at the other one."""
        metadata = [("authorization", f"Bearer {key}") for key in sent]

        error = refusal(lambda: guarded("ModelInfer", REQUEST, metadata=metadata))

        assert error.code() is StatusCode.UNAUTHENTICATED

    def test_stream(self, serve: Serve) -> None:
        with serve(key="sesame") as found, line(found.address) as call:
            error = refusal(lambda: next(call.stream([])))

        assert error.code() is StatusCode.UNAUTHENTICATED


class TestSize:
    @pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
    def test_message(self, small: Line, compression: grpc.Compression | None) -> None:
        """What is too large is refused, however small it was packed."""
        fits = request_of(x=np.zeros((320, 3), np.float32))
        larger = request_of(x=np.zeros((340, 3), np.float32))

        small("ModelInfer", fits, compression=compression)
        error = refusal(lambda: small("ModelInfer", larger, compression=compression))

        assert error.code() is StatusCode.RESOURCE_EXHAUSTED

    def test_description(self, small: Line) -> None:
        """Everything but raw tensors has a limit of its own, as JSON has."""
        request = m.ModelInferRequest(model_name="double")
        x = request.inputs.add(name="x", datatype="FP32", shape=[30, 3])
        x.contents.fp32_contents.extend([1.0] * 90)
        small("ModelInfer", request)
        x.contents.fp32_contents.extend([1.0] * 90)

        error = refusal(lambda: small("ModelInfer", request))

        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert "raw_input_contents" in error.details()

    def test_other_calls(self, small: Line) -> None:
        error = refusal(
            lambda: small("ModelReady", m.ModelReadyRequest(name="a" * 600))
        )

        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert "ModelReady is 500" in error.details()


class TestFull:
    def test_slots(self, serve: Serve, doubler: Doubler) -> None:
        """The request beyond the last slot is refused at once, with a time to wait."""
        doubler.hold_for_ever = True
        limits = Limits(max_inflight=1, request_timeout=2.0)
        with serve(limits) as found, line(found.address) as call:
            first = threading.Thread(
                target=refusal, args=(lambda: call("ModelInfer", REQUEST),)
            )
            first.start()
            assert doubler.entered.wait(SOON)

            refused = refusal(lambda: call("ModelInfer", REQUEST))
            call("ServerLive", b"")
            first.join(SOON)
            doubler.hold_for_ever = False
            call("ModelInfer", REQUEST)

            assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
            assert "1 requests are being served" in refused.details()
            assert int(trailing(refused)["retry-after"]) >= 1
            assert found.admission.used_slots == found.admission.used_bytes == 0
            assert found.parts.metrics.refused._value.get() == 1

    def test_bytes(self, serve: Serve) -> None:
        """Bytes of all requests together have a limit too."""
        worker = Held()
        limits = Limits(max_body=40_000, max_inflight_bytes=50_000)
        large = request_of(x=np.zeros((3000, 3), np.float32))
        with serve(limits, worker=worker) as found, line(found.address) as call:
            first = threading.Thread(target=call, args=("ModelInfer", large))
            first.start()
            assert worker.entered.wait(SOON)

            refused = refusal(lambda: call("ModelInfer", large))
            worker.release.set()
            first.join(SOON)

            assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
            assert "more do not fit now" in refused.details()

    def test_in_a_stream(self, serve: Serve) -> None:
        """There it is an answer with the request's id, and the stream goes on."""
        worker = Held()
        requests = [m.ModelInferRequest(), m.ModelInferRequest()]
        for number, request in enumerate(requests):
            request.CopyFrom(REQUEST)
            request.id = str(number)
        limits = Limits(max_inflight=1)
        with serve(limits, worker=worker) as found, line(found.address) as call:
            sent = (request.SerializeToString() for request in requests)
            answers = call.stream(sent, timeout=SOON)
            assert worker.entered.wait(SOON)
            until(lambda: found.parts.metrics.refused._value.get() == 1)
            worker.release.set()
            first, second = map(m.ModelStreamInferResponse.FromString, answers)

        assert not first.error_message
        assert "1 requests are being served" in second.error_message
        assert [a.infer_response.id for a in (first, second)] == ["0", "1"]

    def test_streams(self, serve: Serve) -> None:
        """So many may be open as could all receive the largest message."""
        limits = Limits(max_body=1000, max_inflight_bytes=1999)
        over = threading.Event()

        with serve(limits) as found, line(found.address) as call:
            first = call.stream(pending(over), timeout=SOON)
            first.initial_metadata()
            second = refusal(lambda: next(call.stream([])))
            over.set()
            assert list(first) == []
            assert list(call.stream([])) == []

        assert second.code() is StatusCode.RESOURCE_EXHAUSTED
        assert "NNZ_MAX_INFLIGHT_BYTES" in second.details()

    def test_calls(self, serve: Serve) -> None:
        """Calls of any kind have a limit: eight for each that may compute."""
        over = threading.Event()
        with serve(Limits(max_inflight=1)) as found, line(found.address) as call:
            streams = [call.stream(pending(over)) for _ in range(8)]
            for stream in streams:
                stream.initial_metadata()
            refused = refusal(lambda: call("ServerLive", b""))
            over.set()
            assert [list(stream) for stream in streams] == [[]] * 8

        assert refused.code() is StatusCode.RESOURCE_EXHAUSTED

    def test_burst(self, call: Line) -> None:
        """Many small requests at once are no overload."""
        waiting = [call.later("ModelInfer", REQUEST) for _ in range(200)]

        assert all(future.result(SOON) for future in waiting)


class TestTime:
    def test_of_the_client(self, call: Line, doubler: Doubler) -> None:
        """The parameter `timeout` ends a request that takes longer, in the worker."""
        doubler.hold_for_ever = True
        request = m.ModelInferRequest()
        request.CopyFrom(REQUEST)
        request.parameters["timeout"].int64_param = 50_000

        error = refusal(lambda: call("ModelInfer", request))

        assert error.code() is StatusCode.DEADLINE_EXCEEDED
        assert doubler.cancelled.wait(SOON)

    @pytest.mark.parametrize("value", [-1, True, "soon"])
    def test_no_number(self, call: Line, value: Any) -> None:
        request = m.ModelInferRequest()
        request.CopyFrom(REQUEST)
        kinds = {int: "int64_param", bool: "bool_param", str: "string_param"}
        setattr(request.parameters["timeout"], kinds[type(value)], value)

        error = refusal(lambda: call("ModelInfer", request))

        assert error.code() is StatusCode.INVALID_ARGUMENT
        assert "must be microseconds" in error.details()

    def test_of_the_server(self, serve: Serve, doubler: Doubler) -> None:
        """Without a deadline the server's own holds, in streams for each request."""
        doubler.hold_for_ever = True
        limits = Limits(request_timeout=0.2)
        with serve(limits) as found, line(found.address) as call:
            alone = refusal(call.later("ModelInfer", REQUEST).result)
            answers = call.stream([REQUEST.SerializeToString()] * 2)
            streamed = [m.ModelStreamInferResponse.FromString(one) for one in answers]

        assert alone.code() is StatusCode.DEADLINE_EXCEEDED
        assert doubler.cancelled.is_set()
        assert len(streamed) == 2
        assert all(re.search("no answer|deadline", s.error_message) for s in streamed)

    @pytest.mark.parametrize("how", ["cancel", "deadline"])
    def test_client_leaves(self, server: Running, doubler: Doubler, how: str) -> None:
        """The worker is told, and what the request held is free again."""
        doubler.hold_for_ever = True
        seconds = 0.3 if how == "deadline" else SOON
        with line(server.address) as call:
            future = call.later("ModelInfer", REQUEST, timeout=seconds)
            assert doubler.entered.wait(SOON)
            if how == "cancel":
                future.cancel()

            assert doubler.cancelled.wait(SOON)
            call("ServerLive", b"")
        assert server.admission.used_slots == 0

    def test_message_that_does_not_come(self, serve: Serve) -> None:
        """A call whose work may last long still has to begin."""
        over = threading.Event()
        path = "/inference.GRPCInferenceService/RepositoryModelLoad"
        with (
            serve(Limits(body_timeout=0.1)) as found,
            grpc.insecure_channel(found.address) as channel,
        ):
            error = refusal(lambda: channel.stream_unary(path)(pending(over)))
            over.set()

        assert error.code() is StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "no whole message came within 0.1 s"

    def test_no_message(self, server: Running) -> None:
        """A call that ends before its message came is refused."""
        with grpc.insecure_channel(server.address) as channel:
            error = refusal(lambda: channel.stream_unary(INFER)(iter([])))

        assert error.code() is StatusCode.INVALID_ARGUMENT
        assert error.details() == "the call came without a message"


class TestAnswers:
    def test_request_id(self, call: Line) -> None:
        """An id that was sent comes back; without one, or with a bad one, it is new."""

        def told(metadata: list[tuple[str, str]]) -> str:
            _, done = call("ServerMetadata", b"", metadata=metadata)
            return dict(done.initial_metadata())["x-request-id"]

        assert told([("x-request-id", "abc-1")]) == "abc-1"
        for metadata in ([], [("x-request-id", "a b")]):
            assert re.fullmatch("[0-9a-f]{32}", told(metadata))

    def test_fault(self, call: Line, doubler: Doubler) -> None:
        """A fault inside names the request in the log and nothing else."""
        doubler.broken = True
        metadata = [("x-request-id", "r-1")]

        error = refusal(lambda: call("ModelInfer", REQUEST, metadata=metadata))

        assert error.code() is StatusCode.INTERNAL
        assert error.details() == "internal error; the server's log has request r-1"

    def test_fault_in_a_stream(self, server: Running, doubler: Doubler) -> None:
        """There it is an answer, and the stream goes on."""
        doubler.broken = True
        sent = [REQUEST.SerializeToString()] * 2
        with line(server.address) as call:
            answers = call.stream(sent, metadata=[("x-request-id", "r-1")])
            found = [m.ModelStreamInferResponse.FromString(one) for one in answers]

        assert [one.error_message for one in found] == [
            "internal error; the server's log has request r-1"
        ] * 2

    @pytest.mark.parametrize(
        "path",
        ["/inference.GRPCInferenceService/Nothing", "/other.Service/ModelInfer"],
    )
    def test_unknown_call(self, server: Running, path: str) -> None:
        with grpc.insecure_channel(server.address) as channel:
            error = refusal(lambda: channel.unary_unary(path)(b""))

        assert error.code() is StatusCode.UNIMPLEMENTED

    def test_repository_by_name(self, call: Line) -> None:
        message = m.RepositoryIndexRequest(repository_name="other")

        error = refusal(lambda: call("RepositoryIndex", message))

        assert error.code() is StatusCode.INVALID_ARGUMENT
