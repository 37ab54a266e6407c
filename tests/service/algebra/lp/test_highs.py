"""HiGHS in a process of its own: answers, certificates, ends."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.algebra.lp.programs import INF, INFEASIBLE, UNBOUNDED, WYNDOR, program

from nnz_kernels.formats import Csr
from nnz_service.algebra.lp import highs, highs_process
from nnz_service.algebra.lp.highs import HighsSolve
from nnz_service.algebra.lp.model import LinearProgram, linear_program
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.outcome import LpOutcome
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import ServiceError, StorageFullError, TooLargeError


def solved(lp: LinearProgram, memory: int | None = None, **asked: Any) -> LpOutcome:
    solve = HighsSolve(lp, LpSettings(**asked), memory=memory)
    try:
        while (out := solve.step(0.05)) is None:
            assert solve.seconds < 60
        return out
    finally:
        solve.close()


def test_a_textbook_program() -> None:
    out = solved(WYNDOR)
    assert (out.status, out.method) == ("optimal", "highs")
    assert out.kkt is not None
    np.testing.assert_allclose(out.x, [2, 6])
    np.testing.assert_allclose(out.y, [0, -1.5, -1])
    assert out.kkt.objective == pytest.approx(36)


def test_certificates_are_checked() -> None:
    """The ray of HiGHS passes our own test."""
    out = solved(INFEASIBLE)
    assert out.status == "infeasible"
    assert out.ray is not None
    np.testing.assert_allclose(out.ray, [-1, 1])
    out = solved(UNBOUNDED)
    assert out.status == "unbounded"
    assert out.ray is not None


class TestWithoutVariables:
    @pytest.mark.parametrize("bounds", [([-1, 0], [1, INF]), ([], [])])
    def test_nothing_is_right(self, bounds: tuple[list[float], list[float]]) -> None:
        out = solved(program([[] for _ in bounds[0]], [], *bounds, offset=2.0))
        assert (out.status, out.x.size, out.y.size) == ("optimal", 0, len(bounds[0]))
        assert out.kkt is not None
        assert out.kkt.objective == 2

    @pytest.mark.parametrize("bounds", [([1, -1], [2, 1]), ([-3, -1], [-2, 1])])
    def test_nothing_is_wrong(self, bounds: tuple[list[float], list[float]]) -> None:
        out = solved(program([[], []], [], *bounds))
        assert out.status == "infeasible"
        assert out.ray is not None


class TestEntriesThatHighsLeavesOut:
    @pytest.mark.parametrize(
        ("cost", "low", "what"), [(1, 1, "Infeasible"), (-1, -INF, "Unbounded")]
    )
    def test_prove_nothing(self, cost: float, low: float, what: str) -> None:
        """Both have the solution x = 1e13."""
        out = solved(program([[1e-13]], [cost], [low], [1]))
        assert (out.status, out.ray) == ("numerical_error", None)
        assert what in out.message
        assert "leaves out 1 entries up to 1e-12" in out.message

    def test_do_not_hide_a_certificate(self) -> None:
        lp = program([[1e-13, 1], [0, 1]], [1, 1], [-INF, 3], [1, INF])
        out = solved(lp)
        assert out.status == "infeasible"
        assert out.ray is not None


def test_a_limit_of_iterations_is_told() -> None:
    rng = np.random.default_rng(3)
    dense = rng.random((30, 40))
    lp = program(dense.tolist(), [1.0] * 40, dense.sum(1).tolist(), [INF] * 30)
    assert solved(lp, max_iterations=1).status == "iteration_limit"


def test_a_limit_of_time_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "GRACE", 0.0)  # Python alone takes longer to start
    assert solved(WYNDOR, time_limit=1e-3).status == "time_limit"


def test_a_step_waits_no_longer_than_it_is_told_and_close_ends_all() -> None:
    solve = HighsSolve(WYNDOR, LpSettings())
    began = time.monotonic()
    assert solve.step(0.01) is None  # Python alone takes longer to start
    assert time.monotonic() - began < 2
    run = solve._run
    assert run is not None
    solve.close()
    assert run.process.returncode is not None
    assert not run.folder.exists()


def test_a_crash_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs_process, "_CHILD", "nnz_service.no_such_module")
    with pytest.raises(ServiceError, match=r"crashed \(code 1\); try the method pdhg"):
        solved(WYNDOR)


def test_too_little_memory_is_told_by_name() -> None:
    with pytest.raises(TooLargeError, match="NNZ_LP_BYTES"):
        solved(WYNDOR, memory=1 << 20)


def test_a_disk_without_room_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageFullError, match="No space left"):
        solved(WYNDOR)


@pytest.mark.slow
def test_a_program_that_does_not_fit_is_refused_by_name() -> None:
    """Three million rows do not fit into 400 MiB beside HiGHS."""
    n = 3_000_000
    a = Csr(np.arange(n + 1), np.zeros(n, np.int64), np.ones(n), (n, 1))
    wide = np.full(n, INF)
    lp = linear_program(a, np.ones(1), np.zeros(n), wide, np.zeros(1), np.ones(1))
    with pytest.raises(TooLargeError, match="more than the 419430400 bytes of memory"):
        solved(lp, memory=400 << 20)


@pytest.mark.slow
def test_netlib_optima(data_dir: Path) -> None:
    """Small programs of Netlib end where its list says."""
    optima = {"adlittle": 225494.96316, "kb2": -1749.9001299, "sc105": -52.202061212}
    for name, optimum in optima.items():
        out = solved(read_mps(data_dir / "lp" / "netlib" / f"{name}.mps.gz"))
        assert out.status == "optimal", (name, out.message)
        assert out.kkt is not None
        assert out.kkt.objective == pytest.approx(optimum, rel=1e-6)
