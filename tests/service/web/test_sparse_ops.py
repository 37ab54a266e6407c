"""Operations on resident matrices over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from numpy.typing import NDArray
from service.web.wire import as_npz, read, send, tensor

from nnz_service.algebra.row_parts import BY_ROWS

DENSE = np.array([[2.0, 0, 1], [0, 3, 0], [4, 0, 5]])


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put(real, DENSE)


def put(http: httpx2.Client, dense: NDArray[Any]) -> str:
    content = as_npz(scipy.sparse.csr_array(dense))
    headers = {"Content-Type": "application/x-npz"}
    found: str = http.post("/v1/matrices", content=content, headers=headers).json()[
        "id"
    ]
    return found


def ask(
    http: httpx2.Client, op: str, inputs: list[Any] | None = None, **parameters: Any
) -> httpx2.Response:
    body: dict[str, Any] = {"parameters": parameters}
    if inputs is not None:
        body["inputs"] = inputs
    return http.post(f"/v1/ops/{op}", json=body)


def entries(http: httpx2.Client, answer: httpx2.Response) -> NDArray[Any]:
    """Read a matrix that an operation made, by multiplying it with ones of a kind."""
    assert answer.status_code in (200, 201), answer.text
    made = answer.json()["matrix"]
    x = np.eye(made["shape"][1])
    return read(send(http, "/v1/ops/spmm", {"x": x}, {"matrix": made["id"]}))["y"]


class TestMatrices:
    """Results that become resident matrices."""

    def test_product(self, real: httpx2.Client, a: str) -> None:
        """A A, with a name; again it is the same matrix."""
        first = ask(real, "spgemm", matrix=a, other=a, name="square")
        again = ask(real, "spgemm", matrix=a, other=a)

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["matrix"]["id"] == again.json()["matrix"]["id"]
        assert first.json()["matrix"]["name"] == "square"
        assert first.json()["matrix"]["nnz"] == 5
        np.testing.assert_array_equal(entries(real, first), DENSE @ DENSE)
        listed = real.get("/v1/matrices").json()["matrices"]
        row = next(r for r in listed if r["id"] == first.json()["matrix"]["id"])
        assert row["state"] == "READY"

    def test_dense_operands_over_a_semiring(self, real: httpx2.Client, a: str) -> None:
        """A vector, columns, and the same transposed; by hand."""
        ways = {"matrix": a, "semiring": "min_plus"}
        x = np.array([1.0, 2, 4])

        near = read(send(real, "/v1/ops/spmv", {"x": x}, ways))
        turned = read(send(real, "/v1/ops/spmv", {"x": x}, ways | {"transpose": True}))
        columns = {"x": np.stack([x, 0 * x], axis=1)}
        both = read(send(real, "/v1/ops/spmm", columns, ways))
        most = read(send(real, "/v1/ops/spmv", {"x": x}, ways | {
            "semiring": "max_times"}))  # fmt: skip
        plain = read(send(real, "/v1/ops/spmv", {"x": x}, ways | {
            "semiring": "plus_times"}))  # fmt: skip

        assert near["y"].tolist() == [3, 5, 5]
        assert turned["y"].tolist() == [3, 5, 2]
        assert both["y"].tolist() == [[3, 1], [5, 3], [5, 4]]
        assert most["y"].tolist() == [4, 6, 20]
        assert plain["y"].tolist() == (DENSE @ x).tolist()

    def test_a_row_without_entries(self, real: httpx2.Client) -> None:
        hollow = put(real, np.array([[0.0, 0], [0, 1]]))
        ways = {"matrix": hollow, "semiring": "min_plus"}

        found = read(send(real, "/v1/ops/spmv", {"x": np.zeros(2)}, ways))

        assert found["y"].tolist() == [np.inf, 1]

    def test_masked_product_over_a_semiring(self, real: httpx2.Client, a: str) -> None:
        """The shortest two steps, where the matrix has an entry; by a job the same."""
        asked: dict[str, Any] = {"matrix": a, "other": a, "mask": a}
        found = ask(real, "spgemm", **asked, semiring="min_plus")
        job = send(
            real, "/v1/jobs", {}, asked | {"op": "spgemm", "semiring": "min_plus"},
            kind="op",
        )  # fmt: skip
        ended = real.get(f"/v1/jobs/{job.json()['id']}?wait=30").json()

        far = np.where(DENSE == 0, np.inf, DENSE)
        paths = (far[:, :, None] + far[None]).min(axis=1)
        wanted = np.where((DENSE == 0) | np.isinf(paths), 0, paths)
        np.testing.assert_array_equal(entries(real, found), wanted)
        made = ended["result"]["matrix"]["id"]
        assert made == found.json()["matrix"]["id"]
        cost = ask(real, "spgemm", **asked, preflight=True).json()["preflight"]
        assert cost["output_nnz"] <= np.count_nonzero(DENSE)

    def test_sum_transpose_scale(self, real: httpx2.Client, a: str) -> None:
        """2 A - A', made of two operations; rows times 1, 2, 3."""
        turned = ask(real, "transpose", matrix=a).json()["matrix"]["id"]
        total = ask(real, "add", matrix=a, other=turned, alpha=2, beta=-1)
        scaled = ask(real, "scale", [tensor("rows", [1.0, 2, 3])], matrix=a)

        np.testing.assert_array_equal(entries(real, total), 2 * DENSE - DENSE.T)
        np.testing.assert_array_equal(entries(real, scaled), DENSE * [[1], [2], [3]])

    def test_submatrix(self, real: httpx2.Client, a: str) -> None:
        """A range of rows and a list of columns."""
        columns = [tensor("columns", [2, 0], "INT64")]
        part = ask(real, "submatrix", columns, matrix=a, rows=[None, None, -2])

        np.testing.assert_array_equal(entries(real, part), DENSE[::-2][:, [2, 0]])

    def test_sddmm(self, real: httpx2.Client, a: str) -> None:
        """Where A stores an entry."""
        x, y = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
        made = ask(real, "sddmm", [tensor("x", x), tensor("y", y)], matrix=a)

        np.testing.assert_array_equal(entries(real, made), (x @ y.T) * (DENSE != 0))


class TestTensors:
    """Results that are sent back."""

    def test_triangles(self, real: httpx2.Client, a: str) -> None:
        """The lower one of A, binary and for a block."""
        b = np.array([[2.0, 4], [3, 6], [14, 28]])
        answer = send(real, "/v1/ops/triangular_solve", {"b": b}, {"matrix": a})

        np.testing.assert_array_equal(read(answer)["x"], [[1, 2], [1, 2], [2, 4]])

    def test_numbers(self, real: httpx2.Client, a: str) -> None:
        """Norms, sums, the diagonal."""

        def data(op: str, **parameters: Any) -> Any:
            return ask(real, op, matrix=a, **parameters).json()["outputs"][0]["data"]

        assert data("norm", kind="inf") == [9]
        assert data("norm", kind="1") == [6]
        assert data("norm") == pytest.approx([np.sqrt(55)])
        assert data("sums", axis=0) == [6, 3, 6]
        assert data("diagonal") == [2, 3, 5]


class TestPreflight:
    def test_nothing_runs(self, real: httpx2.Client, a: str) -> None:
        """A bound, the exact number, and no new matrix."""
        before = real.get("/v1/matrices").json()["matrices"]
        body = {"parameters": {"matrix": a, "other": a}}
        bound = real.post("/v1/ops/spgemm?preflight=true", json=body)
        exact = ask(real, "spgemm", matrix=a, other=a, preflight="exact")
        found = bound.json()["preflight"]

        assert bound.status_code == exact.status_code == 200
        assert found["flops"] == 2 * (2 * 2 + 1 + 2 * 2)
        assert (found["output_nnz"], found["output_nnz_exact"]) == (7, False)
        assert exact.json()["preflight"]["output_nnz"] == 5
        assert exact.json()["preflight"]["output_nnz_exact"] is True
        assert found["fits"] is True
        assert found["seconds"] > 0
        assert found["output_bytes"] == 7 * 12 + 4 * 4
        assert real.get("/v1/matrices").json()["matrices"] == before

    def test_what_does_not_fit(
        self, real: httpx2.Client, a: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """413 and 422, with numbers."""
        from nnz_service.algebra import sparse_ops
        from nnz_service.worker import sparse

        admit = sparse_ops.admit
        with monkeypatch.context() as patched:
            patched.setattr(
                sparse_ops, "admit", lambda op, x, **more: admit(op, x, 75, **more)
            )
            large = ask(real, "spgemm", matrix=a, other=a)
        with monkeypatch.context() as patched:
            patched.setattr(sparse, "MAX_SECONDS", 1e-12)
            long = ask(real, "spgemm", matrix=a, other=a)

        assert large.status_code == 413
        assert (
            "5 entries and takes 76 bytes, after 18 floating" in large.json()["error"]
        )
        assert long.status_code == 422
        assert "18 floating-point operations" in long.json()["error"]

    @pytest.mark.parametrize("preflight", [False, "exact"])
    def test_what_takes_long_is_not_counted(
        self,
        real: httpx2.Client,
        a: str,
        preflight: bool | str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Counting takes half of the time, on the device, which others wait for."""
        from nnz_kernels.reference import sparse as kernels
        from nnz_service.algebra import sparse_ops
        from nnz_service.worker import sparse

        admit = sparse_ops.admit
        monkeypatch.setattr(
            sparse_ops, "admit", lambda op, x, **more: admit(op, x, 75, **more)
        )
        monkeypatch.setattr(sparse, "MAX_SECONDS", 1e-12)
        monkeypatch.setattr(kernels, "product_counts", None)

        answer = ask(real, "spgemm", matrix=a, other=a, preflight=preflight)

        assert answer.status_code == (200 if preflight else 422)
        if preflight:
            found = answer.json()["preflight"]
            assert (found["output_nnz"], found["output_nnz_exact"]) == (7, False)
            assert found["fits"] is False


@pytest.mark.parametrize("op", sorted(BY_ROWS))
def test_what_is_long_runs_in_parts(
    real: httpx2.Client, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    """With the answer of one that runs at once, and the same refusals."""
    from nnz_service.worker import sparse

    dense = np.random.default_rng(0).integers(-3, 4, (23, 23)) * 1.0
    a, x = put(real, dense), np.arange(23.0)
    inputs = {
        "scale": [tensor("rows", x), tensor("columns", x)],
        "sddmm": [tensor("x", np.outer(x, x)), tensor("y", np.ones((23, 23)))],
    }.get(op, [])
    names = {"matrix": a} | ({"other": a} if op in ("spgemm", "add") else {})
    once = ask(real, op, inputs, **names)
    made: list[sparse.Part] = []

    class Noted(sparse.Part):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(sparse, "Part", Noted)
    monkeypatch.setattr(sparse, "PART", 1e-8)
    parts = ask(real, op, inputs, **names)

    wanted = {
        "spgemm": dense @ dense,
        "add": dense + dense,
        "scale": dense * np.outer(x, x),
        "sddmm": (dense != 0) * (np.outer(x, x) @ np.ones((23, 23))),
    }
    assert len(made) > 2
    assert parts.status_code == 200
    assert parts.json()["matrix"]["id"] == once.json()["matrix"]["id"]
    np.testing.assert_array_equal(entries(real, parts), wanted[op])
    for wrong in inputs:
        longer = tensor(wrong["name"], np.ones([24, *wrong["shape"][1:]]))
        given = [longer if one is wrong else one for one in inputs]
        assert ask(real, op, given, **names).status_code == 422


@pytest.mark.parametrize("shape", [(7, 3), (2, 3), (4, 3), (3, 4), (1, 1)])
def test_long_sums_of_what_does_not_fit(
    real: httpx2.Client, monkeypatch: pytest.MonkeyPatch, a: str, shape: tuple[int, int]
) -> None:
    """Refused as a short one is, before anything is cut."""
    from nnz_service.worker import sparse

    other = put(real, np.ones(shape))
    short = ask(real, "add", matrix=a, other=other)
    monkeypatch.setattr(sparse, "PART", 1e-9)

    long = ask(real, "add", matrix=a, other=other)
    wrong = ask(real, "add", matrix=a, other=a, alpha="x")
    half = ask(real, "scale", matrix=a, alpha=[1, 2])

    assert short.status_code == long.status_code == 422
    assert short.json()["error"] == long.json()["error"]
    assert "alpha is 'x'" in wrong.json()["error"]
    assert "the matrix is real" in half.json()["error"]


def test_parts_of_several_have_the_memory_of_one(
    real: httpx2.Client, monkeypatch: pytest.MonkeyPatch, a: str
) -> None:
    from nnz_service.worker import sparse, sparse_calls

    monkeypatch.setattr(sparse, "PART", 1e-9)
    monkeypatch.setattr(sparse_calls, "MAX_RESULT", 1)
    alone = ask(real, "add", matrix=a, other=a)
    held = property(lambda _: 10**9, lambda *_: None)
    monkeypatch.setattr(sparse_calls.Sparse, "_held", held, raising=False)

    beside = ask(real, "add", matrix=a, other=a)

    assert alone.status_code == 201
    assert beside.status_code == 429
    assert "long operations under way hold 1000000000 bytes" in beside.json()["error"]


def test_refusals(real: httpx2.Client, a: str) -> None:
    """Each names what was wrong."""

    def over(op: str, x: NDArray[Any], **parameters: Any) -> httpx2.Response:
        return send(real, f"/v1/ops/{op}", {"x": x}, parameters)

    wide = put(real, np.ones((2, 5)))
    many = np.ones((3, 600_000), np.float32)  # each column is a call of a kernel
    for answer, code, text in (
        (over("spmm", many, matrix=a, semiring="max_times"), 422, "would take about"),
        (ask(real, "spgemm", matrix=a), 400, "parameters.other"),
        (ask(real, "spgemm", matrix=a, other="m-0123456789abcdef"), 404, "no matrix"),
        (ask(real, "spgemm", matrix=a, other=wide), 422, "(2, 5)"),
        (ask(real, "spgemm", matrix=a, other=a, mask=wide), 422, "mask has shape"),
        (ask(real, "spgemm", matrix=a, other=a, mask=5), 400, "parameters.mask"),
        (
            ask(real, "spgemm", matrix=a, other=a, mask="m-0123456789abcdef"),
            404,
            "no matrix",
        ),
        (ask(real, "spgemm", matrix=a, other=a, semiring=[]), 400, "be one of plus"),
        (over("spmv", np.ones(3), matrix=a, semiring="+"), 400, "be one of plus"),
        (over("spmv", np.ones(4), matrix=a, semiring="or_and"), 422, "must be [3]"),
        (over("spmm", np.ones(3), matrix=a, semiring="or_and"), 422, "along 2 axes"),
        (over("spmm", np.ones((4, 1)), matrix=a, semiring="or_and"), 422, "[3, k]"),
        (ask(real, "dot", [tensor("x", [1.0])], semiring="or_and"), 400, "no param"),
        (ask(real, "add", matrix=a, other=a, mask=a), 400, "no parameter 'mask'"),
        (ask(real, "norm", matrix=a, kind="two"), 422, "'two'"),
        (ask(real, "norm", matrix=a, sort="1"), 400, "no parameter 'sort'"),
        (ask(real, "norm", matrix=a, preflight="maybe"), 400, "preflight"),
        (ask(real, "norm", matrix=a, name=""), 400, "parameters.name"),
        (ask(real, "sums", matrix=a, axis=2), 422, "axis is 2"),
        (ask(real, "add", matrix=a, other=a, alpha="x"), 422, "alpha is 'x'"),
        (ask(real, "transpose", matrix=a, conjugate=1), 422, "conjugate is 1"),
        (ask(real, "submatrix", matrix=a, rows=[0]), 422, "rows is [0]"),
        (ask(real, "submatrix", matrix=a, rows=[0, 1, 0]), 422, "step of rows"),
        (
            ask(real, "submatrix", [tensor("rows", [3], "INT64")], matrix=a),
            422,
            "row 3 does not exist",
        ),
        (ask(real, "triangular_solve", matrix=a), 422, "'b' is missing"),
        (
            ask(real, "triangular_solve", [tensor("b", [1.0])], matrix=a),
            422,
            "right-hand side has shape (1,)",
        ),
        (ask(real, "scale", [tensor("x", [1.0])], matrix=a), 422, "no input 'x'"),
        (ask(real, "sddmm", [tensor("x", [[1.0]])], matrix=a), 422, "'y' is missing"),
    ):
        assert answer.status_code == code, answer.text
        assert text in answer.json()["error"]


def test_a_singular_triangle(real: httpx2.Client) -> None:
    """The row without a pivot is named."""
    a = put(real, np.array([[1.0, 0], [1, 0]]))
    answer = ask(real, "triangular_solve", [tensor("b", [1.0, 1])], matrix=a)

    assert answer.status_code == 422
    assert "row 1 is zero or missing" in answer.json()["error"]
