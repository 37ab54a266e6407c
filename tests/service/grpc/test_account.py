"""What is told of calls: metrics by method and code, failures, times in metadata."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import pytest
import structlog
from grpc import StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import SOON, Line, Running, line, refusal, request_of
from service.web.doubler import Doubler

from nnz_service import logs
from nnz_service.dataplane import Reply, Tensors
from nnz_service.grpc.protocol import messages as m

REQUEST = request_of(x=np.ones((2, 3), np.float32))
WRONG = request_of(z=np.ones((2, 3), np.float32))
ABSENT = m.ModelReadyRequest(name="absent")


class Batched(Doubler):
    """A doubler whose runs have five rows, three of them somebody else's."""

    async def _infer(self, params: Mapping[str, Any], tensors: Tensors) -> Reply:
        reply = await super()._infer(params, tensors)
        return Reply(dict(reply.result, batch=5), reply.tensors, reply.timings)


class House:
    """A server that nobody has called yet, and what it has counted."""

    def __init__(self, server: Running, call: Line) -> None:
        self.call = call
        self._registry = server.parts.metrics.registry

    def value(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(name, labels) or 0.0

    def calls(self, method: str, code: str) -> float:
        return self.value("nnz_grpc_requests_total", method=method, code=code)

    def failures(self, reason: str) -> float:
        labels = {"servable": "double", "version": "", "reason": reason}
        return self.value("nnz_servable_failures_total", **labels)


@pytest.fixture
def worker() -> Doubler:
    return Batched()


@pytest.fixture
def house(serve: Serve, worker: Doubler) -> Iterator[House]:
    with serve(worker=worker) as found, line(found.address) as call:
        yield House(found, call)


class TestCounters:
    def test_by_method_and_code(self, house: House) -> None:
        house.call("ServerLive", b"")
        house.call("ModelReady", ABSENT)
        for _ in range(2):
            house.call("ModelInfer", REQUEST)
        refusal(lambda: house.call("ModelInfer", WRONG))
        refusal(lambda: house.call("ModelMetadata", ABSENT))

        assert house.calls("ServerLive", "OK") == 1
        assert house.calls("ModelReady", "OK") == 1
        assert house.calls("ModelInfer", "OK") == 2
        assert house.calls("ModelInfer", "INVALID_ARGUMENT") == 1
        assert house.calls("ModelMetadata", "NOT_FOUND") == 1

    def test_times(self, house: House) -> None:
        """One observation a call, whatever came of it."""
        house.call("ModelInfer", REQUEST)
        refusal(lambda: house.call("ModelInfer", WRONG))
        name = "nnz_grpc_request_seconds"

        assert house.value(f"{name}_count", method="ModelInfer") == 2
        assert 0 < house.value(f"{name}_sum", method="ModelInfer") < SOON

    def test_streams(self, house: House) -> None:
        """Requests are counted, and not the stream that carried them."""
        sent = [one.SerializeToString() for one in (REQUEST, WRONG, REQUEST)]

        assert len([*house.call.stream(sent)]) == 3

        assert house.calls("ModelStreamInfer", "OK") == 2
        assert house.calls("ModelStreamInfer", "INVALID_ARGUMENT") == 1
        name = "nnz_grpc_request_seconds_count"
        assert house.value(name, method="ModelStreamInfer") == 3

    def test_a_stream_that_is_refused(self, serve: Serve) -> None:
        """It counts as one call that failed, without a time."""
        with serve(key="sesame") as found, line(found.address) as call:
            refusal(lambda: next(call.stream([])))
            house = House(found, call)

            assert house.calls("ModelStreamInfer", "UNAUTHENTICATED") == 1
            name = "nnz_grpc_request_seconds_count"
            assert house.value(name, method="ModelStreamInfer") == 0


class TestAccessLog:
    @pytest.fixture
    def told(self) -> Iterator[list[MutableMapping[str, Any]]]:
        """What is logged meanwhile, from level info on."""
        logs.configure("info", "grpc")
        with structlog.testing.capture_logs() as lines:
            yield lines
        logs.configure("error", "grpc")

    def test_on(self, serve: Serve, told: list[MutableMapping[str, Any]]) -> None:
        """A line of level info for each call, also for one that is refused."""
        with serve(access_log=True) as found, line(found.address) as call:
            call("ModelInfer", REQUEST, metadata=[("x-request-id", "r-1")])
            refusal(lambda: call("ModelInfer", WRONG))

        first, second = (one for one in told if one["event"] == "request")
        assert first.pop("seconds") > 0
        assert first == {
            "event": "request",
            "log_level": "info",
            "request": "r-1",
            "call": "ModelInfer",
            "code": "OK",
        }
        assert second["code"] == "INVALID_ARGUMENT"

    def test_off(self, serve: Serve, told: list[MutableMapping[str, Any]]) -> None:
        with serve() as found, line(found.address) as call:
            call("ModelInfer", REQUEST)

        assert [one for one in told if one["event"] == "request"] == []


class TestFailures:
    def test_of_a_servable(self, house: House, worker: Doubler) -> None:
        """By Triton's reasons, as over HTTP; alone and in a stream."""
        refusal(lambda: house.call("ModelInfer", WRONG))
        [*house.call.stream([WRONG.SerializeToString()])]
        late = m.ModelInferRequest()
        late.CopyFrom(REQUEST)
        late.parameters["timeout"].int64_param = 20_000
        worker.hold_for_ever = True
        refusal(lambda: house.call("ModelInfer", late))
        worker.broken = True
        refusal(lambda: house.call("ModelInfer", REQUEST))

        found = {r: house.failures(r) for r in ("OTHER", "REJECTED", "BACKEND")}
        assert found == {"OTHER": 2, "REJECTED": 1, "BACKEND": 1}

    def test_what_is_not_there(self, house: House) -> None:
        """Callers choose names; those of nothing are not counted by."""
        absent = m.ModelInferRequest()
        absent.CopyFrom(REQUEST)
        absent.model_name = "absent"
        refusal(lambda: house.call("ModelInfer", absent))

        samples = [
            sample
            for family in house._registry.collect()
            for sample in family.samples
            if sample.name == "nnz_servable_failures_total"
        ]
        assert samples == []

    def test_a_client_that_leaves(self, house: House, worker: Doubler) -> None:
        worker.hold_for_ever = True
        leaving = house.call.later("ModelInfer", REQUEST)
        assert worker.entered.wait(SOON)

        leaving.cancel()

        assert worker.cancelled.wait(SOON)
        limit = time.monotonic() + SOON
        while not house.failures("CANCELED") and time.monotonic() < limit:
            time.sleep(0.01)
        assert house.failures("CANCELED") == 1
        assert house.calls("ModelInfer", "CANCELLED") == 1


class TestMetadata:
    def test_of_an_inference(self, house: House) -> None:
        """The names of the HTTP headers, and the stages in their order."""
        _, call = house.call("ModelInfer", REQUEST, metadata=[("x-request-id", "mine")])

        assert dict(call.initial_metadata())["x-request-id"] == "mine"
        told = dict(call.trailing_metadata())
        assert told["x-batch-size"] == "5"
        stages = re.findall(r"(\w+);dur=(\d+\.\d+)", told["server-timing"])
        names = [name for name, _ in stages]
        assert names == ["receive", "parse", "queue", "compute", "encode", "total"]
        times = {name: float(value) for name, value in stages}
        assert (times["queue"], times["compute"]) == (1.0, 2.0)
        assert 0 < times["total"] < SOON * 1e3

    def test_of_another_call(self, house: House) -> None:
        _, call = house.call("ServerLive", b"")

        told = dict(call.trailing_metadata())
        assert re.fullmatch(r"total;dur=\d+\.\d{3}", told["server-timing"])
        assert "x-batch-size" not in told
        assert len(dict(call.initial_metadata())["x-request-id"]) == 32

    def test_of_a_refusal(self, house: House) -> None:
        """What was spent on it is told too."""
        error = refusal(lambda: house.call("ModelInfer", WRONG))

        assert error.code() is StatusCode.INVALID_ARGUMENT
        told = dict(error.trailing_metadata())
        assert told["server-timing"].startswith("receive;dur=")
