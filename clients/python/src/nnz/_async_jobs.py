"""Jobs of an asynchronous client: submitted, listed, fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _rules as rules
from nnz._async_handles import AsyncJob
from nnz._async_matrix import AsyncMatrix
from nnz._chain_jobs import AsyncChainJob
from nnz._expressions import Dense, Expression
from nnz._matrices import floats
from nnz._programs import id_of_job, lp_request
from nnz._sending import AsyncFollow, AsyncSend


class AsyncJobs:
    """Work that takes longer than a request should."""

    def __init__(self, send: AsyncSend, follow: AsyncFollow) -> None:
        self._send = send
        self._follow = follow

    async def cg(
        self,
        matrix: AsyncMatrix | str,
        b: ArrayLike,
        *,
        x0: ArrayLike | None = None,
        rtol: float = 1e-5,
        atol: float = 0.0,
        maxiter: int | None = None,
        preconditioner: str = "none",
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Solve ``A x = b`` by conjugate gradients; see the blocking client."""
        info = matrix.info if isinstance(matrix, AsyncMatrix) else None
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
        return await self._submit("cg", inputs, parameters, idempotency_key)

    async def solve(
        self,
        matrix: AsyncMatrix | str,
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
    ) -> AsyncJob:
        """Solve ``A x = b``; see the blocking client."""
        info = matrix.info if isinstance(matrix, AsyncMatrix) else None
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
        return await self._submit("solve", inputs, parameters, idempotency_key)

    async def lp(
        self,
        matrix: AsyncMatrix | str,
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
        start: AsyncJob | str | None = None,
        eps_rel: float | None = None,
        eps_abs: float | None = None,
        max_iterations: int | None = None,
        time_limit: float | None = None,
        presolve: bool | None = None,
        polish: float | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Solve a linear program; see the blocking client."""
        info = matrix.info if isinstance(matrix, AsyncMatrix) else None
        inputs, parameters = lp_request(
            {"c": c, "lc": lc, "uc": uc, "lv": lv, "uv": uv, "x0": x0, "y0": y0},
            info,
            {
                "matrix": rules.id_of(matrix),
                "start": id_of_job(start),
                "method": method,
                "offset": offset,
                "maximize": maximize,
                "eps_rel": eps_rel,
                "eps_abs": eps_abs,
                "max_iterations": max_iterations,
                "time_limit": time_limit,
                "presolve": presolve,
                "polish": polish,
            },
        )
        return await self._submit("lp", inputs, parameters, idempotency_key)

    async def op(
        self,
        op: str,
        matrix: AsyncMatrix | str,
        other: AsyncMatrix | str | None = None,
        *,
        inputs: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> AsyncJob:
        """Do an operation that may take long; see the blocking client."""
        given = {
            "op": op,
            "matrix": rules.id_of(matrix),
            "other": None if other is None else rules.id_of(other),
            "name": name,
            **{
                key: rules.id_of(value) if isinstance(value, AsyncMatrix) else value
                for key, value in parameters.items()
            },
        }
        arrays = {key: floats(value) for key, value in (inputs or {}).items()}
        return await self._submit("op", arrays, given, idempotency_key)

    async def graph(
        self,
        algorithm: str,
        matrix: AsyncMatrix | str,
        *,
        source: int | None = None,
        damping: float | None = None,
        tol: float | None = None,
        maxiter: int | None = None,
        time_limit: float | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Run an algorithm on a graph; see the blocking client."""
        given = {
            "algorithm": algorithm,
            "matrix": rules.id_of(matrix),
            "source": source,
            "damping": damping,
            "tol": tol,
            "maxiter": maxiter,
            "time_limit": time_limit,
        }
        return await self._submit("graph", {}, given, idempotency_key)

    async def eigs(
        self,
        matrix: AsyncMatrix | str,
        k: int = 6,
        *,
        which: str = "largest",
        tol: float | None = None,
        maxiter: int | None = None,
        time_limit: float | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Compute eigenpairs; see the blocking client."""
        given = {
            "matrix": rules.id_of(matrix),
            "k": k,
            "which": which,
            "tol": tol,
            "maxiter": maxiter,
            "time_limit": time_limit,
        }
        return await self._submit("eigs", {}, given, idempotency_key)

    async def chain(
        self,
        *wanted: Expression | Dense,
        names: Sequence[str | None] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncChainJob:
        """Compute expressions as a job; see the blocking client."""
        call = chain_calls.chain_job(wanted, names, idempotency_key)
        return AsyncChainJob(self._send, self._follow, await self._send(call), wanted)

    async def _submit(
        self,
        kind: str,
        inputs: Mapping[str, ArrayLike],
        parameters: Mapping[str, Any],
        idempotency_key: str | None,
    ) -> AsyncJob:
        call = calls.submit_job(kind, inputs, parameters, idempotency_key)
        return AsyncJob(self._send, self._follow, await self._send(call))

    async def get(self, job_id: str) -> AsyncJob:
        """A handle of a job that was submitted."""
        return AsyncJob(
            self._send, self._follow, await self._send(calls.get_job(job_id))
        )

    async def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[AsyncJob]:
        """Jobs, newest first; see the blocking client."""
        infos = await self._send(calls.list_jobs(limit, status, kind, before))
        return [AsyncJob(self._send, self._follow, info) for info in infos]

    async def cancel(self, job_id: str) -> AsyncJob:
        """Ask a job to stop."""
        return AsyncJob(
            self._send, self._follow, await self._send(calls.cancel_job(job_id))
        )

    async def delete(self, job_id: str) -> None:
        """Forget a job and its result."""
        await self._send(calls.delete_job(job_id))
