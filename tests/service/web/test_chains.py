"""Several operations in one request, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix, read, send

from nnz_service.algebra import profiles, sparse_ops

DENSE = np.array([[2.0, 0, 1], [0, 3, 0], [4, 0, 5]])


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, scipy.sparse.csr_array(DENSE))


def ask(http: httpx2.Client, *steps: Any, **more: Any) -> httpx2.Response:
    tensors = more.pop("tensors", {})
    return send(http, "/v1/ops", tensors, more, steps=list(steps))


def entries(http: httpx2.Client, matrix: str) -> np.ndarray:
    answer = http.get(f"/v1/matrices/{matrix}/content")
    found, shape = read(answer), http.get(f"/v1/matrices/{matrix}").json()["shape"]
    parts = (found["data"], found["indices"], found["indptr"])
    dense: np.ndarray = scipy.sparse.csr_array(parts, shape=shape).toarray()
    return dense


def count(http: httpx2.Client) -> int:
    return len(http.get("/v1/matrices").json()["matrices"])


def test_only_what_is_kept_is_stored(real: httpx2.Client, a: str) -> None:
    """A' A - 2 A by way of two results that nobody sees."""
    before = count(real)

    answer = ask(
        real,
        {"as": "at", "op": "transpose", "matrix": a},
        {"as": "ata", "op": "spgemm", "matrix": "at", "other": a},
        {"op": "add", "matrix": "ata", "other": a, "beta": -2, "name": "all"},
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"] == []
    (made,) = answer.json()["matrices"].items()
    assert (made[0], made[1]["name"]) == ("step3", "all")
    assert count(real) == before + 1
    np.testing.assert_array_equal(
        entries(real, made[1]["id"]), DENSE.T @ DENSE - 2 * DENSE
    )


def test_dense_results_flow_on(real: httpx2.Client, a: str) -> None:
    """A (A x), what is half way there, and its largest row sum."""
    x = np.array([1.0, 2, 3])

    answer = ask(
        real,
        {"as": "y", "op": "spmv", "matrix": a, "inputs": {"x": "x"}, "keep": True},
        {"as": "z", "op": "spmv", "matrix": a, "inputs": {"x": "y"}, "keep": True},
        {"as": "size", "op": "norm", "matrix": a, "kind": "inf"},
        tensors={"x": x},
    )

    found = read(answer)
    assert [*found] == ["y", "z", "size"]
    np.testing.assert_array_equal(found["y"], DENSE @ x)
    np.testing.assert_array_equal(found["z"], DENSE @ (DENSE @ x))
    assert found["size"].tolist() == [9]


def test_a_scaled_matrix(real: httpx2.Client, a: str) -> None:
    answer = ask(real, {"as": "b", "op": "scale", "matrix": a, "alpha": -0.5})

    made = answer.json()["matrices"]["b"]["id"]
    np.testing.assert_array_equal(entries(real, made), -0.5 * DENSE)


def test_a_step_that_fails_is_named(real: httpx2.Client, a: str) -> None:
    """And nothing of the chain stays."""
    wide = put_matrix(real, scipy.sparse.csr_array(np.ones((3, 2))))
    before = count(real)

    answer = ask(
        real,
        {"as": "fine", "op": "spgemm", "matrix": a, "other": wide, "keep": True},
        {"as": "bad", "op": "spgemm", "matrix": "fine", "other": a},
    )

    assert answer.status_code == 422
    assert (
        "step 'bad' (spgemm): spgemm: a matrix of shape (3, 2)"
        in (answer.json()["error"])
    )
    assert count(real) == before


def test_one_of_two_that_are_kept(real: httpx2.Client, a: str) -> None:
    """What is not named does not go out."""
    steps = [
        {"as": "size", "op": "norm", "matrix": a, "kind": "inf", "keep": True},
        {"as": "last", "op": "norm", "matrix": a, "kind": "fro"},
    ]
    for names in (["last"], ["size"], ["last", "size"]):
        rows = [{"name": name} for name in names]
        done = real.post("/v1/ops", json={"steps": steps, "outputs": rows}).json()
        assert [row["name"] for row in done["outputs"]] == names


def test_outputs_that_no_step_gives(real: httpx2.Client, a: str) -> None:
    """Outputs are the tensors that are kept."""
    steps = [
        {"as": "at", "op": "transpose", "matrix": a, "keep": True},
        {"as": "ones", "op": "sums", "matrix": a},
        {"as": "last", "op": "spmv", "matrix": "at", "inputs": {"x": "ones"}},
    ]
    right = real.post("/v1/ops", json={"steps": steps, "outputs": [{"name": "last"}]})

    assert right.json()["outputs"][0]["name"] == "last"
    for name in ("nope", "at", "ones"):
        wrong = real.post("/v1/ops", json={"steps": steps, "outputs": [{"name": name}]})
        assert wrong.status_code == 422
        found = wrong.json()["error"]
        assert found == f"the chain has no output {name!r}; there are last"


def test_preflight_bounds_every_step(real: httpx2.Client, a: str) -> None:
    before = count(real)
    steps = (
        {"as": "at", "op": "transpose", "matrix": a},
        {"as": "ata", "op": "spgemm", "matrix": "at", "other": a},
        {"as": "y", "op": "spmv", "matrix": "ata", "inputs": {"x": "x"}},
    )

    answer = ask(real, *steps, tensors={"x": np.ones(3)}, preflight=True)
    done = ask(real, *steps, tensors={"x": np.ones(3)})

    assert done.status_code == 200, done.text
    told = answer.json()["preflight"]
    assert [row["as"] for row in told["steps"]] == ["at", "ata", "y"]
    assert [row["output_nnz"] for row in told["steps"]] == [5, 8, 3]
    assert told["steps"][1]["flops"] == 2 * (2 * 2 + 1 * 1 + 2 * 2)
    assert told["fits"] is True
    assert told["seconds"] > 0
    assert count(real) == before


def test_a_masked_product(real: httpx2.Client, a: str) -> None:
    """The mask is an earlier step; the forecast counts no more than it has."""
    steps = (
        {"as": "at", "op": "transpose", "matrix": a},
        {"as": "c", "op": "spgemm", "matrix": a, "other": a, "mask": "at"},
        {"as": "far", "op": "spgemm", "matrix": a, "other": a, "semiring": "min_plus"},
        {"op": "sums", "matrix": "c"},
    )
    told = ask(real, *steps[:2], preflight=True).json()["preflight"]
    done = ask(real, *steps[:2], steps[3])
    wrong = ask(real, {"op": "add", "matrix": a, "other": a, "mask": a})
    near = ask(
        real,
        {"as": "y", "op": "spmv", "matrix": a, "semiring": "min_plus",
         "transpose": True, "inputs": {"x": "x"}},
        tensors={"x": np.array([1.0, 2, 4])},
    )  # fmt: skip
    assert read(near)["y"].tolist() == [3, 5, 2]
    unknown = ask(real, {"op": "spgemm", "matrix": a, "other": a, "semiring": "+"})

    assert done.status_code == 200, done.text
    wanted = (DENSE @ DENSE * (DENSE.T != 0)).sum(axis=1)
    assert done.json()["outputs"][0]["data"] == wanted.tolist()
    assert told["steps"][1]["output_nnz"] <= np.count_nonzero(DENSE)
    assert ask(real, steps[2]).status_code == 200
    assert (wrong.status_code, unknown.status_code) == (400, 400)
    assert "add has no 'mask'" in wrong.json()["error"]
    assert "must be one of plus_times, min_plus" in unknown.json()["error"]


def test_limits_hold_for_all_steps_together(
    real: httpx2.Client, a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnz_service.worker import chains
    from nnz_service.worker import steps as held_by

    steps = (
        {"as": "one", "op": "spgemm", "matrix": a, "other": a},
        {"as": "two", "op": "add", "matrix": "one", "other": "one"},
        {"as": "three", "op": "add", "matrix": "one", "other": "two"},
    )
    with monkeypatch.context() as patched:
        patched.setattr(held_by, "MAX_RESULT", 100)
        large = ask(real, *steps)
    with monkeypatch.context() as patched:
        patched.setattr(chains, "MAX_SECONDS", 0.0)
        long = ask(real, *steps)

    assert (large.status_code, long.status_code) == (413, 422)
    assert "step 'two' (add): results so far take 152 bytes" in large.json()["error"]
    assert "step 'one' (spgemm): the steps so far took" in long.json()["error"]


def test_dense_results_count_too(
    real: httpx2.Client, a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that only a later step needs; and a product knows its limits before."""
    from nnz_service.worker import sparse
    from nnz_service.worker import steps as held_by

    steps = [
        {"as": "one", "op": "spmv", "matrix": a, "inputs": {"x": "x"}, "keep": False},
        {"as": "two", "op": "spmv", "matrix": a, "inputs": {"x": "one"}},
    ]
    with monkeypatch.context() as patched:
        patched.setattr(held_by, "MAX_RESULT", 1)
        held = ask(real, *steps, tensors={"x": np.ones(3)})
    with monkeypatch.context() as patched:
        patched.setattr(sparse, "MAX_SECONDS", 0.0)
        long = ask(real, *steps, tensors={"x": np.ones(3)})

    assert held.status_code == 413, held.text
    assert long.status_code == 422, long.text
    assert "step 'one' (spmv): results so far take" in held.json()["error"]
    assert "step 'one' (spmv): spmv would take about" in long.json()["error"]


def test_another_workers_names_are_no_way_in(real: httpx2.Client) -> None:
    answer = ask(real, {"op": "norm", "matrix": "m-0123456789abcdef"})

    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("steps", "code", "text"),
    [
        pytest.param([], 400, "1 to 64 operations", id="none"),
        pytest.param([{}] * 65, 400, "1 to 64 operations", id="many"),
        pytest.param(["spmv"], 400, "must be an object", id="text"),
        pytest.param([{"op": "dot"}], 400, "no op 'dot' for a chain", id="op"),
        pytest.param([{"op": "norm"}], 400, "'matrix' is 'None'", id="no matrix"),
        pytest.param(
            [{"op": "norm", "matrix": "A", "axis": 0}], 400, "no 'axis'", id="parameter"
        ),
        pytest.param(
            [{"op": "norm", "matrix": "A", "as": "1"}], 400, "'as' is '1'", id="name"
        ),
        pytest.param(
            [{"op": "spmv", "matrix": "A", "inputs": {"x": "q"}}],
            400,
            "step 'step1': input 'x' is 'q'",
            id="input",
        ),
        pytest.param(
            [{"op": "norm", "matrix": "A"}, {"op": "norm", "matrix": "step1"}],
            400,
            "'matrix' is 'step1'; it must be a matrix's id",
            id="kind",
        ),
        pytest.param(
            [{"op": "norm", "matrix": "A"}, {"op": "norm", "matrix": "A"}],
            422,
            "'step1' is used by no step and not kept",
            id="idle",
        ),
        pytest.param(
            [
                {"op": "transpose", "matrix": "A", "as": "x"},
                {"op": "transpose", "matrix": "x", "as": "x"},
            ],
            400,
            "the name is taken",
            id="taken",
        ),
        pytest.param(
            [{"op": "spgemm", "matrix": "A"}], 400, "'other' is 'None'", id="other"
        ),
        pytest.param(
            [{"op": "scale", "matrix": "A", "alpha": "x"}],
            422,
            "step 'step1' (scale): alpha is 'x'",
            id="value",
        ),
        pytest.param(
            [{"op": "norm", "matrix": "A", "keep": 1}], 400, "'keep' must", id="keep"
        ),
    ],
)
def test_refusals(
    real: httpx2.Client, a: str, steps: Any, code: int, text: str
) -> None:
    told = [
        {k: a if v == "A" else v for k, v in step.items()}
        if isinstance(step, dict)
        else step
        for step in steps
    ]

    answer = ask(real, *told)

    assert answer.status_code == code, answer.text
    assert text in answer.json()["error"]


def test_parameters_belong_to_steps(real: httpx2.Client, a: str) -> None:
    answer = ask(real, {"op": "norm", "matrix": a}, kind="1")

    assert answer.status_code == 400
    assert "no parameter 'kind'" in answer.json()["error"]


def test_bounds_are_never_below_what_comes_out() -> None:
    """Profiles of random chains against the matrices that the reference makes."""
    from nnz_kernels.backends import Backend, load_sparse
    from nnz_kernels.convert import csr_from_scipy
    from nnz_service.algebra.operands import Operands

    ops, rng = load_sparse(Backend.REFERENCE), np.random.default_rng(7)
    for trial in range(20):
        side = int(rng.integers(1, 9))
        made = [
            csr_from_scipy(
                scipy.sparse.random_array(
                    (side, side), density=0.3, rng=rng, format="csr"
                )
            )
            for _ in range(2)
        ]
        known = [profiles.Profile.of(made[0]), profiles.Profile.of(made[1])]
        for op in rng.permutation(["spgemm", "add", "transpose", "scale", "submatrix"]):
            params = {"rows": [None, None, -1]} if op == "submatrix" else {}
            pair = op in ("spgemm", "add")
            given = Operands(
                made[-1], made[-2] if pair else None, {}, params, ops, threads=1
            )
            answer = sparse_ops.compute(str(op), given)
            cost, bound = profiles.forecast(
                str(op),
                profiles.Known(known[-1], known[-2] if pair else None, {}, params),
            )
            assert not isinstance(answer, dict)
            assert isinstance(bound, profiles.Profile)
            true = profiles.Profile.of(answer)
            assert (bound.rows >= true.rows).all(), (trial, op)
            assert (bound.columns >= true.columns).all(), (trial, op)
            assert cost.nnz >= answer.nnz
            made.append(answer)
            known.append(bound)


def test_a_forecast_counts_so_many_rows(
    real: httpx2.Client, a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix of one entry may have any number of columns."""
    from nnz_service.worker import chains

    monkeypatch.setattr(chains, "_MOST_CELLS", 11)
    one = {"as": "b", "op": "add", "matrix": a, "other": a}

    fits = ask(real, {"op": "norm", "matrix": a}, preflight=True)
    large = ask(real, one, preflight=True)

    assert (fits.status_code, large.status_code) == (200, 413)
    assert "step 'b' (add): a forecast counts 12 rows" in large.json()["error"]


def test_a_forecast_of_pieces(real: httpx2.Client, a: str) -> None:
    """Slices, and numbers of which one comes twice."""
    answer = ask(
        real,
        {"as": "p", "op": "submatrix", "matrix": a, "rows": [None, None, -2]},
        {"op": "submatrix", "matrix": "p", "inputs": {"columns": "c"}},
        tensors={"c": np.array([2, 0, 2])},
        preflight=True,
    )

    told = [row["output_nnz"] for row in answer.json()["preflight"]["steps"]]
    assert told == [4, 6]
