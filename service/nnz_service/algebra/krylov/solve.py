"""A linear system with one or many right-hand sides, as a resumable state machine."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_service.algebra.krylov.column import Column
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.method import Ended, Steps
from nnz_service.algebra.krylov.preconditioners import (
    Identity,
    Preconditioner,
    prepare,
)
from nnz_service.algebra.krylov.products import NO_ROOM, Products
from nnz_service.algebra.krylov.report import Done, Progress, finite
from nnz_service.algebra.krylov.vectors import HERE, Vector, dot, norm, over, quiet
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError, InvalidMatrixError
from nnz_service.solving import (
    MAX_COLUMNS,
    RECTANGULAR,
    SolveSettings,
    Status,
)

#: Relative difference of ``u'Aw`` and ``w'Au`` that still counts as symmetric.
ASYMMETRY = 1e-6

#: Seconds of a slice that wait for the preconditioner: who waits holds the device.
PATIENCE = 0.005

_log = logging.getLogger(__name__)

Prepare = Callable[[str, MatrixOperator, str, Errand], Preconditioner]


class Solve:
    """Solve ``A x = b``, each column of b by itself, in float64 whatever A holds.

    Convergence is declared only on a residual recomputed from the definition. The
    preconditioner is made on a thread of its own, so that no slice waits for it; large
    LU factors are given up when the solve ends or is closed.

    Args:
        operator: The matrix, (m, n); square but for `lsqr`.
        b: Right-hand side (m,), or (m, k) for several; finite.
        x0: First iterates, (n,) or (n, k); zero by default.
        settings: Method, tolerances, limits, preconditioner.
        clock: Seconds that never go back.
        prepare: Makes the preconditioner; `preconditioners.prepare` by default.

    Raises:
        InvalidMatrixError: The matrix is not square, or not finite.
        InvalidInputError: b or x0 does not fit.
        ImpossibleError: A setting makes no sense, or too much memory is asked for.
    """

    def __init__(
        self,
        operator: MatrixOperator,
        b: HostArray,
        x0: HostArray | None = None,
        settings: SolveSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        prepare: Prepare = prepare,
    ) -> None:
        self.settings = settings or SolveSettings()
        self.settings.check()
        self._a = in_float64(operator, square=self.settings.method not in RECTANGULAR)
        self._clock = clock
        rows, n = self._a.shape
        self._flat = b.ndim == 1
        self.b = _columns("b", b, rows, None)
        k = len(self.b)
        nnz = self._a.matrix.nnz
        self.settings.check_workspace((rows, n), nnz, k)
        self._width = self.settings.width((rows, n), nnz)
        self.x = np.zeros((k, n)) if x0 is None else _columns("x0", x0, n, b.ndim, k)
        limit = self.settings.maxiter or max(1, 10 * max(rows, n))
        self.columns = [
            Column(self.b[j], self.x[j], self.settings, limit) for j in range(k)
        ]
        self.spent = 0.0
        self._products: Products | None = None
        self._over = threading.Event()
        self._errand = Errand(lambda: not self._over.is_set())
        self._making = _on_thread(self._a, self.settings, prepare, self._errand)

    def step(
        self, *, seconds: float | None = None, iterations: int | None = None
    ) -> Progress | Done:
        """Iterate until it ends or the budget is spent; at least one iteration.

        Args:
            seconds: Time to use; it is looked at after each iteration. While the
                preconditioner is made, a few milliseconds go by and nothing more.
            iterations: Iterations to do.
        """
        began = now = self._clock()
        did = 0
        if not self._prepared(None if seconds is None else min(seconds, PATIENCE)):
            now = self._clock()
        else:
            while active := self._active():
                norms = self._ready.norms
                self._run(column.turn(norms) for column in active)
                did += 1
                now = self._clock()
                spent = seconds is not None and now - began >= seconds
                if spent or did == iterations or self._late(now - began):
                    break
        return self._stepped(now - began)

    def make_ready(self, seconds: float) -> Progress | Done:
        """Wait about so long for the preconditioner, and compute nothing.

        Once it is there, so that `prepared` is true, `step` iterates.
        """
        began = self._clock()
        self._prepared(seconds)
        return self._stepped(self._clock() - began)

    @property
    def prepared(self) -> bool:
        """Whether the preconditioner is there, or it is known that there is none."""
        return self._products is not None

    @property
    def elsewhere(self) -> float:
        """Seconds that the making of its preconditioner has taken so far."""
        return self._errand.seconds

    def close(self) -> None:
        """Give up what is made for it elsewhere."""
        self._over.set()

    def progress(self) -> Progress:
        """Return where the solve stands."""
        open_ = self._active() or self.columns
        worst = max(open_, key=lambda c: over(c.residual, c.norm_b))
        return Progress(
            iterations=max(c.iterations for c in self.columns),
            residual=finite(worst.residual),
            target=worst.target,
            relative_residual=finite(over(worst.residual, worst.norm_b)),
            columns=len(self.columns),
            ended=sum(c.outcome is not None for c in self.columns),
            phase="prepare" if self._products is None else "iterate",
        )

    def cancel(self) -> Done:
        """End the solve where it stands."""
        self._end("cancelled", "cancelled by the caller")
        return self._done()

    def state(self) -> dict[str, Any]:
        """Return arrays from which `restore` goes on, bit for bit."""
        found: dict[str, Any] = {"b": self.b, "x": self.x.copy()}
        facts = []
        for j, column in enumerate(self.columns):
            own, kept = column.state()
            facts.append(own)
            found |= {f"{name}.{j}": np.asarray(value) for name, value in kept.items()}
        found["facts"] = np.array(
            json.dumps(
                {
                    "settings": self.settings.to_json(),
                    "flat": self._flat,
                    "spent": self.spent,
                    "columns": facts,
                }
            )
        )
        return found

    @classmethod
    def restore(
        cls,
        operator: MatrixOperator,
        state: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        prepare: Prepare = prepare,
    ) -> Solve:
        """Return a solve that goes on where `state` was taken."""
        facts = json.loads(str(state["facts"]))
        settings = SolveSettings(**facts["settings"])
        b, x = state["b"].T, state["x"].T
        if facts["flat"]:
            b, x = b[:, 0], x[:, 0]
        solve = cls(operator, b, x, settings, clock=clock, prepare=prepare)
        solve.spent = facts["spent"]
        try:
            solve._restore(facts["columns"], state)
        except BaseException:  # its thread must not go on for nobody
            solve.close()
            raise
        return solve

    def _restore(self, facts: list[Any], state: Mapping[str, Any]) -> None:
        try:
            self._take_up(facts, state)
        except NO_ROOM as exc:
            self._come_back(exc)
            self._take_up(facts, state)

    def _take_up(self, facts: list[Any], state: Mapping[str, Any]) -> None:
        for j, (column, own) in enumerate(zip(self.columns, facts, strict=True)):
            kept = {
                name.rpartition(".")[0]: _plain(value)
                for name, value in state.items()
                if name.rpartition(".")[2] == str(j)
            }
            # The end of a direct solve needs no factors, and they take long to make.
            if kept and self.settings.method != "direct":
                self._prepared(None)
            column.restore(own, kept, self._ready.norms if kept else None)

    @property
    def _ready(self) -> Products:
        """The products; those without a preconditioner while it is made."""
        return self._products or self._bare

    @functools.cached_property
    def _bare(self) -> Products:
        return Products(self._a, Identity())

    def _stepped(self, seconds: float) -> Progress | Done:
        """Take in how long a step took; end when it is late."""
        if self._late(seconds):
            self._end("time_limit", f"stopped after {self.settings.time_limit:g} s")
        self.spent += seconds
        return self.progress() if self._active() else self._done()

    def _active(self) -> list[Column]:
        """Return the right-hand sides that are worked on now."""
        found = []
        for column in self.columns:
            if column.outcome is None:
                found.append(column)
                if len(found) == self._width:
                    break
        return found

    def _prepared(self, patience: float | None) -> bool:
        """Wait for the preconditioner; whether it is there. There may be none."""
        if self._products is None:
            try:
                self._products, why = self._making.result(patience)
            except NotYetError:
                return False
            if why is not None:
                self._end(why.status, why.message)
        return True

    def _run(self, courses: Iterable[Steps]) -> None:
        try:
            with quiet():
                self._ready.run(list(courses))
        except NO_ROOM as exc:
            self._come_back(exc)
            for column in self.columns:
                column.begin_anew()

    def _come_back(self, why: Exception) -> None:
        """Compute on the host, which has room, from now on."""
        if self._products is None or self._products.norms.space is HERE:
            raise why
        _log.warning("the solve goes on on the CPU: %s", why)
        self._products = self._products.stays
        # The first ones, with all that they have on the device, go.
        self._making = Future()
        self._making.set_result((self._products, None))

    def _late(self, seconds: float) -> bool:
        limit = self.settings.time_limit
        return limit is not None and self.spent + seconds >= limit

    def _end(self, status: Status, message: str) -> None:
        """End all that has not ended."""
        norms = self._ready.norms
        while active := self._active():
            self._run(column.end(status, message, norms) for column in active)

    def _done(self) -> Done:
        self.close()
        outcomes = tuple(c.outcome for c in self.columns if c.outcome is not None)
        x = self.x[0] if self._flat else np.ascontiguousarray(self.x.T)
        return Done(x, outcomes, self.settings.method, self.settings.preconditioner)


def _on_thread(
    a: MatrixOperator, settings: SolveSettings, prepare: Prepare, errand: Errand
) -> Future[tuple[Products, Ended | None]]:
    """Begin to make a preconditioner; nobody waits at the end of the process."""
    future: Future[tuple[Products, Ended | None]] = Future()

    def run() -> None:
        try:
            future.set_result(_made(a, settings, prepare, errand))
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name="prepare-solve", daemon=True).start()
    return future


def _made(
    a: MatrixOperator, settings: SolveSettings, prepare: Prepare, errand: Errand
) -> tuple[Products, Ended | None]:
    """Make the preconditioner; where there is none, say why."""
    try:
        with quiet():
            found = prepare(settings.preconditioner, a, settings.method, errand)
            _check_symmetric(a, settings.method)
            return Products(a, found), None
    except Ended as end:
        return Products(a, Identity()), end


def in_float64(operator: MatrixOperator, *, square: bool) -> MatrixOperator:
    """Return a real, finite matrix in float64.

    Raises:
        InvalidMatrixError: It is something else, or not square where it must be.
    """
    a = operator.matrix
    if square and a.shape[0] != a.shape[1]:
        raise InvalidMatrixError(
            f"the matrix has shape {list(a.shape)}, but must be square"
        )
    if a.data.dtype.kind == "c":
        raise InvalidMatrixError(f"the matrix holds {a.data.dtype}, but must be real")
    if not np.isfinite(a.data).all():
        raise InvalidMatrixError("the matrix holds a NaN or an infinity")
    if a.data.dtype == np.float64:
        return operator
    wide = replace(a, data=a.data.astype(np.float64))
    return operator.with_matrix(wide)


def _columns(
    name: str, x: HostArray, n: int, ndim: int | None, k: int | None = None
) -> Vector:
    """Return the columns as rows, fresh (k, n)."""
    wanted = f"[{n}]" if ndim != 2 else f"[{n}, {'k' if k is None else k}]"
    if ndim is None:
        wanted = f"[{n}] or [{n}, k]"
    fits = x.ndim in (1, 2) if ndim is None else x.ndim == ndim
    if not fits or x.shape[0] != n or x.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} is {x.dtype} of shape {list(x.shape)}, but must be real of shape "
            f"{wanted}"
        )
    rows = np.array(x.reshape(n, -1 if n else (x.shape[1] if x.ndim == 2 else 1)).T,
                    np.float64, order="C")  # fmt: skip
    if not 1 <= len(rows) <= MAX_COLUMNS or (k is not None and len(rows) != k):
        most = f"1 to {MAX_COLUMNS}" if k is None else str(k)
        raise InvalidInputError(f"{name} has {len(rows)} columns, but must have {most}")
    if not np.isfinite(rows).all():
        j, i = np.argwhere(~np.isfinite(rows))[0]
        at = f"[{i}]" if x.ndim == 1 else f"[{i}, {j}]"
        raise InvalidInputError(f"{name}{at} is {rows[j, i]}, but must be finite")
    return rows


def _check_symmetric(a: MatrixOperator, method: str) -> None:
    """Compare ``u'Aw`` with ``w'Au`` for fixed random vectors."""
    if method not in ("cg", "minres"):
        return
    rng = np.random.default_rng(0)
    u, w = rng.standard_normal((2, a.shape[0]))
    au, aw = a.spmv(u), a.spmv(w)
    scale = norm(u) * norm(aw) + norm(w) * norm(au)
    if abs(dot(u, aw) - dot(w, au)) > ASYMMETRY * scale:
        status: Status = "not_spd" if method == "cg" else "breakdown"
        raise Ended(status, "the matrix is not symmetric (probed by vectors)")


def _plain(value: HostArray) -> Any:
    """Return an array, fresh, or the number that was one."""
    return value.item() if value.ndim == 0 else np.array(value)
