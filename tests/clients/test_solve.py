"""Linear systems as jobs: what is sent, and what comes back; both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse

import nnz
from nnz import AsyncClient, Client

MATRIX = {"id": "m-1", "name": None, "shape": [2, 3], "nnz": 4, "dtype": "FP32"}
JOB = {"id": "j", "kind": "solve", "status": "queued"}

_LINE = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(9, 9))
POISSON = scipy.sparse.csr_array(
    scipy.sparse.kron(_LINE, scipy.sparse.eye_array(9))
    + scipy.sparse.kron(scipy.sparse.eye_array(9), _LINE)
)


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    """The real application inside this process."""
    if request.param == "sync":
        with Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


class TestSent:
    def test_solve_says_everything(self, connect: Any, fake: Any) -> None:
        wide = MATRIX | {"shape": [2, 3]}
        server = fake(httpx2.Response(200, json=wide), httpx2.Response(200, json=JOB))
        client = connect(server)

        client.jobs.solve(
            client.matrices.get("m-1"),
            np.ones((2, 4)),
            method="lsqr",
            x0=np.zeros((3, 4)),
            rtol=1e-8,
            restart=7,
            time_limit=2.5,
        )

        assert server.json["kind"] == "solve"
        assert server.json["parameters"] == {
            "matrix": "m-1",
            "method": "lsqr",
            "rtol": 1e-8,
            "atol": 0.0,
            "restart": 7,
            "preconditioner": "none",
            "time_limit": 2.5,
            "binary_data_output": True,
        }
        described = [(t["name"], t["shape"]) for t in server.json["inputs"]]
        assert described == [("b", [2, 4]), ("x0", [3, 4])]

    def test_a_guess_that_does_not_fit(self, connect: Any, fake: Any) -> None:
        server = fake(httpx2.Response(200, json=MATRIX | {"shape": [2, 2]}))
        matrix = connect(server).matrices.get("m-1")

        with pytest.raises(ValueError, match=r"x0 has shape \(2,\); \(2, 3\) is right"):
            connect(server).jobs.solve(matrix, np.ones((2, 3)), x0=np.ones(2))


class TestSolved:
    @pytest.mark.parametrize(
        ("method", "preconditioner"),
        [
            ("cg", "ic0"), ("minres", "chebyshev"), ("bicgstab", "ilu0"),
            ("gmres", "jacobi"), ("lsqr", "none"), ("direct", "none"),
        ],
    )  # fmt: skip
    def test_solve(self, client: Any, method: str, preconditioner: str) -> None:
        """Two right-hand sides by every method, residuals recomputed here."""
        matrix = POISSON
        b = np.random.default_rng(2).standard_normal((81, 2))
        remote = client.matrices.put(matrix)

        result = client.jobs.solve(
            remote, b, method=method, preconditioner=preconditioner, rtol=1e-9
        ).result(timeout=60)

        assert result.converged, result
        assert (result.method, result.preconditioner) == (method, preconditioner)
        residuals = np.linalg.norm(b - matrix @ result.x, axis=0)
        assert (residuals <= 1.01e-9 * np.linalg.norm(b, axis=0)).all()
        assert [row["status"] for row in result.columns] == ["converged"] * 2
        assert result.componentwise_backward_error <= 1e-8

    def test_solve_tells_what_is_wrong(self, client: Any) -> None:
        """An answer with a status where it ran, an error where it could not."""
        singular = client.matrices.put(scipy.sparse.csr_array(np.ones((2, 2))))

        result = client.jobs.solve(singular, [1.0, 2.0], method="direct").result(60)

        assert result.status == "singular"
        assert np.isfinite(result.x).all()
        with pytest.raises(nnz.ImpossibleError, match="ilu0"):
            client.jobs.solve(singular, [1.0, 2.0], preconditioner="ilu0")
