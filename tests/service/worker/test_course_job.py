"""Graph algorithms and eigenpairs as jobs, across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.graphs import components, paths, triangles
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError, InvalidMatrixError
from nnz_service.repository import BlobStore, bundles
from nnz_service.web.graph_jobs import ALGORITHMS
from nnz_service.worker.course_job import CourseJob
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.solvers import SOLVERS


def held(matrix: Any) -> MatrixServable:
    return MatrixServable(
        MatrixOperator(csr_from_scipy(scipy.sparse.csr_array(matrix)), Backend.CPU)
    )


def symmetric(n: int) -> Any:
    rng = np.random.default_rng(0)
    half = scipy.sparse.random_array((n, n), density=4 / n, rng=rng, format="csr")
    return scipy.sparse.csr_array(half + half.T, dtype=np.float32)


CASES = [("eigs", {"k": 2}), *(("graph", {"algorithm": name}) for name in ALGORITHMS)]


@pytest.mark.parametrize(("kind", "params"), CASES)
def test_a_checkpoint_on_disk_is_enough(
    kind: str, params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each slice another process goes on, to the same bits."""
    monkeypatch.setattr(paths, "EDGES", 40)
    monkeypatch.setattr(components, "EDGES", 40)
    monkeypatch.setattr(triangles, "PART", 40)
    blobs, servable = BlobStore(tmp_path), held(symmetric(61))
    params = {"matrix": "m-a", **params}
    if params.get("algorithm") in ("bfs", "sssp"):
        params["source"] = 5

    def make(state: Any = None) -> Any:
        return SOLVERS[kind](params, {}, lambda _: servable, state)

    whole, parts = make(), make()
    while not whole.step(60.0):
        pass
    slices = 1
    while not parts.step(0.0):
        blob = bundles.save(blobs, parts.state())
        parts = make(bundles.load(blobs.path(blob.sha256)))
        slices += 1

    facts, arrays = whole.result()
    again, found = parts.result()
    assert facts == again
    assert facts["status"] == "converged"
    assert {k: v.tobytes() for k, v in arrays.items()} == {
        k: v.tobytes() for k, v in found.items()
    }
    assert slices > 1
    assert isinstance(parts.progress(), dict)


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (np.ones((2, 3)), "must be square"),
        ([[1.0, np.inf], [np.inf, 1]], "a NaN or an infinity"),
        ([[1j, 0], [0, 1]], "must be real"),
    ],
)
def test_matrices_that_are_no_graphs(matrix: Any, text: str) -> None:
    params = {"matrix": "m-a", "algorithm": "components"}
    with pytest.raises(InvalidMatrixError, match=text):
        SOLVERS["graph"](params, {}, lambda _: held(matrix), None)


def test_a_model_is_no_matrix() -> None:
    model: Any = object()
    with pytest.raises(InvalidInputError, match="'m-a' is not a matrix"):
        SOLVERS["eigs"]({"matrix": "m-a", "k": 1}, {}, lambda _: model, None)


def test_entries_that_were_stored_twice_are_one_edge() -> None:
    """A matrix is brought into canonical form first."""
    twice = scipy.sparse.csr_array(
        (np.array([1.0, 2, 1]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2)
    )
    params = {"matrix": "m-a", "algorithm": "sssp", "source": 0}
    operator = MatrixOperator(csr_from_scipy(twice), Backend.REFERENCE)

    job = SOLVERS["graph"](params, {}, lambda _: MatrixServable(operator), None)
    while not job.step(0.0):
        pass

    assert job.result()[1]["distances"].tolist() == [0, 3]


class TestTimeLimit:
    """What has no time left ends with what there is."""

    def job(self, kind: str, limit: float, state: Any = None, **params: Any) -> Any:
        params = {"matrix": "m-a", "time_limit": limit, **params}
        servable = held(symmetric(61))
        return SOLVERS[kind](params, {}, lambda _: servable, state)

    @pytest.mark.parametrize(
        ("params", "name"),
        [
            ({"algorithm": "pagerank", "tol": 0.0}, "ranks"),
            ({"algorithm": "bfs", "source": 5}, "levels"),
            ({"algorithm": "sssp", "source": 5}, "distances"),
        ],
    )
    def test_a_graph_after_a_round(
        self, params: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "EDGES", 10)
        job = self.job("graph", 0.0, **params)

        assert job.step(60.0)
        facts, arrays = job.result()

        assert facts["status"] == "time_limit"
        whole = self.job("graph", 1e9, **params)
        while not whole.step(60.0):
            pass
        facts, found = whole.result()
        assert facts["status"] in ("converged", "iteration_limit")
        assert arrays[name].shape == found[name].shape
        assert arrays[name].tobytes() != found[name].tobytes()

    def test_what_is_done_in_time_is_done(self) -> None:
        """Its last round was also the first one that was late."""
        job = self.job("graph", 0.0, algorithm="triangles")

        assert job.step(60.0)
        assert job.result()[0]["status"] == "converged"

    @pytest.mark.parametrize("rounds", [1, 3, 7, 20, 21, 22, 26])
    def test_pairs_at_hand_are_measured(self, rounds: int) -> None:
        """Cut before the first restart, in it, and later; through a checkpoint."""
        a = symmetric(61).astype(np.float64)
        job = self.job("eigs", 1e9, k=3, which="largest", tol=1e-12)
        for _ in range(rounds):
            assert not job.step(0.0)
        late = self.job("eigs", 0.0, job.state(), k=3, which="largest", tol=1e-12)
        steps = 0
        while not late.step(0.0):
            steps += 1
            late = self.job("eigs", 0.0, late.state(), k=3, which="largest", tol=1e-12)

        facts, arrays = late.result()

        assert facts["status"] == "time_limit"
        values, vectors = arrays["eigenvalues"], arrays["eigenvectors"]
        assert steps < 10
        assert values.shape == arrays["residuals"].shape == (min(3, rounds + 1),)
        assert vectors.shape == (61, values.size)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(values.size), atol=1e-12)
        np.testing.assert_allclose(
            np.linalg.norm(a @ vectors - vectors * values, axis=0),
            arrays["residuals"], atol=1e-12,
        )  # fmt: skip
        assert values[0] <= np.linalg.eigvalsh(a.toarray())[-1] + 1e-12

    def test_time_of_earlier_attempts_counts(self) -> None:
        course = self.job("graph", 1e9, algorithm="pagerank", tol=0.0)._course
        ticks = iter(range(100))
        state = {**course.state(), "spent": np.array(7.0)}
        job = CourseJob(course, 10.0, state, clock=lambda: float(next(ticks)))

        assert not job.step(1.0)
        assert float(job.state()["spent"]) == 9.0
        assert job.step(1.0)
        assert job.result()[0]["status"] == "time_limit"
