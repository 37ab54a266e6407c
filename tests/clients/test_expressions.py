"""Expressions as the requests that they become; nothing is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnz._expressions import Expression, kept_view
from nnz._selections import both
from nnz._steps import steps_of

A = Expression("m-a", (3, 4), np.dtype("f8"))
SQUARE = Expression("m-s", (4, 4), np.dtype("f8"))
COMPLEX = Expression("m-c", (3, 4), np.dtype("c16"))


def written(*wanted: Any) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    return steps_of([kept_view(one) for one in wanted], [None] * len(wanted))


def ops(*wanted: Any) -> list[str]:
    return [step["op"] for step in written(*wanted)[0]]


class TestSteps:
    def test_a_triple_product(self) -> None:
        """Shared parts are computed once, in order, and only the wanted ones kept."""
        coarse = A @ SQUARE @ A.T

        steps, tensors, results = written(coarse, coarse.diagonal())

        assert steps == [
            {"op": "spgemm", "matrix": "m-a", "other": "m-s", "as": "s1",
             "keep": False},
            {"op": "transpose", "matrix": "m-a", "as": "s2", "keep": False},
            {"op": "spgemm", "matrix": "s1", "other": "s2", "as": "s3", "keep": True},
            {"op": "diagonal", "matrix": "s3", "as": "s4", "keep": True},
        ]  # fmt: skip
        assert (tensors, results) == ({}, ["s3", "s4"])

    def test_dense_operands_have_names(self) -> None:
        y = A @ np.ones(4)

        steps, tensors, _ = written(A.T @ y)

        assert [step["inputs"] for step in steps] == [{"x": "t1"}, {"x": "s1"}]
        assert steps[1]["transpose"] is True
        assert tensors["t1"].tolist() == [1, 1, 1, 1]

    def test_views_cost_nothing_where_the_rules_of_transposes_help(self) -> None:
        sums = [A.T.sum(0), A.T.norm(1), A.T.diagonal(), A.T[:2], 2 * A.T, A.T + A.T]

        assert ops(*sums) == ["sums", "norm", "diagonal", "submatrix", "scale", "add"]
        steps, _, _ = written(*sums)
        assert (steps[0]["axis"], steps[1]["kind"]) == (1, "inf")
        assert steps[3]["columns"] == [None, 2, None]
        assert (2 * A.T).transposed
        assert (2 * A.T).shape == A.T[:4].shape == (4, 3)

    def test_conjugates_of_real_entries_are_none(self) -> None:
        assert not A.conj().conjugated
        assert not A.H.conjugated
        assert COMPLEX.H.conjugated
        assert not COMPLEX.H.H.conjugated
        steps, _, _ = written(COMPLEX.H)
        assert steps == [
            {"op": "transpose", "conjugate": True, "matrix": "m-c", "as": "s1",
             "keep": True}
        ]  # fmt: skip
        assert ops(COMPLEX.conj()) == ["transpose", "transpose"]

    def test_sampled_products_of_a_view(self) -> None:
        x, y = np.ones((4, 2)), np.zeros((3, 2))

        steps, tensors, _ = written(A.T.sddmm(x, y))

        assert tensors[steps[0]["inputs"]["x"]].tolist() == y.tolist()

    def test_factors_of_a_view(self) -> None:
        steps, tensors, _ = written(A.T.scale(rows=[1, 2, 3, 4]))

        assert tensors[steps[0]["inputs"]["columns"]].tolist() == [1, 2, 3, 4]

    def test_nothing_to_compute(self) -> None:
        with pytest.raises(ValueError, match="m-a is stored already"):
            written(A)
        with pytest.raises(ValueError, match="needs something"):
            written()


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda: A @ A, ValueError, r"\(3, 4\) cannot be multiplied with .* \(3, 4\)"),
        (lambda: A + SQUARE, ValueError, "cannot be added"),
        (lambda: A + 1, TypeError, "unsupported operand"),
        (lambda: A * "2", TypeError, "can't multiply|unsupported operand"),
        (lambda: A * 1j, TypeError, "unsupported operand"),
        (lambda: A * True, TypeError, "unsupported operand"),
        (lambda: A * np.inf, ValueError, "must be finite"),
        (lambda: np.complex128(1j) * A, TypeError, "real number"),
        (lambda: A @ np.ones(3), ValueError, r"not \(3,\)"),
        (lambda: A.solve_triangular(np.ones(3)), ValueError, "no triangles"),
        (lambda: SQUARE.solve_triangular(np.ones(3)), ValueError, r"b has shape \(3,"),
        (lambda: A.norm(2), ValueError, "the norm is 2"),
        (lambda: A.sum(2), ValueError, "axis is 2"),
        (lambda: A.scale(rows=[1.0]), ValueError, r"\(3,\) is right"),
        (lambda: A.sddmm(np.ones((3, 2)), np.ones((4, 1))), ValueError, "2 columns"),
        (lambda: A.sddmm(np.ones(3), np.ones((4, 1))), ValueError, "x and y have"),
    ],
)
def test_what_cannot_be_is_found_here(
    wrong: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        wrong()


def test_a_matrix_is_no_sequence() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        # What the types forbid is what is tested.
        list(A)


class TestSelections:
    @pytest.mark.parametrize(
        "key",
        [
            np.s_[1:],
            np.s_[:, ::-2],
            np.s_[[2, 0]],
            np.s_[:, [1, -1, 1]],
            np.ix_([2, 0], [1, 3]),
            np.s_[-2:, np.array([True, False, True, False])],
            np.s_[[]],
            np.s_[5:, 1:3],
        ],
        ids=str,
    )
    def test_the_shape_is_numpys(self, key: Any) -> None:
        assert A[key].shape == np.zeros((3, 4))[key].shape

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            (np.s_[0], "a single one is i:i.1"),
            (np.s_[0, 1], "single entries"),
            (np.s_[[0, 1], [0, 1]], "np.ix_"),
            (np.s_[[3]], "row 3 of 3"),
            (np.s_[:, [-5]], "column -5 of 4"),
            (np.s_[::0], "step of the rows is 0"),
            (np.s_[:, :, :], "not 3"),
            (np.s_[[0.5]], "rows are a slice"),
            (np.s_[np.array([True])], "mask of length 3"),
        ],
        ids=str,
    )
    def test_what_gives_no_matrix(self, key: Any, message: str) -> None:
        with pytest.raises(IndexError, match=message):
            both(key, (3, 4))
