"""Products over semirings and masked products, on every back-end that has them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.sparse_cases import SHAPES, bits, close, dense, matrix, numbers, of, same

from nnz_kernels.api.semirings import SEMIRINGS
from nnz_kernels.api.sparse import Semiring
from nnz_kernels.backends import Backend, load_semirings, load_sparse
from nnz_kernels.cpu import semirings
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import hosted

reference = load_semirings(Backend.REFERENCE)
INF = math.inf


@pytest.fixture(params=[Backend.REFERENCE, Backend.CPU, "cuda-emulated"])
def ops(request: pytest.FixtureRequest) -> Any:
    if request.param == "cuda-emulated":
        return hosted(request.getfixturevalue("emulated"))
    return load_semirings(request.param)


class TestByHand:
    """Against small integers."""

    A = of([[1, 2, 0], [0, 0, 4]])
    B = of([[5, 0], [3, 7], [0, -2]])

    def test_min_plus(self, ops: Any) -> None:
        """The shorter of 1 + 5 and 2 + 3, and paths that there is one of."""
        c = ops.semiring_product(self.A, self.B, "min_plus")

        assert (c.indptr.tolist(), c.indices.tolist()) == ([0, 2, 3], [0, 1, 1])
        assert c.data.tolist() == [5, 9, 2]

    def test_max_times(self, ops: Any) -> None:
        """The larger of 1 * 5 and 2 * 3."""
        c = ops.semiring_product(self.A, self.B, "max_times")

        assert dense(c).tolist() == [[6, 14], [0, -8]]

    def test_or_and(self, ops: Any) -> None:
        """A stored zero is false, and an entry like any other; infinity is true."""
        a = replace(of([[1, 2], [3, 0]]), data=np.array([0.0, INF, 0.0]))
        c = ops.semiring_product(a, of([[1], [1]]), "or_and")

        assert (c.indices.tolist(), c.data.tolist()) == ([0, 0], [1, 0])

    def test_a_mask(self, ops: Any) -> None:
        """Only entries that both have; the mask's values do not matter."""
        mask = replace(of([[1, 0], [1, 1]]), data=np.array([0.0, math.nan, -1]))
        c = ops.semiring_product(self.A, self.B, "plus_times", mask)

        assert (c.indptr.tolist(), c.indices.tolist()) == ([0, 1, 2], [0, 1])
        assert c.data.tolist() == [11, -8]

    def test_vectors(self, ops: Any) -> None:
        """An empty row gives the zero of the semiring."""
        a, x = of([[1, 2], [0, 0]]), np.array([5.0, 3.0])

        assert ops.semiring_spmv(a, x, "plus_times").tolist() == [11, 0]
        assert ops.semiring_spmv(a, x, "min_plus").tolist() == [5, INF]
        assert ops.semiring_spmv(a, x, "max_times").tolist() == [6, 0]
        assert ops.semiring_spmv(a, x * 0, "or_and").tolist() == [0, 0]

    def test_a_nan_is_passed_on(self, ops: Any) -> None:
        """Wherever it comes in the row."""
        for row in ([np.nan, 1.0, 2.0], [1.0, np.nan, 2.0], [1.0, 2.0, np.nan]):
            for semiring in ("min_plus", "max_times"):
                found = ops.semiring_spmv(of([row]), np.ones(3), semiring)
                assert np.isnan(found).all()

    def test_refusals(self, ops: Any) -> None:
        """What does not fit is named."""
        a, wrong = of([[1, 2]]), of([[1, 2]])
        b = of([[1], [1]])
        unknown: Any = "plus_plus"
        with pytest.raises(DTypeError, match="'plus_plus', but must be one of plus_"):
            ops.semiring_product(a, b, unknown)
        with pytest.raises(ShapeError, match=r"mask has shape \(1, 2\), but the prod"):
            ops.semiring_product(a, b, "or_and", wrong)
        with pytest.raises(DTypeError, match="min_plus needs an order, which complex"):
            ops.semiring_product(of([[1j]], complex), of([[1]], complex), "min_plus")
        with pytest.raises(ShapeError, match=r"must be float64 of shape \(2,\)"):
            ops.semiring_spmv(a, np.ones(3), "min_plus")


CASES = [(np.float32, np.int32), (np.float64, np.int32), (np.complex128, np.int32),
         (np.float64, np.int64)]  # fmt: skip


@pytest.mark.parametrize(("dtype", "index"), CASES)
@pytest.mark.parametrize("semiring", SEMIRINGS)
def test_the_reference_is_met(
    semiring: Semiring, dtype: Any, index: Any, emulated: Any
) -> None:
    """At odd shapes, with and without masks of any density."""
    if dtype == np.complex128 and semiring in ("min_plus", "max_times"):
        return
    others = load_semirings(Backend.CPU), hosted(emulated)
    for m, k in SHAPES:
        a, b = matrix((m, k), dtype, index), matrix((k, 37), dtype, index, seed=5)
        for density in (None, 0.02, 0.9):
            mask = None
            if density is not None:
                mask = matrix((m, 37), np.float32, index, density, seed=9)
            wanted = reference.semiring_product(a, b, semiring, mask)
            for ops in others:
                same(ops.semiring_product(a, b, semiring, mask), wanted)
        x = numbers(k, dtype)
        right = reference.semiring_spmv(a, x, semiring)
        for ops in others:
            close(ops.semiring_spmv(a, x, semiring), right)


def _full(shape: tuple[int, int], seed: int) -> Csr[Any]:
    return of(np.random.default_rng(seed).random(shape) + 0.1)


@pytest.mark.parametrize("semiring", SEMIRINGS)
def test_both_ways_have_the_bits_of_the_product(
    semiring: Semiring, emulated: Any
) -> None:
    """Few wanted entries go by dots, many by rows; both by any number of threads."""
    cpu: Any = load_semirings(Backend.CPU)
    there: Any = hosted(emulated)
    a, b = _full((60, 50), 1), _full((50, 70), 2)
    whole = cpu.semiring_product(a, b, semiring)
    for density in (0.002, 0.5):
        mask = matrix((60, 70), density=density, seed=3)
        rows = np.repeat(np.arange(60), np.diff(mask.indptr))
        found = [
            cpu.semiring_product(a, b, semiring, mask, threads=threads)
            for threads in (1, 2, 3)
        ]
        assert mask.nnz
        found.append(there.semiring_product(a, b, semiring, mask))
        assert len({tuple(bits(each)) for each in found}) == 1
        assert found[0].data.tobytes() == dense(whole)[rows, mask.indices].tobytes()


def test_dots_are_taken_where_they_are_fewer() -> None:
    """The second factor is transposed for few entries alone."""
    cpu, turned = load_sparse(Backend.CPU), []

    def turn(x: Csr[Any]) -> Csr[Any]:
        turned.append(x.shape)
        return cpu.transpose(x)

    a, b = matrix((60, 50), density=0.4), matrix((50, 70), density=0.4, seed=2)
    few, many = (matrix((60, 70), density=d, seed=3) for d in (0.002, 0.5))
    semirings.masked(a, b, "plus_times", many, turn, 1)
    assert turned == []
    semirings.masked(a, b, "plus_times", few, turn, 1)
    assert turned == [(50, 70)]


def test_a_device_takes_dots_where_they_are_fewer(emulated: Any) -> None:
    launches, found = emulated.device.launcher.launches, []
    a, b = _full((20, 50), 1), _full((50, 70), 2)
    for mask in (_full((20, 70), 3), of(np.eye(20, 70))):
        before = launches.get("masked_dots<double, int>", 0)
        hosted(emulated).semiring_product(a, b, "plus_times", mask)
        found.append(launches.get("masked_dots<double, int>", 0) - before)

    assert found == [0, 1]


def test_results_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of a result that is too wide for a dense row are numbered anew."""
    cpu = load_sparse(Backend.CPU)
    a, b, mask = matrix((33, 21)), matrix((21, 90), seed=2), matrix((33, 90), seed=3)
    wanted = cpu.semiring_product(a, b, "min_plus", mask)
    monkeypatch.setattr(semirings, "DENSE", 20)

    assert bits(cpu.semiring_product(a, b, "min_plus", mask)) == bits(wanted)
