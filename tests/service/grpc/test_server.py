"""A server that begins and one that stops."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from grpc import StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import (
    SOON,
    Held,
    Running,
    line,
    pending,
    refusal,
    request_of,
    trailing,
)
from service.web.doubler import Doubler

from nnz_service.dataplane import Admission
from nnz_service.errors import ServiceError
from nnz_service.grpc import Server
from nnz_service.grpc.protocol import messages as m

REQUEST = request_of(x=np.ones((2, 3), np.float32))


class TestStop:
    def test_answers_what_it_took(self, serve: Serve) -> None:
        """
        While it drains it is live, not ready, and takes nothing new; a request under
        way is answered, a stream is told that the server stops.
        """
        worker, over = Held(), threading.Event()
        with serve(worker=worker) as found, line(found.address) as call:
            streamed = call.stream(pending(over), timeout=SOON)
            streamed.initial_metadata()
            held = call.later("ModelInfer", REQUEST, timeout=SOON)
            assert worker.entered.wait(SOON)

            found.stop()
            ended = refusal(lambda: next(streamed))
            ready, _ = call("ServerReady", b"")
            live, _ = call("ServerLive", b"")
            refused = refusal(lambda: call("ModelInfer", REQUEST))
            worker.release.set()
            over.set()

            assert held.result()
        assert m.ServerLiveResponse.FromString(live).live
        assert not m.ServerReadyResponse.FromString(ready).ready
        for error in (ended, refused):
            assert error.code() is StatusCode.UNAVAILABLE
            assert error.details() == "the server is stopping"
            assert trailing(error)["retry-after"] == "1"

    def test_gives_up_after_its_grace(self, serve: Serve, doubler: Doubler) -> None:
        """What takes longer is broken off."""
        doubler.hold_for_ever = True
        with serve(grace=0.1) as found, line(found.address) as call:
            held = call.later("ModelInfer", REQUEST)
            assert doubler.entered.wait(SOON)
            found.stop()

            assert refusal(held.result).code() is StatusCode.UNAVAILABLE
        assert doubler.cancelled.is_set()


async def test_the_port_is_taken(server: Running, serve: Serve) -> None:
    """A second server on an address is told so."""
    second = Server(server.parts, Admission(1, 1))

    with pytest.raises(ServiceError, match=f"cannot listen on {server.address}"):
        await second.start(server.address)
