"""/metrics and /v1/stats: our names, Triton's, and what processes use."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from service.waiting import SOON
from service.web.doubler import Doubler, running
from service.web.wire import linear

from nnz_kernels.backends import Backend
from nnz_service.metrics import Metrics, render
from nnz_service.web.triton_metrics import triton_families
from nnz_service.worker import Toolbox

MODEL = "counted"
LABELS = {"model": MODEL, "version": "1"}
BODY = {
    "inputs": [
        {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
    ]
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def http(real: httpx2.Client) -> httpx2.Client:
    """A client of a real server, which has answered three requests of two rows."""
    answer = real.put(f"/v1/models/{MODEL}", content=linear())
    assert answer.status_code in (200, 201), answer.text
    for _ in range(3):
        assert real.post(f"/v2/models/{MODEL}/infer", json=BODY).status_code == 200
    return real


def scrape(http: httpx2.Client) -> Samples:
    """Every sample by its exact name and labels."""
    found: Samples = {}
    for line in http.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(
                r"([a-z_A-Z0-9]+)(?:\{(.*)\})? (\S+)", line
            ).groups()
            pairs = re.findall(r'(\w+)="([^"]*)"', labels or "")
            found[name, tuple(sorted(pairs))] = float(value)
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


class TestTriton:
    def test_counts(self, http: httpx2.Client) -> None:
        """The names that dashboards for Triton ask for, without `_total`."""
        samples = scrape(http)

        assert of(samples, "nv_inference_request_success", **LABELS) == 3
        assert of(samples, "nv_inference_count", **LABELS) == 6
        assert of(samples, "nv_inference_exec_count", **LABELS) == 3
        assert of(samples, "nv_inference_pending_request_count", **LABELS) == 0
        for stage in (
            "request", "queue", "compute_input", "compute_infer", "compute_output"
        ):  # fmt: skip
            name = f"nv_inference_{stage}_duration_us"
            assert of(samples, name, **LABELS) >= 0, name
        assert of(samples, "nv_inference_request_duration_us", **LABELS) > 0

    def test_failures(self, http: httpx2.Client) -> None:
        """By reason, zeros too; a request that names no version is the newest's."""

        def failures() -> dict[str, float]:
            samples = scrape(http)
            name = "nv_inference_request_failure"
            return {
                reason: of(samples, name, **LABELS, reason=reason)
                for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
            }

        before = failures()
        late = {**BODY, "parameters": {"timeout": 1}}
        for version in ("", "/versions/1"):
            path = f"/v2/models/{MODEL}{version}/infer"
            assert http.post(path, json={"inputs": []}).status_code == 400
            assert http.post(path, json=late).status_code == 504
        assert http.post("/v2/models/absent/infer", json=BODY).status_code == 404

        after = failures()
        grown = {reason: after[reason] - before[reason] for reason in after}
        assert grown == {"REJECTED": 2, "CANCELED": 0, "BACKEND": 0, "OTHER": 2}

    def test_failures_are_not_counted_without_bound(self) -> None:
        """Callers choose names and versions; a series for each would never end."""
        metrics = Metrics()

        for number in range(5000):
            metrics.failed("x", str(number), 400)

        [family] = [f for f in metrics.collect() if f.name == "nnz_servable_failures"]
        assert len(family.samples) == 4096

    def test_machine(self, http: httpx2.Client) -> None:
        samples = scrape(http)

        assert 0 <= of(samples, "nv_cpu_utilization") <= 1
        used = of(samples, "nv_cpu_memory_used_bytes")
        assert 0 < used < of(samples, "nv_cpu_memory_total_bytes")
        assert not any(name.startswith("nv_gpu") for name, _ in samples)

    def test_gpus(self) -> None:
        """Memory of each GPU, as the workers tell it."""
        gpus = [
            {"uuid": "GPU-1", "total": 80, "used": 3},
            {"uuid": "GPU-2", "total": 80, "used": 0},
        ]
        text = render(triton_families((), (), gpus)).decode()

        assert 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 3.0' in text
        assert 'nv_gpu_memory_total_bytes{gpu_uuid="GPU-2"} 80.0' in text

    def test_gpu_of_a_worker(self, emulated_cuda: None) -> None:
        found = Toolbox(Backend.CUDA).gpu_memory()

        assert found is not None
        assert 0 <= found["used"] <= found["total"]
        assert found["uuid"]
        assert Toolbox(Backend.REFERENCE).gpu_memory() is None

    def test_a_fault(self, server: str, doubler: Doubler) -> None:
        """A fault inside is the back-end's."""
        doubler.broken = True
        with httpx2.Client(base_url=f"http://{server}", timeout=30) as client:
            body = {"inputs": [{**BODY["inputs"][0]}]}
            assert client.post("/v2/models/double/infer", json=body).status_code == 500
            found = of(
                scrape(client),
                "nv_inference_request_failure",
                model="double", version="1", reason="BACKEND",
            )  # fmt: skip

        assert found == 1


class TestOurs:
    def test_readable(self, http: httpx2.Client) -> None:
        """The parser of Prometheus' own client takes it, and no family comes twice."""
        text = http.get("/metrics").text

        list(text_string_to_metric_families(text))
        helps = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
        assert len(helps) == len(set(helps))

    def test_processes(self, http: httpx2.Client) -> None:
        samples = scrape(http)

        for process in ("web", "worker"):
            held = of(samples, "nnz_process_resident_bytes", process=process)
            assert held > 10 << 20
            assert of(samples, "nnz_process_uptime_seconds", process=process) > 0

    def test_jobs(self, http: httpx2.Client) -> None:
        """One number a status, zeros too."""
        samples = scrape(http)

        for status in ("queued", "running", "succeeded", "failed", "cancelled"):
            assert of(samples, "nnz_jobs", status=status) == 0

    def test_stats(self, http: httpx2.Client) -> None:
        """Who answers, and the workers: pid, memory, age, version."""
        found = http.get("/v1/stats").json()["processes"]

        (worker,) = found["workers"]
        for facts in (found["web"], worker):
            assert facts["pid"] == os.getpid()  # all in the process of this test
            assert facts["resident_bytes"] > 10 << 20
            assert facts["uptime_seconds"] > 0
            assert facts["version"]


class TestAccessLog:
    @pytest.fixture
    def logged(self, make_app: Callable[..., FastAPI]) -> Iterator[httpx2.Client]:
        with (
            running(make_app(key="sesame", access_log=True)) as address,
            httpx2.Client(base_url=f"http://{address}", timeout=30) as client,
        ):
            client.headers["Authorization"] = "Bearer sesame"
            yield client

    @pytest.fixture(autouse=True)
    def _info(self) -> Iterator[None]:
        from nnz_service import logs

        logs.configure("info", "web")
        yield
        logs.configure("error", "web")

    def rows(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
        """What was logged; the line comes behind the answer."""
        text, limit = "", time.monotonic() + SOON
        while not text.endswith("\n") and time.monotonic() < limit:
            text += capsys.readouterr().err
            time.sleep(0.01)
        return [json.loads(line) for line in text.splitlines()]

    def test_a_line(
        self, logged: httpx2.Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Who, what, how long and how much; nothing of keys and queries."""
        content = json.dumps(BODY).encode()
        answer = logged.post(
            "/v2/models/double/infer?token=hidden",
            content=content,
            headers={"X-Request-Id": "mine"},
        )

        (row,) = self.rows(capsys)
        assert row.pop("seconds") > 0
        assert row.pop("timestamp")
        assert row == {
            "event": "request",
            "level": "info",
            "process": "web",
            "request": "mine",
            "method": "POST",
            "route": "/v2/models/{name}/infer",
            "status": 200,
            "bytes_in": len(content),
            "bytes_out": len(answer.content),
            "servable": "double",
        }

    @pytest.mark.parametrize(
        ("path", "status", "route"),
        [
            ("/v2/models/double/infer", 400, "/v2/models/{name}/infer"),
            ("/nothing", 404, "unmatched"),
        ],
    )
    def test_what_fails(
        self,
        logged: httpx2.Client,
        capsys: pytest.CaptureFixture[str],
        path: str,
        status: int,
        route: str,
    ) -> None:
        logged.post(path, content=b"{")

        (row,) = self.rows(capsys)
        assert (row["status"], row["route"]) == (status, route)

    def test_off(self, server: str, capsys: pytest.CaptureFixture[str]) -> None:
        """By default there is none."""
        httpx2.get(f"http://{server}/v2")

        assert capsys.readouterr().err == ""

    def test_every_line_of_a_request_names_it(
        self, server: str, doubler: Doubler, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also that of a fault deep inside."""
        doubler.broken = True
        httpx2.post(
            f"http://{server}/v2/models/double/infer",
            json=BODY,
            headers={"X-Request-Id": "seven"},
        )

        rows = self.rows(capsys)
        assert rows
        assert {row["request"] for row in rows} == {"seven"}
