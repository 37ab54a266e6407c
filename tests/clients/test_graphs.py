"""Graph algorithms and eigenpairs through both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import nnz

#: A triangle, and a pair beside it.
GRAPH = scipy.sparse.csr_array(
    (np.ones(8), ([0, 1, 1, 2, 2, 0, 3, 4], [1, 0, 2, 1, 0, 2, 4, 3])), shape=(5, 5)
)


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    if request.param == "sync":
        with nnz.Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = nnz.AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


def test_graphs_and_eigenpairs(client: Any) -> None:
    a = client.matrices.put(GRAPH)

    def found(algorithm: str, **how: Any) -> Any:
        return client.jobs.graph(algorithm, a, **how).result(60)

    assert found("components").values.tolist() == [0, 0, 0, 1, 1]
    assert found("components").summary["components"] == 2
    assert found("bfs", source=0).values.tolist() == [0, 1, 1, -1, -1]
    assert found("sssp", source=3).values.tolist() == [np.inf] * 3 + [0, 1]
    ranks = found("pagerank", damping=0.5, tol=1e-9)
    assert isinstance(ranks, nnz.GraphResult)
    np.testing.assert_allclose(ranks.values, 0.2)
    line = client.matrices.put(scipy.sparse.eye_array(60, k=1, format="csr"))
    short = client.jobs.graph("pagerank", line, tol=0.0, time_limit=1e-6).result(60)
    assert short.status == "time_limit"
    triangles = found("triangles")
    assert (triangles.values, triangles.summary["triangles"]) == (None, 1)

    pairs = client.jobs.eigs(a, 2, tol=1e-10).result(60)
    assert isinstance(pairs, nnz.EigenResult)
    assert pairs.converged
    np.testing.assert_allclose(pairs.eigenvalues, [2, 1])
    left = GRAPH @ pairs.eigenvectors - pairs.eigenvectors * pairs.eigenvalues
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), pairs.residuals, atol=1e-9)

    made = client.jobs.op("spgemm", a, a, semiring="or_and", mask=a).result(60)
    wanted = GRAPH * ((GRAPH @ GRAPH) != 0)
    np.testing.assert_array_equal(made.to_scipy().toarray(), wanted.toarray())
