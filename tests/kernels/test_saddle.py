"""The iterations of linear programming: by hand, against the reference, in pieces."""

from __future__ import annotations

import gc
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from nnz_kernels import cpu, reference
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.cpu import _runtime
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.hosted import HostedSaddle
from nnz_kernels.saddle import SaddleProblem, SaddleState


@pytest.fixture(params=["reference", "cpu", "cuda-emulated"])
def kernels(request: pytest.FixtureRequest) -> Any:
    if request.param == "cuda-emulated":
        return HostedSaddle(request.getfixturevalue("emulated"))
    return {"reference": reference, "cpu": cpu}[request.param]


def problem(rows: int, columns: int, density: float = 0.3) -> SaddleProblem[Any]:
    rng = np.random.default_rng(rows * columns)
    a = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < density)
    low = rng.standard_normal(rows)
    low[::3] = -np.inf
    high = np.where(np.isfinite(low), low, 0) + rng.random(rows)
    high[1::3] = np.inf
    upper = rng.random(columns)
    upper[::2] = np.inf
    lower = np.where(rng.random(columns) < 0.5, -np.inf, -1.0)
    return SaddleProblem(
        csr_from_dense(a), csr_from_dense(np.ascontiguousarray(a.T)),
        rng.standard_normal(columns), low, high, lower, upper,
    )  # fmt: skip


def state(rows: int, columns: int) -> SaddleState[Any]:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(columns), rng.standard_normal(rows)
    sizes = (columns, rows, columns, columns, rows, columns)
    return SaddleState(x, y, x.copy(), y.copy(), *(np.zeros(n) for n in sizes))


def test_one_iteration_by_hand(kernels: Any) -> None:
    """min x with 2 x >= 3 and 0 <= x <= 5, from x = 1, y = 2, tau 0.5, sigma 0.25."""
    a = csr_from_dense(np.array([[2.0]]))
    one = {"c": [1.0], "lc": [3.0], "uc": [np.inf], "lv": [0.0], "uv": [5.0]}
    lp = SaddleProblem(a, a, **{name: np.array(v) for name, v in one.items()})
    at = SaddleState(*(np.zeros(1) for _ in range(10)))
    at.x[:] = at.x0[:] = 1
    at.y[:] = at.y0[:] = 2

    kernels.halpern_pdhg(lp, at, 0.5, 0.25, 0, 1)

    # t = 1 - 0.5 (1 - 4) = 2.5 = xh, xb = 4; q = 8 - 8 = 0, yh = 0.25 (0 + 3) = 0.75
    assert (at.xh[0], at.xb[0], at.r[0], at.dx[0]) == (2.5, 4, 0, -3)
    assert (at.yh[0], at.dy[0]) == (0.75, 2.5)
    assert (at.x[0], at.y[0]) == (2.5, 0.75)


SHAPES = pytest.mark.parametrize("shape", [(1, 1), (7, 13), (33, 5), (40, 61)])


@pytest.mark.parametrize("threads", [1, 2])
@SHAPES
def test_twins_agree_in_every_bit(
    shape: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_runtime, "GRAIN", 1)  # small problems get threads, too
    lp, one, other = problem(*shape), state(*shape), state(*shape)

    reference.halpern_pdhg(lp, one, 0.3, 0.2, 4, 7)
    cpu.halpern_pdhg(lp, other, 0.3, 0.2, 4, 7, threads=threads)

    for field in fields(one):
        name = field.name
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@SHAPES
def test_a_device_has_the_same_bits(
    shape: tuple[int, int], emulated: CudaKernels
) -> None:
    """A block adds a row in its stored order, too."""
    lp, one, other = problem(*shape), state(*shape), state(*shape)

    reference.halpern_pdhg(lp, one, 0.3, 0.2, 4, 7)
    HostedSaddle(emulated).halpern_pdhg(lp, other, 0.3, 0.2, 4, 7)

    for field in fields(one):
        name = field.name
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def test_a_device_keeps_its_launches(emulated: CudaKernels) -> None:
    """They are recorded, follow the steps, and go with the state they were made for."""
    lp, one, other = problem(9, 14), state(9, 14), state(9, 14)
    hosted = HostedSaddle(emulated)
    for done in (0, 3, 6):
        reference.halpern_pdhg(lp, one, 0.3 + done, 0.2, done, 3)
        hosted.halpern_pdhg(lp, other, 0.3 + done, 0.2, done, 3)
    kept = len(emulated._runs)

    np.testing.assert_array_equal(one.x, other.x)
    assert all(run.replay for runs in emulated._runs.values() for run in runs.values())
    del hosted
    gc.collect()
    assert len(emulated._runs) == kept - 1


def test_calls_may_be_divided(kernels: Any) -> None:
    lp, one, other = problem(9, 14), state(9, 14), state(9, 14)

    kernels.halpern_pdhg(lp, one, 0.3, 0.2, 0, 6)
    kernels.halpern_pdhg(lp, other, 0.3, 0.2, 0, 1)
    kernels.halpern_pdhg(lp, other, 0.3, 0.2, 1, 5)

    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.yh, other.yh)


def test_wide_indices_are_compiled_too() -> None:
    lp, one, other = problem(9, 14), state(9, 14), state(9, 14)
    wide = [
        replace(m, indptr=m.indptr.astype("i8"), indices=m.indices.astype("i8"))
        for m in (lp.a, lp.at)
    ]

    cpu.halpern_pdhg(lp, one, 0.3, 0.2, 0, 3)
    cpu.halpern_pdhg(replace(lp, a=wide[0], at=wide[1]), other, 0.3, 0.2, 0, 3)

    np.testing.assert_array_equal(one.x, other.x)


def test_what_does_not_fit_is_refused(kernels: Any) -> None:
    lp, at = problem(4, 6), state(4, 6)
    with pytest.raises(ShapeError, match="transpose"):
        kernels.halpern_pdhg(replace(lp, at=lp.a), at, 1.0, 1.0, 0, 1)
    with pytest.raises(ShapeError, match="y0 has shape"):
        kernels.halpern_pdhg(lp, replace(at, y0=np.zeros(5)), 1.0, 1.0, 0, 1)
    single = replace(lp, lc=lp.lc.astype("f4"))
    with pytest.raises(DTypeError, match="lc is float32"):
        kernels.halpern_pdhg(single, at, 1.0, 1.0, 0, 1)
