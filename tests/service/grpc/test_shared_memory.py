"""Tensors in shared memory over gRPC, with the real ``tritonclient`` on both ends."""

from __future__ import annotations

import functools
import os
import queue
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from service.grpc.conftest import Serve
from service.grpc.serving import SOON, Echo, Line, Running, line, refusal
from tritonclient.utils import InferenceServerException

from nnz_service.gateway import Limits
from nnz_service.grpc.protocol import messages as m

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SIZE = X.nbytes
INVALID, ABSENT = "INVALID_ARGUMENT", "NOT_FOUND"


@pytest.fixture(scope="module")
def lending(serve: Serve) -> Iterator[Running]:
    """A server that takes shared memory, over a worker that gives back what it gets."""
    with serve(worker=Echo(), lending=True) as found:
        yield found


@pytest.fixture
def client(lending: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(lending.address) as client:
        yield client
        client.unregister_system_shared_memory()


def key(memory: Any) -> str:
    return str(memory._shm_key)


def lent(
    region: str, size: int = SIZE, offset: int = 0, name: str = "x"
) -> triton.InferInput:
    found = triton.InferInput(name, [2, 3], "FP32")
    return found.set_shared_memory(region, size, offset)


def sent(array: np.ndarray = X, name: str = "x") -> triton.InferInput:
    found = triton.InferInput(name, list(array.shape), "FP32")
    return found.set_data_from_numpy(array)


def wanted(
    name: str, region: str, size: int = SIZE, offset: int = 0
) -> triton.InferRequestedOutput:
    found = triton.InferRequestedOutput(name)
    found.set_shared_memory(region, size, offset)
    return found


def refused(call: Callable[[], object], reason: str) -> str:
    """The code of a refusal, without what stands before it."""
    with pytest.raises(InferenceServerException, match=reason) as caught:
        call()
    return str(caught.value.status()).removeprefix("StatusCode.")


class TestLifecycle:
    def test_there_and_back(
        self, client: triton.InferenceServerClient, memory: Any
    ) -> None:
        """Register, put x in, compute, take y out, unregister: nothing on the wire."""
        shm.set_shared_memory_region(memory, [X], offset=16)
        client.register_system_shared_memory("r", key(memory), 56, offset=8)

        outputs = [wanted("x", "r", 32, offset=24)]
        result = client.infer("double", [lent("r", offset=8)], outputs=outputs)

        output = result.get_output("x")
        found = {
            name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in output.parameters.items()
        }
        assert found == {
            "shared_memory_region": "r",
            "shared_memory_offset": 24,
            "shared_memory_byte_size": SIZE,
        }
        assert list(output.shape) == [2, 3]
        assert list(result.get_response().raw_output_contents) == [b""]
        y = shm.get_contents_as_numpy(memory, np.float32, [2, 3], offset=32)
        np.testing.assert_array_equal(y, X)
        status = client.get_system_shared_memory_status("r", as_json=True)
        assert status["regions"] == {
            "r": {"name": "r", "key": key(memory), "offset": "8", "byte_size": "56"}
        }
        client.unregister_system_shared_memory("r")
        assert not client.get_system_shared_memory_status().regions

    def test_side_by_side(
        self, client: triton.InferenceServerClient, memory: Any
    ) -> None:
        """Of several tensors some lie in memory; the others keep their places."""
        shm.set_shared_memory_region(memory, [X])
        client.register_system_shared_memory("r", key(memory), 64)
        inputs = [sent(X + 1, "a"), lent("r", name="b"), sent(X + 3, "c")]
        outputs = [
            wanted("a", "r", offset=32),
            triton.InferRequestedOutput("b"),
            triton.InferRequestedOutput("c"),
        ]

        result = client.infer("double", inputs, outputs=outputs)

        a = shm.get_contents_as_numpy(memory, np.float32, [2, 3], offset=32)
        np.testing.assert_array_equal(a, X + 1)
        np.testing.assert_array_equal(result.as_numpy("b"), X)
        np.testing.assert_array_equal(result.as_numpy("c"), X + 3)

    def test_stream(self, client: triton.InferenceServerClient, memory: Any) -> None:
        """The same in a stream; what is refused ends only its own request."""
        shm.set_shared_memory_region(memory, [X])
        client.register_system_shared_memory("r", key(memory), 64)
        found: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: found.put((result, error)))
        for region in ("r", "absent", "r"):
            client.async_stream_infer(
                "double", [lent(region)], outputs=[wanted("x", "r", 32, 32)]
            )
        answers = [found.get(timeout=SOON) for _ in range(3)]
        client.stop_stream()

        assert [error is None for _, error in answers] == [True, False, True]
        assert "'absent'" in str(answers[1][1])
        y = shm.get_contents_as_numpy(memory, np.float32, [2, 3], offset=32)
        np.testing.assert_array_equal(y, X)

    def test_a_large_tensor(self, client: triton.InferenceServerClient) -> None:
        """Copies of megabytes, beside the event loop."""
        x = np.arange(1_500_000, dtype=np.float32).reshape(-1, 3)
        large = shm.create_shared_memory_region(
            "l", f"nnz-{uuid.uuid4().hex}", 2 * x.nbytes
        )
        try:
            shm.set_shared_memory_region(large, [x])
            client.register_system_shared_memory("l", key(large), 2 * x.nbytes)
            inside = triton.InferInput("x", list(x.shape), "FP32")
            inside.set_shared_memory("l", x.nbytes)
            outputs = [wanted("x", "l", x.nbytes, x.nbytes)]

            client.infer("double", [inside], outputs=outputs)

            y = shm.get_contents_as_numpy(large, np.float32, x.shape, x.nbytes)
            np.testing.assert_array_equal(y, x)
        finally:
            shm.destroy_shared_memory_region(large)

    def test_extension(self, client: triton.InferenceServerClient) -> None:
        extensions = client.get_server_metadata().extensions

        assert "system_shared_memory" in extensions
        assert "cuda_shared_memory" not in extensions


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "size", "reason"),
        [
            ("../etc/passwd", 8, "key"),
            ("nnz-not-there", 8, "No such file"),
            (None, 65, "64 bytes"),
            (None, 0, "byte_size"),
        ],
    )
    def test_register(
        self,
        client: triton.InferenceServerClient,
        memory: Any,
        name: str | None,
        size: int,
        reason: str,
    ) -> None:
        place = "r", name or key(memory), size

        code = refused(lambda: client.register_system_shared_memory(*place), reason)

        assert code == INVALID
        assert not client.get_system_shared_memory_status().regions

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_of_another_user(
        self, client: triton.InferenceServerClient, memory: Any
    ) -> None:
        os.fchown(memory._mpsm_handle._fd, 12345, -1)
        place = "r", key(memory), 64

        code = refused(
            lambda: client.register_system_shared_memory(*place), "user 12345"
        )
        assert code == INVALID

    def test_twice(self, client: triton.InferenceServerClient, memory: Any) -> None:
        place = "r", key(memory), 64
        client.register_system_shared_memory(*place)

        again = refused(lambda: client.register_system_shared_memory(*place), "alread")

        assert again == INVALID

    def test_status(self, client: triton.InferenceServerClient) -> None:
        code = refused(lambda: client.get_system_shared_memory_status("q"), "'q'")

        assert code == ABSENT

    @pytest.mark.parametrize(
        ("x", "y", "code", "reason"),
        [
            (lent("absent"), None, ABSENT, "absent"),
            (lent("r", offset=41), None, INVALID, "64 bytes"),
            (lent("r", SIZE - 4), None, INVALID, "needs 24"),
            (lent("r", -1), None, INVALID, "byte_size"),
            (lent("r", offset=-8), None, INVALID, "offset"),
            (lent("r"), wanted("x", "absent"), ABSENT, "absent"),
            (lent("r"), wanted("x", "r", SIZE - 1), INVALID, "24 bytes.* is 23"),
            (lent("r"), wanted("x", "r", SIZE, 48), INVALID, "64 bytes"),
        ],
    )
    def test_infer(
        self,
        client: triton.InferenceServerClient,
        memory: Any,
        x: triton.InferInput,
        y: triton.InferRequestedOutput | None,
        code: str,
        reason: str,
    ) -> None:
        """Each says what is wrong, with its numbers, as over HTTP."""
        client.register_system_shared_memory("r", key(memory), 64)
        outputs = None if y is None else [y]

        found = refused(lambda: client.infer("double", [x], outputs=outputs), reason)

        assert found == code

    def test_truncated(self, client: triton.InferenceServerClient, memory: Any) -> None:
        """The object shrinks under the server: an error, and the server lives on."""
        shm.set_shared_memory_region(memory, [X])
        client.register_system_shared_memory("r", key(memory), 64)
        os.truncate(memory._mpsm_handle._fd, 8)

        for inputs, outputs in (
            ([lent("r")], None),
            ([sent()], [wanted("x", "r")]),
        ):
            code = refused(
                lambda i=inputs, o=outputs: client.infer("double", i, outputs=o),
                "truncated",
            )
            assert code == "FAILED_PRECONDITION"
        assert client.is_server_live()

    def test_twice_sent(self, lending: Running) -> None:
        """Numbers and a place for the same input, and bytes that belong to none."""
        request = m.ModelInferRequest(model_name="double")
        x = request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
        x.parameters["shared_memory_region"].string_param = "r"
        x.parameters["shared_memory_byte_size"].int64_param = SIZE
        with_bytes = m.ModelInferRequest()
        with_bytes.CopyFrom(request)
        with_bytes.raw_input_contents.append(X.tobytes())
        x.contents.fp32_contents.extend([1.0] * 6)

        with line(lending.address) as call:
            assert "'contents' and shared" in told(call, request)
            assert "1 entries for 0 inputs outside shared" in told(call, with_bytes)

    def test_larger_than_a_message_may_be(self, serve: Serve, memory: Any) -> None:
        """Lent bytes are held like sent ones, so the same limits hold."""
        for limits in (Limits(max_body=150), Limits(max_inflight_bytes=150)):
            with (
                serve(limits, worker=Echo(), lending=True) as found,
                triton.InferenceServerClient(found.address) as small,
            ):
                small.unregister_system_shared_memory()
                small.register_system_shared_memory("r", key(memory), 64)
                x, y = [lent("r")], [wanted("x", "r")]
                code = refused(
                    lambda c=small, x=x, y=y: c.infer("double", x, outputs=y),
                    "NNZ_MAX_BODY|NNZ_MAX_INFLIGHT_BYTES",
                )
                assert found.admission.used_bytes == 0
                small.unregister_system_shared_memory()
            assert code == "RESOURCE_EXHAUSTED"


def told(call: Line, request: m.ModelInferRequest) -> str:
    return str(refusal(lambda: call("ModelInfer", request)).details())


class TestCuda:
    def test_not_offered(self, client: triton.InferenceServerClient) -> None:
        """Nothing can be registered, so there is none and all can be forgotten."""
        register = client.register_cuda_shared_memory

        assert refused(lambda: register("c", b"", 0, 8), "no CUDA") == "UNIMPLEMENTED"
        client.unregister_cuda_shared_memory("c")
        client.unregister_cuda_shared_memory()
        assert not client.get_cuda_shared_memory_status().regions


class TestOff:
    def test_by_default(self, server: Running) -> None:
        """A server that was not told to takes none and does not list it."""
        with triton.InferenceServerClient(server.address) as client:
            assert not client.get_system_shared_memory_status().regions
            extensions = client.get_server_metadata().extensions
            assert not any("shared_memory" in name for name in extensions)
            register = client.register_system_shared_memory
            forget = client.unregister_system_shared_memory
            for call in (lambda: register("r", "k", 8), forget):
                assert refused(call, "NNZ_SHARED") == "UNIMPLEMENTED"
            for x, y in ((lent("r"), None), (sent(), [wanted("y", "r")])):
                infer = functools.partial(client.infer, "double", [x], outputs=y)
                assert refused(infer, "takes none") == INVALID


class TestKeys:
    def test_only_an_admin_registers(self, serve: Serve, memory: Any) -> None:
        """Without a key nothing is said of regions."""
        with (
            serve(key="sesame", lending=True) as found,
            triton.InferenceServerClient(found.address) as client,
        ):
            register = client.register_system_shared_memory
            code = refused(lambda: register("r", key(memory), 8), "key")
            admin = {"authorization": "Bearer sesame"}
            register("r", key(memory), 8, headers=admin)
            client.unregister_system_shared_memory("r", headers=admin)
        assert code == "UNAUTHENTICATED"
