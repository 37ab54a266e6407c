"""Factorisations that stay in the worker."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from service.processes import until

from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.krylov import Done, Progress, Solve
from nnz_service.algebra.krylov.errand import Errand, Unwanted
from nnz_service.algebra.krylov.lu import LuFactors, factorize
from nnz_service.algebra.krylov.method import Ended
from nnz_service.algebra.krylov.preconditioners import prepare
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError
from nnz_service.solving import SolveSettings
from nnz_service.worker.factor_job import FactorJob
from nnz_service.worker.factors import FACTORS, FactorCache
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.solvers import SOLVERS, Preparation, SolveJob


def operator(n: int, scale: float = 1.0) -> MatrixOperator:
    a = scipy.sparse.diags_array([-1.0, 4, -1], offsets=[-1, 0, 1], shape=(n, n))
    return MatrixOperator(csr_from_scipy((scale * a).tocsr()), threads=1)


def factors(n: int) -> LuFactors:
    return factorize(operator(n))


class TestCache:
    def test_made_once(self) -> None:
        cache, made = FactorCache(), factors(9)

        assert cache.get("m-1", lambda _: made) is made
        assert cache.get("m-1", lambda _: pytest.fail("made again")) is made
        assert cache.nbytes == made.nbytes > 9 * 12

    def test_least_recently_used_goes_first(self) -> None:
        """Within the budget, and what is evicted is made again."""
        cache = FactorCache(2 * factors(9).nbytes)
        for key in ("a", "b"):
            cache.get(key, lambda _: factors(9))
        cache.get("a", lambda _: pytest.fail("made again"))

        cache.get("c", lambda _: factors(9))

        assert [cache.holds(key) for key in ("a", "b", "c")] == [True, False, True]
        assert cache.get("b", lambda _: factors(9)).entries > 0

    def test_too_large_to_keep(self) -> None:
        cache = FactorCache(100)

        assert cache.get("a", lambda _: factors(9)).entries > 0
        assert (cache.holds("a"), cache.nbytes) == (False, 0)

    def test_a_failure_is_not_kept(self) -> None:
        cache = FactorCache()

        def singular(_: Errand) -> LuFactors:
            raise Ended("singular", "no pivot")

        with pytest.raises(Ended):
            cache.get("a", singular)
        assert cache.get("a", lambda _: factors(5)).entries > 0

    def test_two_who_want_the_same(self) -> None:
        """The second waits for what the first makes."""
        cache, gate, began = FactorCache(), threading.Event(), threading.Event()
        made: list[LuFactors] = []

        def slow(_: Errand) -> LuFactors:
            began.set()
            assert gate.wait(30)
            return factors(7)

        def first() -> None:
            made.append(cache.get("a", slow))

        def second() -> None:
            made.append(cache.get("a", lambda _: pytest.fail("made twice")))

        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        threads[0].start()
        assert began.wait(30)
        threads[1].start()
        gate.set()
        for thread in threads:
            thread.join()

        assert made[0] is made[1]


class TestLeaving:
    """Who wants factors may leave while they are made."""

    def test_they_are_made_for_who_still_waits_and_charged_to_them(self) -> None:
        cache, left = FactorCache(), threading.Event()
        first, second = Errand(lambda: not left.is_set()), Errand()
        found: list[LuFactors] = []

        def make(shared: Errand) -> LuFactors:
            with shared.at_work():
                other.start()
                until(lambda: len(cache._making["a"].errands) == 2)
                left.set()
                assert (first.computing, second.computing) == (True, False)
                assert shared.wanted()
                assert (first.computing, second.computing) == (False, True)
            return factors(7)

        def wait() -> None:
            found.append(cache.get("a", lambda _: pytest.fail("made twice"), second))

        other = threading.Thread(target=wait)
        made = cache.get("a", make, first)
        other.join()

        assert found == [made]
        assert not first.computing
        assert not second.computing
        assert min(first.seconds, second.seconds) > 0

    def test_who_comes_as_they_are_given_up_makes_them(self) -> None:
        cache, left = FactorCache(), threading.Event()
        found: list[LuFactors] = []

        def make(shared: Errand) -> LuFactors:
            left.set()
            assert not shared.wanted()  # and then somebody comes
            other.start()
            until(lambda: len(cache._making["a"].errands) == 2)
            raise Unwanted

        other = threading.Thread(
            target=lambda: found.append(cache.get("a", lambda _: factors(7)))
        )
        with pytest.raises(Unwanted):
            cache.get("a", make, Errand(lambda: not left.is_set()))
        other.join()

        assert cache.holds("a")
        assert found[0].entries > 0

    def test_a_closed_job_gives_them_up(self) -> None:
        """A factorisation, and a solve whose time is over or that was cancelled."""
        began, asked = threading.Semaphore(0), threading.Semaphore(0)

        class Held(FactorCache):
            def get(self, key: str, make: Any, errand: Errand | None = None) -> Any:
                assert errand is not None
                began.release()
                until(lambda: not errand.wanted())
                asked.release()
                raise Unwanted

        a, b = operator(9), np.ones(9)
        job = FactorJob(Held(), "m", a)
        job.close()
        preparation = Preparation(Held(), "m")
        settings = SolveSettings(method="direct", time_limit=0.1)
        late = Solve(a, b, settings=settings, prepare=preparation)
        until(lambda: isinstance(late.make_ready(0.01), Done))
        closed = SolveJob(
            Solve(a, b, settings=SolveSettings(method="direct"), prepare=preparation),
            preparation,
        )
        assert closed.outside
        assert not closed.step(0.01)
        closed.close()

        for _ in range(3):
            assert asked.acquire(timeout=10)

    def test_a_direct_solve_goes_on_without_waiting_for_factors(self) -> None:
        """They are made again after a restart, which must not hold up a cancel."""
        a, b = operator(30), np.ones(30)
        settings = SolveSettings(method="direct", rtol=1e-30)
        solve = Solve(a, b, settings=settings)
        solve.make_ready(30)
        solve.step(iterations=1)
        state, gate = solve.state(), threading.Event()

        def slow(*asked: Any) -> Any:
            assert gate.wait(30)
            return prepare(*asked)

        again = Solve.restore(a, state, prepare=slow)
        assert again.progress().iterations == 1
        assert isinstance(again.make_ready(0.01), Progress)
        gate.set()
        again.make_ready(30)
        done, whole = again.step(), solve.step()

        assert isinstance(done, Done)
        assert isinstance(whole, Done)
        assert done.x.tobytes() == whole.x.tobytes()
        assert done.status == whole.status


class TestJob:
    def run(self, params: dict[str, Any], a: MatrixOperator) -> tuple[Any, Any]:
        servable = MatrixServable(a)
        inputs = {"b": np.ones(a.shape[0])}
        solver = SOLVERS["solve"](params, inputs, lambda _: servable, None)
        while not solver.step(0.05):
            assert solver.progress()["phase"] in ("prepare", "iterate")
        return solver.result()

    def test_the_second_solve_finds_the_factors(self) -> None:
        """A matrix is factored once; both answers are right."""
        a = operator(50)
        params = {"matrix": "m-test-factors", "method": "direct"}

        first, x = self.run(params, a)
        second, again = self.run(params, a)

        assert (first["status"], second["status"]) == ("converged", "converged")
        assert (first["factors"]["reused"], second["factors"]["reused"]) == (
            False, True,
        )  # fmt: skip
        assert first["factors"]["bytes"] > 0
        np.testing.assert_allclose(a.spmv(x["x"]), 1)
        assert x["x"].tobytes() == again["x"].tobytes()
        assert FACTORS.holds("m-test-factors")

    def test_other_methods_keep_nothing(self) -> None:
        result, _ = self.run({"matrix": "m-test-none"}, operator(20))

        assert "factors" not in result
        assert not FACTORS.holds("m-test-none")

    def test_a_checkpoint_of_an_earlier_version(self) -> None:
        """It cannot be read, so the work begins anew instead of failing."""
        servable = MatrixServable(operator(20))
        old = {"x": np.zeros(20), "r": np.zeros(20), "rho": np.array(1.0)}

        solver = SOLVERS["cg"](
            {"matrix": "m"}, {"b": np.ones(20)}, lambda _: servable, old
        )

        while not solver.step(60):
            assert solver.progress()["phase"] in ("prepare", "iterate")
        assert solver.result()[0]["status"] == "converged"

    def test_no_right_hand_side(self) -> None:
        servable = MatrixServable(operator(20))

        with pytest.raises(InvalidInputError, match="needs the input b"):
            SOLVERS["solve"]({"matrix": "m"}, {}, lambda _: servable, None)

    def test_preparation_is_told_apart_by_matrix(self) -> None:
        """Factors of one matrix never serve another."""
        cache = FactorCache()
        one = Preparation(cache, "m-1")("none", operator(9), "direct", Errand())
        two = Preparation(cache, "m-2")("none", operator(9, 2.0), "direct", Errand())

        b = np.ones((9, 1))
        np.testing.assert_allclose(one.apply(b), 2 * two.apply(b))


class TestLarge:
    """Matrices whose factors a process apart makes."""

    def test_the_same_factors(self) -> None:
        rng = np.random.default_rng(5)
        dense = rng.integers(-3, 4, (23, 23)) + 9.0 * np.eye(23)[rng.permutation(23)]
        a = MatrixOperator(csr_from_scipy(scipy.sparse.csr_array(dense)), threads=1)
        block = rng.standard_normal((23, 3))

        here, apart = factorize(a), factorize(a, limit=1 << 30)

        # SuperLU also counts what its blocks are filled up with
        assert here.entries - 23 <= apart.entries <= here.entries
        np.testing.assert_allclose(dense @ apart.apply(block), block, atol=1e-10)
        np.testing.assert_allclose(apart.apply(block), here.apply(block), rtol=1e-9)

    def test_a_singular_one(self) -> None:
        ones = csr_from_scipy(scipy.sparse.csr_array(np.ones((2, 2))))

        with pytest.raises(Ended, match="singular") as caught:
            factorize(MatrixOperator(ones), limit=1 << 30)
        assert caught.value.status == "singular"

    def test_too_much_memory_is_refused(self) -> None:
        """A dense matrix of 200 rows does not fit 100 kB, and the worker goes on."""
        dense = np.random.default_rng(0).random((200, 200))
        a = MatrixOperator(csr_from_scipy(scipy.sparse.csr_array(dense)))

        with pytest.raises(Ended, match="more than 100000 bytes") as caught:
            factorize(a, limit=100_000)
        assert caught.value.status == "breakdown"
        assert "use an iterative method" in caught.value.message
