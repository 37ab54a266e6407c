"""What Triton's perf_analyzer does with a server, replayed rule by rule.

The program itself ships in an image only, so this reads answers as its C++ does: every
member that it indexes without a check must be there, numbers that it takes as unsigned
must be, and the server-side columns are differences of statistics.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import numpy as np
import pytest
from service.web.wire import LENGTH, WEIGHTS, linear

MODEL = "measured"
STAGES = (
    "success", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip
X = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]], np.float32)


@pytest.fixture(scope="module")
def http(real: httpx2.Client) -> httpx2.Client:
    """A client of a server over a real worker, with a real model."""
    answer = real.put(f"/v1/models/{MODEL}", content=linear())
    assert answer.status_code in (200, 201), answer.text
    return real


def get(http: httpx2.Client, path: str) -> Any:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def unsigned(value: Any) -> int:
    """As the C++ reader takes it: an integer, not below zero, no text, no float."""
    assert type(value) is int, value
    assert value >= 0
    return value


class Statistics:
    """The statistics of one version, read as the program reads them."""

    def __init__(self, http: httpx2.Client, path: str = f"/v2/models/{MODEL}") -> None:
        (row,) = get(http, f"{path}/stats")["model_stats"]
        assert row["version"].isdecimal()
        self.inferences = unsigned(row["inference_count"])
        self.executions = unsigned(row["execution_count"])
        unsigned(row["last_inference"])
        durations = row["inference_stats"]
        self.count = {s: unsigned(durations[s]["count"]) for s in STAGES}
        self.ns = {s: unsigned(durations[s]["ns"]) for s in STAGES}


def request(*, as_json: bool, request_id: str = "") -> tuple[bytes, dict[str, str]]:
    """A body as the C++ client writes it: the length header is always there."""
    entry: dict[str, Any] = {"name": "x", "shape": [*X.shape], "datatype": "FP32"}
    body: dict[str, Any] = {"id": request_id, "inputs": [entry]}
    if as_json:
        entry["data"] = X.ravel().tolist()
        body["outputs"] = [{"name": "y", "parameters": {"binary_data": False}}]
        text, tail, kind = json.dumps(body).encode(), b"", "application/json"
    else:
        entry["parameters"] = {"binary_data_size": X.nbytes}
        body["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
        text, tail = json.dumps(body).encode(), X.tobytes()
        kind = "application/octet-stream"
    return text + tail, {LENGTH: str(len(text)), "Content-Type": kind}


class TestModelParser:
    def test_metadata_and_config(self, http: httpx2.Client) -> None:
        """Tensors agree; with a batch axis the first extent is that axis."""
        metadata = get(http, f"/v2/models/{MODEL}")
        config = get(http, f"/v2/models/{MODEL}/config")

        batch = unsigned(config["max_batch_size"])
        assert batch > 0
        assert config["name"] == metadata["name"] == MODEL
        for side in ("input", "output"):
            tensors = {one["name"]: one for one in metadata[f"{side}s"]}
            assert {one["name"] for one in config[side]} == set(tensors)
            for one in config[side]:
                assert tensors[one["name"]]["shape"] == [-1, *one["dims"]]
                assert one["data_type"] == f"TYPE_{tensors[one['name']]['datatype']}"

    def test_config_promises_nothing(self, http: httpx2.Client) -> None:
        """The presence of these members alone changes what the program does."""
        config = get(http, f"/v2/models/{MODEL}/config")

        for name in ("sequence_batching", "ensemble_scheduling"):
            assert name not in config
        for name, member in (
            ("model_transaction_policy", "decoupled"),
            ("response_cache", "enable"),
        ):
            assert type(config.get(name, {member: False})[member]) is bool

    def test_versions(self, http: httpx2.Client) -> None:
        """The same under the version that the metadata names."""
        (version,) = get(http, f"/v2/models/{MODEL}")["versions"]
        path = f"/v2/models/{MODEL}/versions/{version}"

        assert get(http, path)["name"] == MODEL
        assert get(http, f"{path}/config")["name"] == MODEL
        assert Statistics(http, path).inferences >= 0

    def test_extensions(self, http: httpx2.Client) -> None:
        """An array of texts; `statistics` switches the server-side columns on."""
        extensions = get(http, "/v2")["extensions"]

        assert isinstance(extensions, list)
        assert all(isinstance(one, str) for one in extensions)
        assert {"statistics", "trace"} <= set(extensions)


class TestMeasurement:
    @pytest.mark.parametrize("as_json", [True, False])
    @pytest.mark.parametrize("request_id", ["", "7"])
    def test_window(self, http: httpx2.Client, as_json: bool, request_id: str) -> None:
        """Statistics before and after requests differ by exactly those."""
        before = Statistics(http)
        content, headers = request(as_json=as_json, request_id=request_id)
        for _ in range(5):
            answer = http.post(
                f"/v2/models/{MODEL}/infer", content=content, headers=headers
            )
            assert answer.status_code == 200, answer.text
        after = Statistics(http)

        assert after.inferences - before.inferences == 5 * len(X)
        assert after.executions - before.executions == 5
        grown = {s: after.count[s] - before.count[s] for s in STAGES}
        assert [grown[s] for s in STAGES] == [5, 5, 5, 5, 5, 0, 0]
        for stage in STAGES[:5]:
            assert after.ns[stage] > before.ns[stage], stage
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        whole = after.ns["success"] - before.ns["success"]
        assert sum(after.ns[s] - before.ns[s] for s in parts) <= whole

    @pytest.mark.parametrize("as_json", [True, False])
    def test_response(self, http: httpx2.Client, as_json: bool) -> None:
        """An output has `parameters` with `binary_data_size`, or none at all."""
        content, headers = request(as_json=as_json, request_id="")

        answer = http.post(
            f"/v2/models/{MODEL}/infer", content=content, headers=headers
        )

        assert 0 < int(answer.headers["content-length"]) < 2**31
        split = int(answer.headers.get(LENGTH, len(answer.content)))
        head = json.loads(answer.content[:split])
        assert head["id"] == ""
        assert head["model_version"].isdecimal()
        (output,) = head["outputs"]
        if "parameters" in output:
            size = unsigned(output["parameters"]["binary_data_size"])
            y = np.frombuffer(answer.content[split : split + size], np.float32)
        else:
            y = np.array(output["data"], np.float32)
        np.testing.assert_allclose(y.reshape(output["shape"]), X @ WEIGHTS.T)

    def test_failures_are_apart(self, http: httpx2.Client) -> None:
        """A request that fails leaves all counts of the successful alone."""
        before = Statistics(http)
        content, headers = request(as_json=True)
        wrong = content.replace(b'"FP32"', b'"FP64"')

        answer = http.post(f"/v2/models/{MODEL}/infer", content=wrong, headers=headers)

        assert answer.status_code == 422
        assert Statistics(http).count == before.count


class TestOptions:
    def test_collect_metrics(self, http: httpx2.Client) -> None:
        """`--collect-metrics` scrapes /metrics and warns once about absent GPUs."""
        answer = http.get("/metrics")

        assert answer.status_code == 200
        for line in answer.text.splitlines():
            assert line.startswith("#") or line.rpartition(" ")[2]

    def test_trace(self, http: httpx2.Client) -> None:
        """`--trace-level` and the rest arrive as texts, or lists, or null."""
        asked = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": None}

        answer = http.post("/v2/trace/setting", json=asked)

        assert answer.status_code == 200
        assert answer.json()["trace_level"] == ["OFF"]

    def test_shared_memory(self, http: httpx2.Client) -> None:
        """`--shared-memory=system` begins by unregistering all, CUDA's too."""
        # This server was not told to take any; the first call says so.
        assert http.post("/v2/systemsharedmemory/unregister").status_code == 501
        assert http.post("/v2/cudasharedmemory/unregister").status_code == 200
