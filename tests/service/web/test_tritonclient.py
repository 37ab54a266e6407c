"""The real ``tritonclient.http``, synchronous and asyncio, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton


@pytest.fixture
def client(server: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server) as client:
        yield client


def x_input(array: np.ndarray, binary: bool) -> triton.InferInput:
    found = triton.InferInput("x", list(array.shape), "FP32")
    found.set_data_from_numpy(array, binary_data=binary)
    return found


class TestInfer:
    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_every_form(
        self, client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
    ) -> None:
        """JSON and binary, each way, give the same numbers."""
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        wanted = triton.InferRequestedOutput("y", binary_data=binary_out)

        result = client.infer("double", [x_input(x, binary_in)], outputs=[wanted])

        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)
