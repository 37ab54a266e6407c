"""``/v2/logging`` and ``/v2/trace/setting``, with the real ``tritonclient``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import FastAPI
from service.web.doubler import running
from tritonclient.utils import InferenceServerException

from nnz_service import logs
from nnz_service.gateway import open_controls


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def client(
    make_app: Callable[..., FastAPI], home: Path
) -> Iterator[triton.InferenceServerClient]:
    """A client of a server with controls of its own."""
    with (
        running(make_app(controls=open_controls(home))) as address,
        triton.InferenceServerClient(address) as client,
    ):
        yield client
    logs.configure("error", "web")


def infer(client: triton.InferenceServerClient, name: str = "") -> None:
    x = triton.InferInput("x", [2, 3], "FP32")
    x.set_data_from_numpy(np.ones((2, 3), np.float32))
    client.infer("double", [x], request_id=name)


class TestLogging:
    def test_round_trip(self, client: triton.InferenceServerClient) -> None:
        """What is read can be sent back; a change holds until it is cleared."""
        held = client.get_log_settings()

        assert client.update_log_settings(held) == held
        changed = client.update_log_settings({"log_verbose_level": 1})
        assert changed == client.get_log_settings()
        assert changed == {**held, "log_verbose_level": 1}
        client.update_log_settings({"log_verbose_level": None, "log_error": None})
        assert client.get_log_settings()["log_verbose_level"] == 0

    def test_lines_of_requests(
        self, client: triton.InferenceServerClient, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With verbose lines every request is in the log, without them none."""
        infer(client)
        assert "request" not in capsys.readouterr().err

        client.update_log_settings({"log_verbose_level": 1})
        infer(client)

        rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert rows[-1]["event"] == "request"
        assert rows[-1]["servable"] == "double"

    @pytest.mark.parametrize(
        ("asked", "code"),
        [({"log_file": "/var/log/x"}, "422"), ({"log_info": "yes"}, "400")],
    )
    def test_refused(
        self, client: triton.InferenceServerClient, asked: dict[str, Any], code: str
    ) -> None:
        with pytest.raises(InferenceServerException) as caught:
            client.update_log_settings(asked)
        assert caught.value.status() == code


class TestTrace:
    def test_a_trace(self, client: triton.InferenceServerClient, home: Path) -> None:
        """Turned on, one request of two leaves its times; turned off, none does."""
        client.update_trace_settings(
            settings={
                "trace_level": ["TIMESTAMPS"],
                "trace_rate": "2",
                "trace_file": "seen.json",
            }
        )
        for name in "abcd":
            infer(client, name)
        client.update_trace_settings(settings={"trace_level": None})
        for name in "ef":
            infer(client, name)

        records = json.loads((home / "traces" / "seen.json").read_text())
        assert [one.get("request_id") for one in records[::2]] == ["b", "d"]
        times = [stamp["ns"] for stamp in records[1]["timestamps"]]
        assert len(times) == 7
        assert times == sorted(times)
        assert client.get_trace_settings()["trace_level"] == ["OFF"]

    def test_of_a_model(self, client: triton.InferenceServerClient) -> None:
        """A model has settings of its own; one that is not there has none."""
        client.update_trace_settings("double", {"trace_rate": "7"})

        assert client.get_trace_settings("double")["trace_rate"] == "7"
        assert client.get_trace_settings()["trace_rate"] == "1000"
        with pytest.raises(InferenceServerException) as caught:
            client.update_trace_settings("absent", {"trace_rate": "7"})
        assert caught.value.status() == "404"

    @pytest.mark.parametrize(
        "asked", [{"trace_level": ["TENSORS"]}, {"trace_file": "../../x"}]
    )
    def test_refused(
        self, client: triton.InferenceServerClient, asked: dict[str, Any]
    ) -> None:
        with pytest.raises(InferenceServerException) as caught:
            client.update_trace_settings(settings=asked)
        assert caught.value.status() == "422"

    def test_off_costs_nothing(
        self,
        client: triton.InferenceServerClient,
        home: Path,
    ) -> None:
        """Without a setting no file and no folder comes into being."""
        infer(client)

        assert not (home / "traces").exists()
