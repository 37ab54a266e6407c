"""The real ``tritonclient.http``, synchronous and asyncio, unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def client(server: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server) as client:
        yield client


@pytest.fixture
async def aio(server: str) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(server) as client:
        yield client


def x_input(array: np.ndarray = X, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput("x", list(array.shape), "FP32")
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def y_output(*, binary: bool = True) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput("y", binary_data=binary)


class TestServer:
    def test_health(self, client: triton.InferenceServerClient) -> None:
        """A server with a ready worker is live and ready."""
        assert client.is_server_live()
        assert client.is_server_ready()

    def test_not_ready(self, client: triton.InferenceServerClient, doubler) -> None:
        """Without its worker the server lives but is not ready."""
        doubler.ready = False

        assert client.is_server_live()
        assert not client.is_server_ready()

    def test_metadata(self, client: triton.InferenceServerClient) -> None:
        """Name and version; extensions only for what is there."""
        found = client.get_server_metadata()

        assert found["name"] == "nnz"
        assert {"binary_tensor_data", "logging", "trace"} <= set(found["extensions"])
        assert not any("shared_memory" in name for name in found["extensions"])


class TestModel:
    @pytest.mark.parametrize("version", ["", "1"])
    def test_metadata(self, client: triton.InferenceServerClient, version: str) -> None:
        """Metadata and configuration say the same, with and without the batch axis."""
        metadata = client.get_model_metadata("double", version)
        config = client.get_model_config("double", version)

        assert client.is_model_ready("double", version)
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
        ]
        assert config["max_batch_size"] == 8
        assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
        assert "dynamic_batching" not in config

    def test_absent(self, client: triton.InferenceServerClient) -> None:
        """A model that is not there is a 404 with a message."""
        assert not client.is_model_ready("absent")
        with pytest.raises(InferenceServerException, match="absent") as caught:
            client.get_model_metadata("absent")
        assert caught.value.status() == "404"

    @pytest.mark.parametrize("name", ["", "double"])
    def test_statistics(self, client: triton.InferenceServerClient, name: str) -> None:
        """Every duration that perf_analyzer reads is there."""
        (row,) = client.get_inference_statistics(name)["model_stats"]

        assert int(row["version"]) == 1
        assert set(row["inference_stats"]) == {
            "success", "fail", "queue", "compute_input", "compute_infer",
            "compute_output", "cache_hit", "cache_miss",
        }  # fmt: skip
        assert all(set(d) == {"count", "ns"} for d in row["inference_stats"].values())

    def test_index(self, client: triton.InferenceServerClient) -> None:
        """The index lists name, version, state and reason."""
        assert client.get_model_repository_index() == [
            {"name": "double", "version": "1", "state": "READY", "reason": ""}
        ]


class TestInfer:
    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_every_form(
        self, client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
    ) -> None:
        """JSON and binary, each way, give the same numbers."""
        result = client.infer(
            "double",
            [x_input(binary=binary_in)],
            outputs=[y_output(binary=binary_out)],
            request_id="seven",
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
        assert result.get_response()["id"] == "seven"
        assert result.get_response()["model_version"] == "1"

    def test_no_outputs_named(self, client: triton.InferenceServerClient) -> None:
        """Without `outputs` all come back, as binary."""
        result = client.infer("double", [x_input()], model_version="1")

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)

    def test_empty_batch(self, client: triton.InferenceServerClient) -> None:
        """A tensor without elements travels like any other."""
        empty = np.empty((0, 3), np.float32)

        assert client.infer("double", [x_input(empty)]).as_numpy("y").shape == (0, 3)

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("packed", ["gzip", "deflate"])
    def test_compressed(
        self, client: triton.InferenceServerClient, packed: str, binary: bool
    ) -> None:
        """Compression both ways, in either container."""
        x = np.arange(30_000, dtype=np.float32).reshape(-1, 3)

        result = client.infer(
            "double",
            [x_input(x, binary=binary)],
            outputs=[y_output(binary=binary)],
            request_compression_algorithm=packed,
            response_compression_algorithm=packed,
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)

    def test_async_infer(self, client: triton.InferenceServerClient) -> None:
        """The client's own background requests."""
        waiting = [client.async_infer("double", [x_input()]) for _ in range(4)]

        for request in waiting:
            np.testing.assert_array_equal(request.get_result().as_numpy("y"), 2 * X)

    def test_refused(self, client: triton.InferenceServerClient) -> None:
        """The worker's refusal arrives with its message and code."""
        x = triton.InferInput("z", [2, 3], "FP32")
        x.set_data_from_numpy(X)

        with pytest.raises(InferenceServerException, match="takes x") as caught:
            client.infer("double", [x])
        assert caught.value.status() == "422"

    def test_deadline(self, client: triton.InferenceServerClient, doubler) -> None:
        """`timeout`, in microseconds, ends a request that takes longer."""
        doubler.hold_for_ever = True

        with pytest.raises(InferenceServerException) as caught:
            client.infer("double", [x_input()], timeout=50_000)
        assert caught.value.status() == "504"


class TestAio:
    async def test_calls(self, aio: triton_aio.InferenceServerClient) -> None:
        """The calls about server and model."""
        assert await aio.is_server_live()
        assert await aio.is_server_ready()
        assert await aio.is_model_ready("double")
        assert (await aio.get_server_metadata())["name"] == "nnz"
        assert (await aio.get_model_metadata("double"))["name"] == "double"
        assert (await aio.get_model_config("double"))["name"] == "double"
        assert (await aio.get_inference_statistics("double"))["model_stats"]
        assert len(await aio.get_model_repository_index()) == 1

    @pytest.mark.parametrize("binary", [True, False])
    async def test_infer(
        self, aio: triton_aio.InferenceServerClient, binary: bool
    ) -> None:
        """Both forms; the client always offers gzip, deflate and br."""
        x = np.arange(60_000, dtype=np.float32).reshape(-1, 3)

        result = await aio.infer(
            "double", [x_input(x, binary=binary)], outputs=[y_output(binary=binary)]
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)

    @pytest.mark.parametrize("packed", ["gzip", "deflate"])
    async def test_compressed(
        self, aio: triton_aio.InferenceServerClient, packed: str
    ) -> None:
        """Compression both ways."""
        result = await aio.infer(
            "double",
            [x_input()],
            request_compression_algorithm=packed,
            response_compression_algorithm=packed,
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
