from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.network_cases import close

from nnz_kernels import reference
from nnz_kernels.api import Kernels
from nnz_kernels.api.tensor import BINARY_KINDS, REDUCE_KINDS, BinaryKind, ReduceKind
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import ShapeError

NAN, INF = float("nan"), float("inf")
SHAPES = [(1, 1), (3, 7), (2, 5, 33), (3, 1, 4, 17)]


def values(*shape: int, seed: int = 0) -> HostArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def array(rows: Any) -> HostArray:
    return np.array(rows, np.float32)


def fresh(out: HostArray) -> HostArray:
    """Return the array after a look at its kind."""
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    return out


class TestSoftmax:
    def test_by_hand(self, kernels: Kernels[Any]) -> None:
        x = array([[0, np.log(3)], [1000, 1000]])

        close(kernels.softmax(x, 1), array([[0.25, 0.75], [0.5, 0.5]]), 1e-6)
        close(kernels.log_softmax(x, -1)[1], np.log(array([0.5, 0.5])), 1e-6)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_equals_reference(
        self, kernels: Kernels[Any], shape: tuple[int, ...]
    ) -> None:
        x = values(*shape) * 20

        for axis in range(-1, len(shape)):
            close(fresh(kernels.softmax(x, axis)), reference.softmax(x, axis), 1e-5)
            logarithm = fresh(kernels.log_softmax(x, axis))
            close(logarithm, reference.log_softmax(x, axis), 1e-5)

    def test_masked_and_not_numbers(self, kernels: Kernels[Any]) -> None:
        """Minus infinity masks; a NaN takes its row and no other."""
        x = array([[0, -INF, 0], [1, NAN, 2], [0, 0, -INF]])

        y = kernels.softmax(x, 1)

        close(y[[0, 2]], array([[0.5, 0, 0.5], [0.5, 0.5, 0]]), 1e-6)
        assert np.isnan(y[1]).all()

    def test_refuses_an_axis_that_is_not_there(self, kernels: Kernels[Any]) -> None:
        with pytest.raises(ShapeError, match="axis 2 is not in an array of 2 axes"):
            kernels.softmax(values(2, 2), 2)


class TestLayerNorm:
    def test_by_hand(self, kernels: Kernels[Any]) -> None:
        """Mean 2, variance 1."""
        x = array([[1, 3], [3, 1]])

        y = kernels.layer_norm(x, array([1, 10]), array([0, 5]), 0.0)

        close(y, array([[-1, 15], [1, -5]]), 1e-6)

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("axes", [1, 2])
    @pytest.mark.parametrize("shifted", [False, True])
    def test_equals_reference(
        self, kernels: Kernels[Any], shape: tuple[int, ...], axes: int, shifted: bool
    ) -> None:
        """Also where the mean is far larger than the spread."""
        x = values(*shape) + 100
        gamma = values(*shape[-axes:], seed=1)
        beta = gamma[::-1].copy() if shifted else None

        y = fresh(kernels.layer_norm(x, gamma, beta, 1e-5))

        close(y, reference.layer_norm(x, gamma, beta, 1e-5), 1e-3)

    def test_refuses_other_shapes(self, kernels: Kernels[Any]) -> None:
        with pytest.raises(ShapeError, match="gamma"):
            kernels.layer_norm(values(2, 3), values(2), None, 0.0)
        with pytest.raises(ShapeError, match="beta"):
            kernels.layer_norm(values(2, 3), values(3), values(2), 0.0)


class TestMatmul:
    def test_by_hand(self, kernels: Kernels[Any]) -> None:
        y = kernels.matmul(array([[1, 2], [3, 4]]), array([[1, 0], [10, 1]]))

        assert y.tolist() == [[21, 2], [43, 4]]

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            pytest.param((3, 17), (17, 5), id="matrices"),
            pytest.param((2, 3, 7, 33), (2, 3, 33, 13), id="batches"),
            pytest.param((2, 1, 7, 5), (3, 5, 2), id="broadcast"),
            pytest.param((5,), (5, 3), id="row"),
            pytest.param((2, 4, 5), (5,), id="column"),
            pytest.param((5,), (5,), id="row and column"),
            pytest.param((0, 4), (4, 3), id="no rows"),
            pytest.param((2, 0), (0, 3), id="nothing to add"),
            pytest.param((4, 9, 64), (64, 100), id="one right-hand side"),
            pytest.param((3, 65, 64), (3, 64, 128), id="whole vectors"),
            pytest.param((2, 70, 80), (2, 80, 49), id="parts of vectors"),
            pytest.param((1, 1, 300), (2, 300, 49), id="one row"),
        ],
    )
    def test_equals_reference(
        self, kernels: Kernels[Any], a: tuple[int, ...], b: tuple[int, ...]
    ) -> None:
        left, right = values(*a), values(*b, seed=1)

        y = fresh(kernels.matmul(left, right))

        close(y, reference.matmul(left, right), 1e-5)

    def test_nan_stays_in_its_row(self, kernels: Kernels[Any]) -> None:
        a, b = values(2, 3, 5), values(2, 5, 7)
        a[1, 2, 0] = NAN

        y = kernels.matmul(a, b)

        assert np.argwhere(np.isnan(y).all(axis=2)).tolist() == [[1, 2]]
        assert np.isnan(y).sum() == 7

    def test_takes_transposed_views(self, kernels: Kernels[Any]) -> None:
        x = values(2, 7, 5)

        y = fresh(kernels.matmul(x, x.swapaxes(1, 2)))

        close(y, np.einsum("bij,bkj->bik", x, x), 1e-5)

    def test_refuses_other_shapes(self, kernels: Kernels[Any]) -> None:
        with pytest.raises(ShapeError, match="inner sizes differ"):
            kernels.matmul(values(2, 3), values(2, 3))
        with pytest.raises(ShapeError, match="do not broadcast"):
            kernels.matmul(values(2, 4, 3), values(3, 3, 5))


class TestReduce:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("sum", [6, 0]), ("mean", [2, 0]), ("max", [3, 2]), ("min", [1, -2]),
            ("prod", [6, 0]), ("l1", [6, 4]), ("l2", [14**0.5, 8**0.5]),
            ("sum_square", [14, 8]), ("log_sum", [np.log(6), -INF]),
            ("log_sum_exp", [3.40760596, 2.14293163]),
        ],
    )  # fmt: skip
    def test_by_hand(
        self, kernels: Kernels[Any], kind: ReduceKind, expected: list[float]
    ) -> None:
        y = kernels.reduce(kind, array([[1, 2, 3], [-2, 0, 2]]), [1], False)

        close(y, array(expected), 1e-6)

    @pytest.mark.parametrize("kind", REDUCE_KINDS)
    @pytest.mark.parametrize("axes", [None, (0,), (-1,), (1, 0), ()])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_equals_reference(
        self,
        kernels: Kernels[Any],
        kind: ReduceKind,
        axes: tuple[int, ...] | None,
        keepdims: bool,
    ) -> None:
        x = np.abs(values(3, 5, 7))

        y = fresh(kernels.reduce(kind, x, axes, keepdims))

        expected = reference.reduce(kind, x, axes, keepdims)
        assert y.shape == expected.shape
        close(y, expected, 1e-4)

    @pytest.mark.parametrize("kind", REDUCE_KINDS)
    def test_nan_passes(self, kernels: Kernels[Any], kind: ReduceKind) -> None:
        y = kernels.reduce(kind, array([[1, NAN], [1, 2]]), [1], False)

        assert np.isnan(y).tolist() == [True, False]

    def test_refuses(self, kernels: Kernels[Any]) -> None:
        with pytest.raises(ValueError, match="no kind 'median'"):
            kernels.reduce("median", values(2), None, False)
        with pytest.raises(ShapeError, match="axes must differ"):
            kernels.reduce("sum", values(2, 2), [1, -1], False)
        with pytest.raises(ShapeError, match="max of an empty axis"):
            kernels.reduce("max", values(0, 2), [0], False)


class TestBinary:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("add", [3, 1]), ("sub", [-1, -3]), ("mul", [2, -2]), ("div", [0.5, -0.5]),
            ("pow", [1, 1]), ("min", [1, -1]), ("max", [2, 2]),
        ],
    )  # fmt: skip
    def test_by_hand(
        self, kernels: Kernels[Any], kind: BinaryKind, expected: list[float]
    ) -> None:
        y = kernels.binary(kind, array([1, -1]), array(2))

        assert y.tolist() == expected

    @pytest.mark.parametrize("kind", BINARY_KINDS)
    @pytest.mark.parametrize(
        ("a", "b"),
        [((3, 5), (3, 5)), ((2, 3, 5), (5,)), ((3, 1), (1, 4)), ((), (2, 2))],
    )
    def test_equals_reference(
        self,
        kernels: Kernels[Any],
        kind: BinaryKind,
        a: tuple[int, ...],
        b: tuple[int, ...],
    ) -> None:
        left = np.abs(np.asarray(values(*a), np.float32))
        right = np.asarray(values(*b, seed=1), np.float32)

        y = fresh(kernels.binary(kind, left, right))

        close(y, reference.binary(kind, left, right), 1e-5)

    @pytest.mark.parametrize("kind", BINARY_KINDS)
    def test_nan_passes(self, kernels: Kernels[Any], kind: BinaryKind) -> None:
        assert np.isnan(kernels.binary(kind, array([NAN, 2]), array([2, NAN]))).all()

    def test_refuses(self, kernels: Kernels[Any]) -> None:
        with pytest.raises(ValueError, match="no kind 'mod'"):
            kernels.binary("mod", values(2), values(2))
        with pytest.raises(ShapeError, match="do not broadcast"):
            kernels.binary("add", values(2), values(3))
