"""Jobs of a client: submitted, listed, fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _rules as rules
from nnz._chain_jobs import ChainJob
from nnz._expressions import Dense, Expression
from nnz._handles import Job
from nnz._matrices import floats
from nnz._matrix import Matrix
from nnz._programs import id_of_job, lp_request
from nnz._sending import Follow, Send


class Jobs:
    """Work that takes longer than a request should."""

    def __init__(self, send: Send, follow: Follow) -> None:
        self._send = send
        self._follow = follow

    def cg(
        self,
        matrix: Matrix | str,
        b: ArrayLike,
        *,
        x0: ArrayLike | None = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        preconditioner: str = "none",
        idempotency_key: str | None = None,
    ) -> Job:
        """Solve ``A x = b`` by conjugate gradients, A symmetric positive definite.

        Args:
            matrix: On the server: a handle or an id.
            b: ``(n,)`` right-hand side.
            x0: ``(n,)`` first guess; zero when None.
            rtol: Stop when the residual is below ``max(rtol * norm(b), atol)``.
            atol: See rtol.
            maxiter: Most iterations; None lets the server decide (10 n).
            preconditioner: ``none``, ``jacobi``, ``ic0`` or ``chebyshev``.
            idempotency_key: Submitting twice with one key makes one job. Made anew
                for each call when None, so that retries are safe.
        """
        info = matrix.info if isinstance(matrix, Matrix) else None
        inputs, parameters = rules.solve_request(
            b,
            x0,
            info,
            {
                "matrix": rules.id_of(matrix),
                "rtol": rtol,
                "atol": atol,
                "maxiter": maxiter,
                "preconditioner": preconditioner,
            },
        )
        return self._submit("cg", inputs, parameters, idempotency_key)

    def solve(
        self,
        matrix: Matrix | str,
        b: ArrayLike,
        *,
        method: str = "cg",
        x0: ArrayLike | None = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        restart: int | None = None,
        preconditioner: str = "none",
        time_limit: float | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Solve ``A x = b``, for one right-hand side or many.

        Args:
            matrix: On the server: a handle or an id.
            b: ``(n,)``, or ``(n, k)`` for k right-hand sides, each solved by itself.
            method: ``cg`` (A symmetric positive definite), ``minres`` (symmetric),
                ``bicgstab`` or ``gmres`` (square), ``lsqr`` (any shape, least squares)
                or ``direct`` (square: LU and refinement).
            x0: First guess, of the shape of x; zero when None.
            rtol: Converged when the residual is at most ``max(rtol * norm(b), atol)``.
            atol: See rtol.
            maxiter: Most iterations; None lets the server decide (10 n).
            restart: Vectors that ``gmres`` keeps; the server's 30 when None.
            preconditioner: ``none``, ``jacobi``, ``ic0``, ``chebyshev`` or, for
                ``bicgstab`` and ``gmres``, ``ilu0``; ``lsqr`` has the first two and
                ``direct`` none.
            time_limit: Most seconds of computing; None for no limit.
            idempotency_key: Submitting twice with one key makes one job. Made anew
                for each call when None, so that retries are safe.

        Raises:
            ValueError: b or x0 does not fit the matrix.
        """
        info = matrix.info if isinstance(matrix, Matrix) else None
        inputs, parameters = rules.solve_request(
            b,
            x0,
            info,
            {
                "matrix": rules.id_of(matrix),
                "method": method,
                "rtol": rtol,
                "atol": atol,
                "maxiter": maxiter,
                "restart": restart,
                "preconditioner": preconditioner,
                "time_limit": time_limit,
            },
        )
        return self._submit("solve", inputs, parameters, idempotency_key)

    def lp(
        self,
        matrix: Matrix | str,
        c: ArrayLike | None = None,
        *,
        lc: ArrayLike | None = None,
        uc: ArrayLike | None = None,
        lv: ArrayLike | None = None,
        uv: ArrayLike | None = None,
        offset: float | None = None,
        maximize: bool | None = None,
        method: str = "auto",
        x0: ArrayLike | None = None,
        y0: ArrayLike | None = None,
        start: Job | str | None = None,
        eps_rel: float | None = None,
        eps_abs: float | None = None,
        max_iterations: int | None = None,
        time_limit: float | None = None,
        presolve: bool | None = None,
        polish: float | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Solve ``min c'x`` with ``lc <= A x <= uc`` and ``lv <= x <= uv``.

        Vectors that are None are those stored with an MPS file, or else ``0 <= x``.

        Args:
            matrix: On the server: a handle or an id, of a matrix or of an MPS file.
            c: ``(n,)`` costs; needed where only a matrix was stored.
            lc: ``(m,)`` lower bounds of the rows, -inf for none; uc upper ones.
            uc: See lc.
            lv: ``(n,)`` lower bounds of the variables; uv upper ones.
            uv: See lv.
            offset: Constant of the objective.
            maximize: Make the objective as large as it can be.
            method: ``highs``, ``pdhg`` (for large ones and warm starts) or ``auto``.
            x0: ``(n,)`` start of pdhg.
            y0: ``(m,)`` dual start of pdhg.
            start: An lp job of this shape, or its id, whose solution pdhg starts from.
            eps_rel: Relative tolerance; 1e-6 when None, as eps_abs.
            eps_abs: Absolute tolerance.
            max_iterations: Most iterations; None for no limit.
            time_limit: Most seconds of computing; None for no limit.
            presolve: Whether pdhg iterates on what presolve leaves; None: unless it has
                a start.
            polish: Relative residuals that feasibility polishing is to reach, as 1e-9.
            idempotency_key: Submitting twice with one key makes one job.
        """
        info = matrix.info if isinstance(matrix, Matrix) else None
        about = {"matrix": rules.id_of(matrix), "start": id_of_job(start)}
        asked = {"method": method, "offset": offset, "maximize": maximize}
        limits = {"max_iterations": max_iterations, "time_limit": time_limit}
        exact = {"eps_rel": eps_rel, "eps_abs": eps_abs, "polish": polish}
        vectors = {"c": c, "lc": lc, "uc": uc, "lv": lv, "uv": uv, "x0": x0, "y0": y0}
        given = about | asked | limits | exact | {"presolve": presolve}
        inputs, parameters = lp_request(vectors, info, given)
        return self._submit("lp", inputs, parameters, idempotency_key)

    def op(
        self,
        op: str,
        matrix: Matrix | str,
        other: Matrix | str | None = None,
        *,
        inputs: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Job:
        """Do an operation that may take long; its result is a handle of a matrix.

        Args:
            op: ``spgemm`` (A @ B), ``add`` (alpha A + beta B), ``scale`` or ``sddmm``.
            matrix: On the server: a handle or an id.
            other: The second one, of ``spgemm`` and ``add``.
            inputs: Dense operands: ``x`` and ``y`` of ``sddmm``, ``rows`` and
                ``columns`` of ``scale``.
            name: A label for the matrix.
            idempotency_key: Submitting twice with one key makes one job.
            **parameters: Of the operation, such as ``alpha``, or ``semiring`` and
                ``mask`` of ``spgemm``.

        Raises:
            ValueError: A handle is a view, such as ``A.T``; `Matrix.stored` makes a
                matrix of it.
        """
        given = {
            "op": op,
            "matrix": rules.id_of(matrix),
            "other": None if other is None else rules.id_of(other),
            "name": name,
            **{
                key: rules.id_of(value) if isinstance(value, Matrix) else value
                for key, value in parameters.items()
            },
        }
        arrays = {key: floats(value) for key, value in (inputs or {}).items()}
        return self._submit("op", arrays, given, idempotency_key)

    def graph(
        self,
        algorithm: str,
        matrix: Matrix | str,
        *,
        source: int | None = None,
        damping: float | None = None,
        tol: float | None = None,
        maxiter: int | None = None,
        time_limit: float | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Run an algorithm on a graph: entry (i, j) is an edge from i to j.

        Args:
            algorithm: ``pagerank``, ``bfs`` (levels from `source`), ``sssp`` (distances
                from `source`, weights of any sign), ``components`` (weakly connected)
                or ``triangles`` (a number; directions ignored).
            matrix: On the server: a handle or an id; square.
            source: Vertex where `bfs` and `sssp` begin.
            damping: Chance to follow an edge, of `pagerank`; 0.85 when None.
            tol: Of `pagerank`: change of one rank on average; 1e-6 when None.
            maxiter: Rounds of `pagerank` at most; 100 when None.
            time_limit: Seconds of computing, after which it gives what it has.
            idempotency_key: Submitting twice with one key makes one job.
        """
        given = {
            "algorithm": algorithm,
            "matrix": rules.id_of(matrix),
            "source": source,
            "damping": damping,
            "tol": tol,
            "maxiter": maxiter,
            "time_limit": time_limit,
        }
        return self._submit("graph", {}, given, idempotency_key)

    def eigs(
        self,
        matrix: Matrix | str,
        k: int = 6,
        *,
        which: str = "largest",
        tol: float | None = None,
        maxiter: int | None = None,
        time_limit: float | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Compute k eigenpairs of a symmetric matrix.

        Args:
            matrix: On the server: a handle or an id.
            k: How many; up to 256.
            which: ``largest`` or ``smallest`` values, or ``magnitude``: the largest.
            tol: Of the residual over the norm of the matrix; 1e-8 when None.
            maxiter: Most products; None lets the server decide.
            time_limit: Seconds of computing, after which it gives what it has.
            idempotency_key: Submitting twice with one key makes one job.
        """
        given = {
            "matrix": rules.id_of(matrix),
            "k": k,
            "which": which,
            "tol": tol,
            "maxiter": maxiter,
            "time_limit": time_limit,
        }
        return self._submit("eigs", {}, given, idempotency_key)

    def chain(
        self,
        *wanted: Expression | Dense,
        names: Sequence[str | None] | None = None,
        idempotency_key: str | None = None,
    ) -> ChainJob:
        """Compute expressions that take too long for `Client.chain`.

        Its progress names the step under way.

        Example:
            >>> a = A.lazy()  # doctest: +SKIP
            >>> (C,) = client.jobs.chain(a @ a @ a).results()  # doctest: +SKIP

        Args:
            *wanted: Made of `Matrix.lazy`; parts that they share are computed once.
            names: A label for each result that is a matrix.
            idempotency_key: Submitting twice with one key makes one job.

        Raises:
            ValueError: An expression is a stored matrix as it is.
        """
        info = self._send(chain_calls.chain_job(wanted, names, idempotency_key))
        return ChainJob(self._send, self._follow, info, wanted)

    def _submit(
        self,
        kind: str,
        inputs: Mapping[str, ArrayLike],
        parameters: Mapping[str, Any],
        idempotency_key: str | None,
    ) -> Job:
        call = calls.submit_job(kind, inputs, parameters, idempotency_key)
        return Job(self._send, self._follow, self._send(call))

    def get(self, job_id: str) -> Job:
        """A handle of a job that was submitted.

        Raises:
            NotFoundError: There is no such job.
        """
        return Job(self._send, self._follow, self._send(calls.get_job(job_id)))

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first.

        Args:
            status: Only queued, running, succeeded, failed or cancelled ones.
            kind: Only of this kind, such as ``cg``.
            limit: How many at most; 100 when None, up to 1000.
            before: Id of a job; only those that were submitted before it. The last one
                of a list gives the next page.

        Raises:
            NotFoundError: There is no job `before`.
        """
        infos = self._send(calls.list_jobs(limit, status, kind, before))
        return [Job(self._send, self._follow, info) for info in infos]

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop."""
        return Job(self._send, self._follow, self._send(calls.cancel_job(job_id)))

    def delete(self, job_id: str) -> None:
        """Forget a job and its result."""
        self._send(calls.delete_job(job_id))
