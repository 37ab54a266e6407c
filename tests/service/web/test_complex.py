"""Complex matrices over HTTP: vectors and results are pairs along a last axis."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix, read, send

RNG = np.random.default_rng(5)
DENSE = (RNG.integers(-3, 4, (4, 3)) + 1j * RNG.integers(-3, 4, (4, 3))).astype("c16")
SQUARE = np.array([[2, 0, 0], [1j, 1 - 1j, 0], [3, -1, 1j]])


def pairs(z: Any) -> np.ndarray:
    z = np.asarray(z, "c16")
    return np.stack([z.real, z.imag], axis=-1)


def numbers(x: np.ndarray) -> np.ndarray:
    assert x.shape[-1] == 2
    return x[..., 0] + 1j * x[..., 1]


def random(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape) + 1j * RNG.integers(-4, 5, shape)


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, scipy.sparse.csr_array(DENSE))


@pytest.fixture(scope="module")
def square(real: httpx2.Client) -> str:
    return put_matrix(real, scipy.sparse.csr_array(SQUARE))


class TestProducts:
    def test_by_hand(self, real: httpx2.Client) -> None:
        """(1 + 2i) (3 - i) = 5 + 5i."""
        one = put_matrix(real, scipy.sparse.csr_array(np.array([[1 + 2j]])))
        y = read(send(real, "/v1/ops/spmv", {"x": [[3.0, -1.0]]}, {"matrix": one}))["y"]

        assert y.tolist() == [[5, 5]]

    @pytest.mark.parametrize("turned", [False, True])
    def test_vectors_and_blocks(
        self, real: httpx2.Client, a: str, turned: bool
    ) -> None:
        """Straight and transposed, which does not conjugate."""
        dense, params = (DENSE.T if turned else DENSE), {"matrix": a}
        asked = params | {"transpose": turned}
        n = dense.shape[1]
        for shape, op in (((n,), "spmv"), ((n, 1), "spmm"), ((n, 5), "spmm")):
            x = random(*shape)
            y = read(send(real, f"/v1/ops/{op}", {"x": pairs(x)}, asked))["y"]
            np.testing.assert_array_equal(numbers(y), dense @ x)

    def test_infer(self, real: httpx2.Client, a: str) -> None:
        """Each row a vector, as the metadata says."""
        about = real.get(f"/v2/models/{a}").json()
        x = random(2, 3)
        body = {"binary_data_output": True}
        answer = send(real, f"/v2/models/{a}/infer", {"x": pairs(x)}, body)

        assert about["inputs"] == [
            {"name": "x", "datatype": "FP64", "shape": [-1, 3, 2]}
        ]
        assert about["outputs"][0]["shape"] == [-1, 4, 2]
        np.testing.assert_array_equal(numbers(read(answer)["y"]), x @ DENSE.T)

    @pytest.mark.parametrize(
        ("op", "shape"),
        [("spmv", (3,)), ("spmv", (3, 3)), ("spmm", (3, 2)), ("spmm", (3, 2, 1))],
    )
    def test_real_vectors_are_refused(
        self, real: httpx2.Client, a: str, op: str, shape: tuple[int, ...]
    ) -> None:
        """With the shape that would be right."""
        answer = send(real, f"/v1/ops/{op}", {"x": np.ones(shape)}, {"matrix": a})

        wanted = "[3, 2]" if op == "spmv" else "[3, k, 2]"
        assert answer.status_code == 422
        assert f"must be {wanted}: the matrix is complex" in answer.json()["error"]

    def test_semirings_are_for_real_numbers(self, real: httpx2.Client, a: str) -> None:
        asked = {"matrix": a, "semiring": "or_and"}
        answer = send(real, "/v1/ops/spmv", {"x": np.ones((3, 2))}, asked)

        assert answer.status_code == 422
        assert "complex matrix has no semiring or_and" in answer.json()["error"]


class TestOperations:
    def ask(
        self, real: httpx2.Client, op: str, inputs: dict[str, Any], **params: Any
    ) -> np.ndarray:
        """The only output."""
        params["binary_data_output"] = True
        found = read(send(real, f"/v1/ops/{op}", inputs, params))
        return numbers(next(iter(found.values())))

    def made(
        self, real: httpx2.Client, op: str, inputs: dict[str, Any], **params: Any
    ) -> np.ndarray:
        """The matrix that it makes, multiplied by the identity."""
        answer = send(real, f"/v1/ops/{op}", inputs, params)
        assert answer.status_code in (200, 201), answer.text
        matrix = answer.json()["matrix"]
        assert matrix["dtype"] == "C128"
        eye = pairs(np.eye(matrix["shape"][1]))
        return self.ask(real, "spmm", {"x": eye}, matrix=matrix["id"])

    def test_results_that_are_tensors(self, real: httpx2.Client, square: str) -> None:
        for b in (random(3), random(3, 2)):
            x = self.ask(real, "triangular_solve", {"b": pairs(b)}, matrix=square)
            np.testing.assert_allclose(SQUARE @ x, b)
        sums = self.ask(real, "sums", {}, matrix=square, axis=0)
        np.testing.assert_array_equal(sums, SQUARE.sum(axis=0))
        diagonal = self.ask(real, "diagonal", {}, matrix=square)
        np.testing.assert_array_equal(diagonal, SQUARE.diagonal())

    def test_results_that_are_matrices(
        self, real: httpx2.Client, a: str, square: str
    ) -> None:
        rows = random(3)
        scaled = self.made(real, "scale", {"rows": pairs(rows)}, matrix=square)
        np.testing.assert_array_equal(scaled, rows[:, np.newaxis] * SQUARE)
        x, y = random(3, 2), random(3, 2)
        dots = self.made(real, "sddmm", {"x": pairs(x), "y": pairs(y)}, matrix=square)
        np.testing.assert_array_equal(dots, (x @ y.T) * (SQUARE != 0))
        product = self.made(real, "spgemm", {}, matrix=a, other=square)
        np.testing.assert_array_equal(product, DENSE @ SQUARE)

    def test_factors_of_a_sum_may_be_complex(
        self, real: httpx2.Client, square: str
    ) -> None:
        """As [real, imaginary]; of real matrices they may not."""
        alpha = [1.0, -2.0]
        two = {"matrix": square, "other": square}
        total = self.made(real, "add", {}, **two, alpha=alpha, beta=3)
        np.testing.assert_array_equal(total, (1 - 2j) * SQUARE + 3 * SQUARE)
        plain = put_matrix(real, scipy.sparse.csr_array(np.eye(3)))

        refused = send(
            real, "/v1/ops/add", {}, {"matrix": plain, "other": plain, "alpha": alpha}
        )

        assert refused.status_code == 422
        assert "must be real" in refused.json()["error"]

    @pytest.mark.parametrize("kind", ["solve", "cg", "lp", "factorize"])
    def test_jobs_want_a_real_matrix(
        self, real: httpx2.Client, square: str, kind: str
    ) -> None:
        inputs = {"c" if kind == "lp" else "b": np.ones(3)}
        inputs = {} if kind == "factorize" else inputs
        answer = send(real, "/v1/jobs", inputs, {"matrix": square}, kind=kind)

        assert answer.status_code == 422
        assert f"but {kind} needs a real matrix" in answer.json()["error"]


class TestChains:
    """Products of complex matrices are steps like others."""

    def ask(
        self, real: httpx2.Client, x: np.ndarray, *steps: Any, **more: Any
    ) -> httpx2.Response:
        more["binary_data_output"] = True
        return send(real, "/v1/ops", {"x": pairs(x)}, more, steps=list(steps))

    @pytest.mark.parametrize("shape", [(3,), (3, 4)])
    def test_products_after_each_other(
        self, real: httpx2.Client, a: str, square: str, shape: tuple[int, ...]
    ) -> None:
        """Of a matrix that is stored and of one that a step has made."""
        x, op = random(*shape), "spmv" if len(shape) == 1 else "spmm"
        steps: list[dict[str, Any]] = [
            {"as": "p", "op": "spgemm", "matrix": a, "other": square},
            {"as": "y", "op": op, "matrix": "p", "inputs": {"x": "x"}, "keep": True},
            {
                "as": "z", "op": op, "matrix": a, "transpose": True,
                "inputs": {"x": "y"}, "keep": True,
            },
            {"op": "triangular_solve", "matrix": square, "inputs": {"b": "z"}},
        ]  # fmt: skip

        found = read(self.ask(real, x, *steps))
        told = send(real, "/v1/ops", {"x": pairs(x)}, {"preflight": True}, steps=steps)

        np.testing.assert_array_equal(numbers(found["y"]), DENSE @ SQUARE @ x)
        z = numbers(found["z"])
        np.testing.assert_array_equal(z, DENSE.T @ (DENSE @ SQUARE @ x))
        np.testing.assert_allclose(SQUARE @ numbers(found["step4"]), z)
        rows = told.json()["preflight"]["steps"]
        assert [row["output_bytes"] for row in rows[1:]] == [
            found[name].nbytes for name in ("y", "z", "step4")
        ]

    def test_results_of_other_steps_are_pairs(
        self, real: httpx2.Client, square: str
    ) -> None:
        steps = [
            {"as": "d", "op": "diagonal", "matrix": square},
            {"op": "spmv", "matrix": square, "inputs": {"x": "d"}},
        ]
        answer = send(real, "/v1/ops", {}, {}, steps=steps)
        told = send(real, "/v1/ops", {}, {"preflight": True}, steps=steps)

        assert told.status_code == 200, told.text
        found = numbers(np.reshape(answer.json()["outputs"][0]["data"], (3, 2)))
        np.testing.assert_array_equal(found, SQUARE @ SQUARE.diagonal())

    def test_real_vectors_are_refused(self, real: httpx2.Client, square: str) -> None:
        """By the chain and by its forecast."""
        step = {"op": "spmv", "matrix": square, "inputs": {"x": "x"}}
        for more in ({}, {"preflight": True}):
            answer = send(real, "/v1/ops", {"x": np.ones(3)}, more, steps=[step])

            assert answer.status_code == 422
            assert "step 'step1' (spmv)" in answer.json()["error"]
            assert "imaginary parts" in answer.json()["error"]
