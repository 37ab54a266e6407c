"""Arguments come out of a frame as they went in."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba import types

from nnz_kernels.cpu._frame import reader, sealed

SIGNATURE = (
    types.float32[::1], types.int64, types.int32[:, ::1], types.float32, types.boolean,
    types.uint16[::1], types.float32[:, :, ::1], types.int64[::1],
)  # fmt: skip

_read = reader(SIGNATURE)


@numba.njit
def _write_down(frame):
    """Write all arguments into the first one."""
    out, number, table, value, flag, small, cube, empty = _read(frame)
    out[0] = number
    out[1] = value
    out[2] = 1.0 if flag else 0.0
    out[3] = table[1, 2]
    out[4] = small[1]
    out[5] = cube[1, 2, 3]
    out[6] = table.size + small.size + cube.size + empty.size + cube.shape[1]


def arguments(out: object) -> tuple[object, ...]:
    return (
        out, -7, np.arange(6, dtype=np.int32).reshape(2, 3), np.float32(-0.1), True,
        np.array([1, 65535], np.uint16),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.empty(0, np.int64),
    )  # fmt: skip


def test_every_kind_of_argument() -> None:
    out = np.zeros(8, np.float32)

    sealed(_write_down, SIGNATURE, *arguments(out))()

    expected = [-7, np.float32(-0.1), 1, 5, 65535, 23, 6 + 2 + 24 + 3, 0]
    np.testing.assert_array_equal(out, np.array(expected, np.float32))


def test_infinity_and_nan_keep_their_bits() -> None:
    out = np.zeros(8, np.float32)
    for value in (np.inf, -np.inf, np.nan, 1e-45):
        given = list(arguments(out))
        given[3] = value

        sealed(_write_down, SIGNATURE, *given)()

        assert out[1].tobytes() == np.float32(value).tobytes()


def test_arrays_live_as_long_as_the_call() -> None:
    out = np.zeros(8, np.float32)
    call = sealed(_write_down, SIGNATURE, *arguments(out))
    for _ in range(50):
        np.full(6, 99, np.int32)
        np.full(24, 99.0, np.float32)

    call()

    assert (out[3], out[5]) == (5, 23)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(np.zeros(8), id="type"),
        pytest.param(np.zeros((2, 4), np.float32), id="axes"),
        pytest.param(np.zeros(16, np.float32)[::2], id="gaps"),
    ],
)
def test_another_array_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="wanted 1-D float32 in C order, got"):
        sealed(_write_down, SIGNATURE, *arguments(wrong))
