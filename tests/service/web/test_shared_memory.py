"""Tensors in shared memory, with the real ``tritonclient`` on both ends."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from fastapi import FastAPI
from service.web.doubler import running
from tritonclient.utils import InferenceServerException

from nnz_service.gateway import Limits, open_controls
from nnz_service.keys import KeyFile, Keyring, Scope
from nnz_service.web.guard import Guard

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SIZE = X.nbytes


@pytest.fixture(scope="module")
def lending(
    make_app: Callable[..., FastAPI], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server that takes shared memory."""
    home = tmp_path_factory.mktemp("home")
    controls = open_controls(home, shared_memory=True)
    with running(make_app(controls=controls)) as address:
        yield address


@pytest.fixture
def client(lending: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(lending) as client:
        yield client
        client.unregister_system_shared_memory()


def key(memory: Any) -> str:
    return str(memory._shm_key)


def x_in(region: str, size: int = SIZE, offset: int = 0) -> triton.InferInput:
    x = triton.InferInput("x", [2, 3], "FP32")
    return x.set_shared_memory(region, size, offset)


def y_in(region: str, size: int = SIZE, offset: int = 0) -> triton.InferRequestedOutput:
    y = triton.InferRequestedOutput("y")
    y.set_shared_memory(region, size, offset)
    return y


class TestLifecycle:
    def test_there_and_back(
        self, client: triton.InferenceServerClient, memory: Any
    ) -> None:
        """Register, put x in, compute, take y out, unregister: nothing on the wire."""
        shm.set_shared_memory_region(memory, [X], offset=16)
        client.register_system_shared_memory("r", key(memory), 56, offset=8)

        result = client.infer("double", [x_in("r", offset=8)], outputs=[y_in("r", 32)])

        output = result.get_output("y")
        assert output == {
            "name": "y",
            "datatype": "FP32",
            "shape": [2, 3],
            "parameters": {
                "shared_memory_region": "r",
                "shared_memory_offset": 0,
                "shared_memory_byte_size": SIZE,
                "binary_data_size": 0,
            },
        }
        y = shm.get_contents_as_numpy(memory, np.float32, [2, 3], offset=8)
        np.testing.assert_array_equal(y, 2 * X)
        assert client.get_system_shared_memory_status("r") == [
            {"name": "r", "key": key(memory), "offset": 8, "byte_size": 56}
        ]
        client.unregister_system_shared_memory("r")
        assert client.get_system_shared_memory_status() == []

    def test_one_way(self, client: triton.InferenceServerClient, memory: Any) -> None:
        """x from memory and y as bytes, and the other way round."""
        shm.set_shared_memory_region(memory, [X])
        client.register_system_shared_memory("r", key(memory), 64)
        x = triton.InferInput("x", [2, 3], "FP32")
        x.set_data_from_numpy(X + 1)

        bytes_out = client.infer("double", [x_in("r")])
        client.infer("double", [x], outputs=[y_in("r", offset=32)])

        np.testing.assert_array_equal(bytes_out.as_numpy("y"), 2 * X)
        y = shm.get_contents_as_numpy(memory, np.float32, [2, 3], offset=32)
        np.testing.assert_array_equal(y, 2 * X + 2)

    def test_a_large_tensor(self, client: triton.InferenceServerClient) -> None:
        """Copies of megabytes, beside the event loop."""
        x = np.arange(1_500_000, dtype=np.float32).reshape(-1, 3)
        large = shm.create_shared_memory_region(
            "l", f"nnz-{uuid.uuid4().hex}", 2 * x.nbytes
        )
        try:
            shm.set_shared_memory_region(large, [x])
            client.register_system_shared_memory("l", key(large), 2 * x.nbytes)
            sent = triton.InferInput("x", list(x.shape), "FP32")
            sent.set_shared_memory("l", x.nbytes)

            client.infer("double", [sent], outputs=[y_in("l", x.nbytes, x.nbytes)])

            y = shm.get_contents_as_numpy(large, np.float32, x.shape, x.nbytes)
            np.testing.assert_array_equal(y, 2 * x)
        finally:
            shm.destroy_shared_memory_region(large)

    def test_extension(self, client: triton.InferenceServerClient) -> None:
        extensions = client.get_server_metadata()["extensions"]

        assert "system_shared_memory" in extensions
        assert "cuda_shared_memory" not in extensions


class TestRefused:
    def test_twice(self, client: triton.InferenceServerClient, memory: Any) -> None:
        client.register_system_shared_memory("r", key(memory), 64)

        with pytest.raises(InferenceServerException, match="registered") as caught:
            client.register_system_shared_memory("r", key(memory), 64)
        assert caught.value.status() == "400"

    @pytest.mark.parametrize(
        ("name", "size", "code", "reason"),
        [
            ("../etc/passwd", 8, "400", "key"),
            ("nnz-not-there", 8, "422", "No such file"),
            (None, 65, "422", "64 bytes"),
            (None, 0, "400", "byte_size"),
        ],
    )
    def test_register(
        self,
        client: triton.InferenceServerClient,
        memory: Any,
        name: str | None,
        size: int,
        code: str,
        reason: str,
    ) -> None:
        with pytest.raises(InferenceServerException, match=reason) as caught:
            client.register_system_shared_memory("r", name or key(memory), size)
        assert caught.value.status() == code

    @pytest.mark.parametrize(
        ("x", "y", "code", "reason"),
        [
            (x_in("absent"), None, "404", "absent"),
            (x_in("r", offset=41), None, "422", "64 bytes"),
            (x_in("r", SIZE - 4), None, "400", "needs 24"),
            (x_in("r", -1), None, "400", "byte_size"),
            (x_in("r", offset=-8), None, "400", "offset"),
            (x_in("r"), y_in("absent"), "404", "absent"),
            (x_in("r"), y_in("r", SIZE - 1), "422", "24 bytes.* is 23"),
            (x_in("r"), y_in("r", SIZE, 48), "422", "64 bytes"),
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
        """Each says what is wrong, with its numbers."""
        client.register_system_shared_memory("r", key(memory), 64)

        with pytest.raises(InferenceServerException, match=reason) as caught:
            client.infer("double", [x], outputs=None if y is None else [y])
        assert caught.value.status() == code

    def test_truncated(self, client: triton.InferenceServerClient, memory: Any) -> None:
        """The object shrinks under the server: an error, and the server lives on."""
        shm.set_shared_memory_region(memory, [X])
        client.register_system_shared_memory("r", key(memory), 64)
        os.truncate(memory._mpsm_handle._fd, 8)

        for outputs in (None, [y_in("r")]):
            with pytest.raises(InferenceServerException, match="truncated") as caught:
                client.infer("double", [x_in("r")], outputs=outputs)
            assert caught.value.status() == "409"
        assert client.is_server_live()

    def test_only_for_infer(
        self, client: triton.InferenceServerClient, lending: str
    ) -> None:
        import httpx2

        tensor = {"name": "x", "shape": [3], "datatype": "FP32"}
        place = {"shared_memory_region": "r", "shared_memory_byte_size": 12}
        body = {
            "inputs": [tensor | {"parameters": place}], "parameters": {"matrix": "m"}
        }  # fmt: skip
        answer = httpx2.post(f"http://{lending}/v1/ops/spmv", json=body)

        assert answer.status_code == 422
        assert "infer alone" in answer.json()["error"]

    def test_larger_than_a_body_may_be(
        self, make_app: Callable[..., FastAPI], tmp_path: Path, memory: Any
    ) -> None:
        """Lent bytes are held like sent ones, so the same limit holds."""
        controls = open_controls(tmp_path, shared_memory=True)
        app = make_app(Limits(max_body=200), controls=controls)
        with running(app) as address, triton.InferenceServerClient(address) as small:
            small.register_system_shared_memory("r", key(memory), 64)
            with pytest.raises(InferenceServerException, match="limit") as caught:
                small.infer("double", [x_in("r")], outputs=[y_in("r")])
        assert caught.value.status() == "413"

    def test_larger_than_what_is_free(
        self, make_app: Callable[..., FastAPI], tmp_path: Path
    ) -> None:
        """Nor does the server hold more of them than of bodies."""
        controls = open_controls(tmp_path, shared_memory=True)
        app = make_app(Limits(max_inflight_bytes=3000), controls=controls)
        large = shm.create_shared_memory_region("l", f"nnz-{uuid.uuid4().hex}", 3600)
        try:
            with running(app) as address, triton.InferenceServerClient(address) as full:
                full.register_system_shared_memory("l", key(large), 3600)
                x = triton.InferInput("x", [300, 3], "FP32")
                with pytest.raises(InferenceServerException, match="3000") as caught:
                    full.infer("double", [x.set_shared_memory("l", 3600)])
        finally:
            shm.destroy_shared_memory_region(large)
        assert caught.value.status() == "413"


class TestCuda:
    def test_not_offered(self, client: triton.InferenceServerClient) -> None:
        """Nothing can be registered, so there is none and all can be forgotten."""
        with pytest.raises(InferenceServerException, match="CUDA") as caught:
            client.register_cuda_shared_memory("c", b"handle", 0, 8)
        assert caught.value.status() == "501"
        client.unregister_cuda_shared_memory("c")
        client.unregister_cuda_shared_memory()
        assert client.get_cuda_shared_memory_status() == []


class TestOff:
    def test_by_default(self, server: str) -> None:
        """An application that was not told to takes none and does not list it."""
        with triton.InferenceServerClient(server) as client:
            assert client.get_system_shared_memory_status() == []
            with pytest.raises(InferenceServerException, match="NNZ_SHARED") as caught:
                client.register_system_shared_memory("r", "k", 8)
            assert caught.value.status() == "501"
            with pytest.raises(InferenceServerException, match="takes none") as caught:
                client.infer("double", [x_in("r")])
            assert caught.value.status() == "422"


class TestKeys:
    def test_only_an_admin_names_a_region(
        self, make_app: Callable[..., FastAPI], tmp_path: Path, memory: Any
    ) -> None:
        """Any other could read and overwrite what somebody else lent."""
        keys = {}
        for scope in (Scope.ADMIN, Scope.INFER):
            _, secret = KeyFile(tmp_path).create(scope.value, frozenset({scope}))
            keys[scope] = {"Authorization": f"Bearer {secret}"}
        guard = Guard(Keyring(None, tmp_path))
        controls = open_controls(tmp_path, shared_memory=True)
        shm.set_shared_memory_region(memory, [X])
        with (
            running(make_app(guard=guard, controls=controls)) as address,
            triton.InferenceServerClient(address) as client,
        ):
            client.register_system_shared_memory(
                "r", key(memory), 64, headers=keys[Scope.ADMIN]
            )
            sent = triton.InferInput("x", [2, 3], "FP32").set_data_from_numpy(X)
            for x, y in ((x_in("r"), None), (sent, [y_in("r", offset=SIZE)])):
                with pytest.raises(InferenceServerException, match="scope admin"):
                    client.infer("double", [x], outputs=y, headers=keys[Scope.INFER])
                client.infer("double", [x], outputs=y, headers=keys[Scope.ADMIN])
            client.infer("double", [sent], headers=keys[Scope.INFER])
