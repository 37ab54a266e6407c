"""Models: put, infer at once, versions, load and unload, delete."""

from __future__ import annotations

import threading
import time
import uuid

import httpx2
import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import helper
from service.web.wire import WEIGHTS, infer, linear, read


@pytest.fixture
def name() -> str:
    """A model name that no other test uses."""
    return f"model-{uuid.uuid4().hex[:8]}"


class TestModels:
    def test_put_and_infer(
        self, real: httpx2.Client, real_server: str, name: str
    ) -> None:
        """A model that was put is ready when the answer comes."""
        answer = real.put(f"/v1/models/{name}", content=linear())

        assert answer.status_code == 201, answer.text
        info = answer.json()
        assert (info["name"], info["version"], info["state"]) == (name, "1", "READY")
        assert info["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        with triton.InferenceServerClient(real_server) as client:
            given = triton.InferInput("x", [2, 3], "FP32").set_data_from_numpy(x)
            result = client.infer(name, [given])
            assert client.get_model_config(name)["max_batch_size"] > 0
            (row,) = client.get_inference_statistics(name)["model_stats"]
        np.testing.assert_allclose(result.as_numpy("y"), x @ WEIGHTS.T)
        assert row["inference_count"] == 2

    def test_versions(self, real: httpx2.Client, name: str) -> None:
        """The same content is found again; other content is the next version."""
        path = f"/v1/models/{name}"
        first = real.put(path, content=linear())

        again = real.put(path, content=linear())
        other = real.put(path, content=linear(2 * WEIGHTS))
        clash = real.put(f"{path}?version=1", content=linear(3 * WEIGHTS))

        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["version"] == "1"
        assert (other.status_code, other.json()["version"]) == (201, "2")
        assert clash.status_code == 409
        x = {"x": np.ones((1, 3), np.float32)}
        newest = read(infer(real, name, x))["y"]
        oldest = read(infer(real, f"{name}/versions/1", x))["y"]
        np.testing.assert_allclose(newest, 2 * oldest)

    def test_plan(self, real: httpx2.Client, name: str) -> None:
        """A model says layer by layer how it runs."""
        real.put(f"/v1/models/{name}", content=linear())

        info = real.get(f"/v1/models/{name}").json()

        assert info["versions"] == ["1"]
        assert info["plan"][0]["name"] == "layer"
        assert name in [row["name"] for row in real.get("/v1/models").json()["models"]]

    def test_load_and_unload(
        self, real: httpx2.Client, real_server: str, name: str
    ) -> None:
        """An unloaded model keeps its file, answers 503, and can come back."""
        real.put(f"/v1/models/{name}", content=linear())
        x = {"x": np.ones((1, 3), np.float32)}

        gone = real.post(f"/v1/models/{name}/unload")
        refused = infer(real, name, x)
        listed = real.get(f"/v1/models/{name}").json()
        with triton.InferenceServerClient(real_server) as client:
            ready_between = client.is_model_ready(name)
            client.load_model(name)
            ready_after = client.is_model_ready(name)
            states = {
                row["name"]: row["state"] for row in client.get_model_repository_index()
            }
            client.unload_model(name)

        assert gone.json() == {"name": name, "version": "1", "state": "UNAVAILABLE"}
        assert refused.status_code == 503
        assert "retry-after" not in refused.headers  # only a load can help
        assert listed["state"] == "UNAVAILABLE"
        assert (ready_between, ready_after) == (False, True)
        assert states[name] == "READY"

    def test_delete(self, real: httpx2.Client, name: str) -> None:
        """After delete nothing is left, and a second delete is a 404."""
        real.put(f"/v1/models/{name}", content=linear())

        assert real.delete(f"/v1/models/{name}").status_code == 204
        assert real.delete(f"/v1/models/{name}").status_code == 404
        assert real.get(f"/v1/models/{name}").status_code == 404
        x = {"x": np.ones((1, 3), np.float32)}
        assert infer(real, name, x).status_code == 404

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            pytest.param(b"", 400, id="empty"),
            pytest.param(b"this is no model", 422, id="not ONNX"),
            pytest.param(linear()[:-20], 422, id="cut off"),
        ],
    )
    def test_bad_file(
        self, real: httpx2.Client, name: str, content: bytes, code: int
    ) -> None:
        """A file that is no model is refused and leaves nothing behind."""
        answer = real.put(f"/v1/models/{name}", content=content)

        assert answer.status_code == code
        assert answer.json()["error"]
        assert real.get(f"/v1/models/{name}").status_code == 404

    def test_unsupported(self, real: httpx2.Client, name: str) -> None:
        """A model with nodes that cannot run is refused, each one named."""
        model = onnx.load_from_string(linear())
        model.graph.node[0].CopyFrom(
            helper.make_node("Einsum", ["x", "w"], ["y"], "odd", equation="ni,mi->nm")
        )

        answer = real.put(f"/v1/models/{name}", content=model.SerializeToString())

        assert answer.status_code == 422
        assert any("Einsum" in node for node in answer.json()["nodes"])

    @pytest.mark.parametrize("bad", ["a b", "m-0123456789abcdef", ".."])
    def test_bad_name(self, real: httpx2.Client, bad: str) -> None:
        """A name that could not be asked for later is refused before the upload."""
        answer = real.put(f"/v1/models/{bad}", content=linear())

        assert answer.status_code in (404, 422)
        assert answer.json()["error"]


class TestRaces:
    def test_delete_against_load(
        self, real: httpx2.Client, real_server: str, name: str
    ) -> None:
        """Whoever loses, nothing outlives its deletion, and nobody gets the old one."""
        path, x = f"/v1/models/{name}", {"x": np.ones((1, 3), np.float32)}

        def hammer() -> None:
            with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as http:
                for _ in range(3):
                    http.post(f"{path}/load")

        for turn in range(1, 13):
            put = real.put(f"{path}?version=1", content=linear(turn * WEIGHTS))
            assert put.status_code == 201, put.text
            found = read(infer(real, name, x))["y"]
            np.testing.assert_allclose(found[0], turn * WEIGHTS.sum(1), rtol=1e-5)
            loading = threading.Thread(target=hammer)
            loading.start()
            time.sleep(turn / 2000)
            assert real.delete(path).status_code == 204
            loading.join()
            assert infer(real, name, x).status_code == 404

    def test_put_against_delete(
        self, real: httpx2.Client, real_server: str, name: str
    ) -> None:
        """A file that was stored is answered as stored, whoever deletes it then."""
        path, stop = f"/v1/models/{name}", threading.Event()

        def hammer() -> None:
            with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as http:
                while not stop.is_set():
                    http.delete(path)

        deleting = threading.Thread(target=hammer)
        deleting.start()
        try:
            answers = [real.put(path, content=linear()).status_code for _ in range(5)]
        finally:
            stop.set()
            deleting.join()
        # 409: deleted between its arrival and its record; the message says send again.
        assert set(answers) <= {200, 201, 409}
