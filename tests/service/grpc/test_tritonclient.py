"""The real ``tritonclient.grpc``, synchronous, streaming and asyncio, unchanged."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from service.grpc.serving import SOON, Echo, Running
from service.web.doubler import Doubler
from tritonclient.utils import InferenceServerException

from nnz_service.servable import DATATYPES, datatype

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture
async def aio(server: Running) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def echo(serve) -> Iterator[triton.InferenceServerClient]:
    with (
        serve(worker=Echo()) as found,
        triton.InferenceServerClient(found.address) as client,
    ):
        yield client


def tensor(array: np.ndarray = X, name: str = "x") -> triton.InferInput:
    found = triton.InferInput(name, list(array.shape), datatype(array.dtype))
    found.set_data_from_numpy(array)
    return found


class TestServer:
    def test_health(self, client: triton.InferenceServerClient) -> None:
        """A server with a ready worker is live and ready."""
        assert client.is_server_live()
        assert client.is_server_ready()

    def test_not_ready(
        self, client: triton.InferenceServerClient, doubler: Doubler
    ) -> None:
        """Without its worker the server lives but is not ready."""
        doubler.ready = False

        assert client.is_server_live()
        assert not client.is_server_ready()

    def test_metadata(self, client: triton.InferenceServerClient) -> None:
        """Name and version; extensions only for what is there."""
        found = client.get_server_metadata(as_json=True)

        assert found["name"] == "nnz"
        assert "statistics" in found["extensions"]
        assert not any("shared_memory" in name for name in found["extensions"])

    def test_log_settings(self, client: triton.InferenceServerClient) -> None:
        """They can be read, sent back and changed; where the log goes is fixed."""
        held = client.get_log_settings(as_json=True)["settings"]
        asked = {name: next(iter(value.values()), None) for name, value in held.items()}

        assert set(held) == {
            "log_file", "log_info", "log_warning", "log_error", "log_verbose_level",
            "log_format",
        }  # fmt: skip
        client.update_log_settings(asked)
        client.update_log_settings({"log_verbose_level": 1})
        now = client.get_log_settings(as_json=True)["settings"]
        assert now["log_verbose_level"]["uint32_param"] == 1
        client.update_log_settings({"log_verbose_level": None})
        with pytest.raises(InferenceServerException, match="log_file"):
            client.update_log_settings({"log_file": "/tmp/log"})  # noqa: S108 - refused

    def test_trace_settings(self, client: triton.InferenceServerClient) -> None:
        """Tracing is off; None clears, which changes nothing; other levels fail."""
        found = client.get_trace_settings(as_json=True)["settings"]

        assert found["trace_level"]["value"] == ["OFF"]
        assert found["trace_rate"]["value"] == ["1000"]
        client.update_trace_settings(settings={"trace_level": None})
        client.update_trace_settings("double", {"trace_rate": "1000"})
        with pytest.raises(InferenceServerException, match="trace_level"):
            client.update_trace_settings("double", {"trace_level": ["TENSORS"]})
        with pytest.raises(InferenceServerException, match="absent"):
            client.get_trace_settings("absent")


class TestModel:
    @pytest.mark.parametrize("version", ["", "1"])
    def test_metadata(self, client: triton.InferenceServerClient, version: str) -> None:
        """Metadata and configuration say the same, with and without the batch axis."""
        metadata = client.get_model_metadata("double", version, as_json=True)
        config = client.get_model_config("double", version, as_json=True)["config"]

        assert client.is_model_ready("double", version)
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}
        ]
        assert config["max_batch_size"] == 8
        assert config["input"] == [
            {"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}
        ]
        assert "dynamic_batching" not in config

    def test_absent(self, client: triton.InferenceServerClient) -> None:
        """A model that is not there is not ready, and otherwise not found."""
        assert not client.is_model_ready("absent")
        for call in (client.get_model_metadata, client.get_model_config):
            with pytest.raises(InferenceServerException, match="absent") as caught:
                call("absent")
            assert caught.value.status() == "StatusCode.NOT_FOUND"

    @pytest.mark.parametrize("name", ["", "double"])
    def test_statistics(self, client: triton.InferenceServerClient, name: str) -> None:
        """Counters of one model or of all."""
        (row,) = client.get_inference_statistics(name).model_stats

        assert (row.name, row.version, row.inference_count) == ("double", "1", 2)
        assert row.inference_stats.HasField("queue")

    def test_index(self, client: triton.InferenceServerClient) -> None:
        """The index lists name, version, state and reason."""
        assert client.get_model_repository_index(as_json=True)["models"] == [
            {"name": "double", "version": "1", "state": "READY"}
        ]

    def test_load_what_is_not_stored(
        self, client: triton.InferenceServerClient
    ) -> None:
        """Only what is stored can be loaded, and no file can come with the call."""
        with pytest.raises(InferenceServerException) as absent:
            client.load_model("absent")
        with pytest.raises(InferenceServerException, match="PUT /v1/models") as given:
            client.load_model("double", config="{}", files={"file:1/m": b"x"})

        assert absent.value.status() == "StatusCode.NOT_FOUND"
        assert given.value.status() == "StatusCode.INVALID_ARGUMENT"

    def test_unload_what_is_not_stored(
        self, client: triton.InferenceServerClient
    ) -> None:
        with pytest.raises(InferenceServerException) as caught:
            client.unload_model("absent")

        assert caught.value.status() == "StatusCode.NOT_FOUND"


class TestInfer:
    def test_answer(self, client: triton.InferenceServerClient) -> None:
        """Numbers, id, version, and the outputs that were asked for."""
        outputs = [triton.InferRequestedOutput("y")]

        result = client.infer(
            "double", [tensor()], model_version="1", outputs=outputs, request_id="7"
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
        assert result.get_response().id == "7"
        assert result.get_response().model_version == "1"

    @pytest.mark.parametrize("name", sorted(DATATYPES))
    @pytest.mark.parametrize("shape", [(2, 3), (0, 3), ()])
    def test_every_datatype(
        self, echo: triton.InferenceServerClient, name: str, shape: tuple[int, ...]
    ) -> None:
        """What goes in comes out, in type, shape and every bit."""
        rng = np.random.default_rng(0)
        sent = rng.integers(0, 2 if name == "BOOL" else 100, shape)
        sent = np.asarray(sent).astype(DATATYPES[name])

        got = echo.infer("double", [tensor(sent, "a"), tensor(X, "b")]).as_numpy("a")

        assert got.dtype == sent.dtype
        np.testing.assert_array_equal(got, sent)

    @pytest.mark.parametrize("packed", ["gzip", "deflate"])
    def test_compressed(
        self, client: triton.InferenceServerClient, packed: str
    ) -> None:
        x = np.arange(30_000, dtype=np.float32).reshape(-1, 3)

        result = client.infer("double", [tensor(x)], compression_algorithm=packed)

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)

    def test_large(self, client: triton.InferenceServerClient) -> None:
        """Tensors of many megabytes go both ways."""
        x = np.arange(6 << 20, dtype=np.float32).reshape(-1, 3)

        np.testing.assert_array_equal(
            client.infer("double", [tensor(x)]).as_numpy("y"), 2 * x
        )

    def test_async_infer(self, client: triton.InferenceServerClient) -> None:
        """The client's own background requests."""
        found: queue.Queue[Any] = queue.Queue()
        for _ in range(8):
            client.async_infer(
                "double", [tensor()], lambda result, error: found.put((result, error))
            )

        for _ in range(8):
            result, error = found.get(timeout=SOON)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)

    def test_refused(self, client: triton.InferenceServerClient) -> None:
        """The worker's refusal arrives with its message and code."""
        with pytest.raises(InferenceServerException, match="takes x") as caught:
            client.infer("double", [tensor(name="z")])

        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"

    @pytest.mark.parametrize("sequence", [5, "five"])
    def test_sequences(
        self, client: triton.InferenceServerClient, sequence: int | str
    ) -> None:
        with pytest.raises(InferenceServerException, match="keeps state"):
            client.infer("double", [tensor()], sequence_id=sequence)

    def test_priority_and_own_parameters(
        self, client: triton.InferenceServerClient
    ) -> None:
        """They are accepted."""
        result = client.infer(
            "double", [tensor()], priority=1, parameters={"a": 1, "b": "c", "d": 0.5}
        )

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)

    def test_classification(self, client: triton.InferenceServerClient) -> None:
        output = triton.InferRequestedOutput("y", class_count=2)

        with pytest.raises(InferenceServerException, match="classification"):
            client.infer("double", [tensor()], outputs=[output])


class TestStream:
    def test_in_order(self, client: triton.InferenceServerClient) -> None:
        """
        Answers come in the order of the requests; one that fails is an error with its
        id, and the stream goes on.
        """
        found: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: found.put((result, error)))
        for number in range(100):
            model = "absent" if number == 50 else "double"
            x = tensor(X + number)
            client.async_stream_infer(model, [x], request_id=str(number))
        answers = [found.get(timeout=SOON) for _ in range(100)]
        client.stop_stream()

        for number, (result, error) in enumerate(answers):
            if number == 50:
                assert "absent" in str(error)
                continue
            assert error is None
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("y"), 2 * (X + number))

    def test_final_response(self, client: triton.InferenceServerClient) -> None:
        """Clients that wait for a last response are told that each one is."""
        found: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: found.put(result))
        client.async_stream_infer(
            "double", [tensor()], enable_empty_final_response=True
        )
        parameters = found.get(timeout=SOON).get_response().parameters
        client.stop_stream()

        assert parameters["triton_final_response"].bool_param

    def test_cancelled(
        self, client: triton.InferenceServerClient, doubler: Doubler
    ) -> None:
        """Who leaves a stream leaves no work behind."""
        doubler.hold_for_ever = True
        client.start_stream(lambda result, error: None)
        client.async_stream_infer("double", [tensor()])
        assert doubler.entered.wait(SOON)

        client.stop_stream(cancel_requests=True)

        assert doubler.cancelled.wait(SOON)


class TestAio:
    async def test_calls(self, aio: triton_aio.InferenceServerClient) -> None:
        """The calls about server and model."""
        assert await aio.is_server_live()
        assert await aio.is_server_ready()
        assert await aio.is_model_ready("double")
        assert (await aio.get_server_metadata()).name == "nnz"
        assert (await aio.get_model_metadata("double")).name == "double"
        assert (await aio.get_model_config("double")).config.name == "double"
        assert (await aio.get_inference_statistics("double")).model_stats
        assert len((await aio.get_model_repository_index()).models) == 1

    async def test_infer(self, aio: triton_aio.InferenceServerClient) -> None:
        result = await aio.infer("double", [tensor()], request_id="a")

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
        assert result.get_response().id == "a"

    async def test_stream(self, aio: triton_aio.InferenceServerClient) -> None:
        """An asyncio client's stream ends when its requests do."""

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(5):
                yield {
                    "model_name": "double",
                    "inputs": [tensor(X + number)],
                    "request_id": str(number),
                }

        seen = []
        async for result, error in aio.stream_infer(requests()):
            assert error is None
            seen.append(result.get_response().id)

        assert seen == ["0", "1", "2", "3", "4"]
