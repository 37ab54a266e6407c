"""Solve a 2-D Poisson problem with a matrix that nnz holds, in two ways.

scipy's conjugate gradients send one vector a step and get one back; the server's own,
as a job, send the right-hand side once and get the solution once.

Usage: python solve.py [POINTS_PER_SIDE]
The server is the one at NNZ_URL; where that is not set, one inside this process.
"""

from __future__ import annotations

import sys

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import cg

from nnz import Client, JobInfo


def poisson(side: int) -> scipy.sparse.csr_array:
    """The five-point Laplacian of a square of side x side points."""
    line = scipy.sparse.diags_array(
        [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side)
    )
    eye = scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(
        scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line)
    )


def show(job: JobInfo) -> None:
    """Print how far the job is."""
    print(f"  {job.status}: {dict(job.progress)}")


def main(side: int) -> None:
    """Solve both ways and print the residual recomputed here."""
    laplacian = poisson(side)
    b = np.ones(laplacian.shape[0])
    with Client.anywhere() as client:
        A = client.matrices.put(laplacian, name=f"poisson-{side}")
        print(A)
        x, failed = cg(A.as_linear_operator(), b, rtol=1e-8)
        print(f"scipy, the products by nnz: {'failed' if failed else 'converged'}")
        report(laplacian, x, b)

        job = client.jobs.cg(A, b, rtol=1e-8, preconditioner="jacobi")
        result = job.wait(timeout=600, progress=show).result()
        print(f"job of nnz: {result.status} in {result.iterations} iterations")
        report(laplacian, result.x, b)


def report(
    matrix: scipy.sparse.csr_array,
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    b: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    """Print the relative residual by definition."""
    residual = np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)
    print(f"  relative residual {residual:.2e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
