"""What the worker computes with: kernels, loaders, solvers; replaceable in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnz_kernels.backends import Backend, choose, probe
from nnz_kernels.backends import load as load_kernels
from nnz_kernels.errors import BackendUnavailableError
from nnz_service.algebra.lp.storage import read_program
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.servable import Servable
from nnz_service.worker.health import check_product
from nnz_service.worker.lp_job import make_lp
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.solvers import (
    SOLVERS,
    Arrays,
    FindMatrix,
    MakeSolver,
    Solver,
)

Progress = Callable[[int, int, str], None]


def choose_backend(device: str) -> Backend:
    """Return the back-end of a worker.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        BackendUnavailableError: CUDA is asked for, but cannot be used.
    """
    backend = choose(device)
    if backend is Backend.CUDA and not (found := probe(backend)).available:
        raise BackendUnavailableError(f"cuda: {found.reason}")
    return backend


def facts_of(backend: Backend) -> dict[str, Any]:
    """Return what a log should say of a choice: the GPU, or why there is none."""
    found = probe(Backend.CUDA)
    if backend is Backend.CUDA:
        return {"name": found.details.get("name")}
    return {"cuda": found.reason or "not asked for"}


@dataclass(frozen=True)
class Toolbox:
    """How one device loads and computes.

    Args:
        backend: Whose kernels.
        threads: None for all cores.
        precision: Of models, as `engine.load` takes it.
        cache: Folder of compiled kernels and measured choices; None for the user's.
        compile_first: Compile every kernel before the worker is ready.
        matrix_bytes: That matrices may hold together, unless pinned ones or a lone one
            take more; None for no bound.
        lp_bytes: That a process of HiGHS may take, which solves or presolves a linear
            program; None for no bound.
        loaders: How to load each kind of servable, instead of the usual way.
        solvers: How to make the solver of each kind of job, besides the usual ones.
    """

    backend: Backend = Backend.CPU
    threads: int | None = None
    precision: str = "fp32"
    cache: Path | None = None
    compile_first: bool = True
    matrix_bytes: int | None = None
    lp_bytes: int | None = None
    loaders: dict[str, Callable[[Path], Servable]] = field(default_factory=dict)
    solvers: dict[str, MakeSolver] = field(default_factory=dict)

    def warm(self, progress: Progress) -> None:
        """Compile what the back-end needs and its cache lacks."""
        if self.backend is Backend.CPU and self.compile_first:
            from nnz_kernels.cpu import catalog

            if not catalog.is_complete():
                catalog.warm(progress)
        if self.backend is Backend.CUDA and self.compile_first:
            from nnz_kernels.cuda.warm import warm

            kernels: Any = load_kernels(self.backend, self.precision)
            warm(kernels, progress)

    def load(self, kind: str, path: Path) -> Servable:
        """Read a file into a servable; takes as long as it takes.

        Raises:
            ServiceError: when the file cannot be served.
        """
        if (loader := self.loaders.get(kind)) is not None:
            return loader(path)
        if kind == "matrix":
            operator = MatrixOperator.load(path, self.backend, self.threads)
            program = read_program(path, operator.matrix)
            return MatrixServable(operator, program=program)
        return self._load_model(path)

    @property
    def job_kinds(self) -> list[str]:
        """Kinds of job that can be run."""
        return sorted({*SOLVERS, *self.solvers})

    def solver(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> Solver:
        """Make the solver of a job, going on from `state` when there is one.

        Raises:
            ServiceError: when parameters or inputs are not usable.
        """
        make = self.solvers.get(kind) or SOLVERS[kind]
        if make is make_lp:
            memory = self.lp_bytes
            return make_lp(params, inputs, find_matrix, state, memory=memory)
        return make(params, inputs, find_matrix, state)

    def check(self) -> None:
        """Compute something whose answer is known, on the device.

        Raises:
            DeviceLostError: The answer is wrong: nothing computed there can be trusted.
        """
        check_product(self.backend)

    def gpu_memory(self) -> dict[str, Any] | None:
        """Bytes of the GPU's memory and of those in use; None without a GPU."""
        if self.backend is not Backend.CUDA:
            return None
        kernels: Any = load_kernels(self.backend)
        launcher = kernels.device.launcher
        facts, (left, total) = launcher.describe(), launcher.memory()
        used = max(facts.get("limit", total) - left, 0)
        name = facts.get("uuid") or f"{facts['name']} {facts.get('number', 0)}"
        return {"uuid": name, "total": total, "used": used}

    def devices(self) -> list[dict[str, Any]]:
        """What a look at each back-end found."""
        return [_describe(backend) for backend in Backend]

    def _load_model(self, path: Path) -> Servable:
        from nnz_service import engine
        from nnz_service.worker.models import ModelServable

        model = engine.load(
            path,
            backend=self.backend.value,
            threads=self.threads,
            precision=self.precision,
            cache_dir=self.cache,
        )
        return ModelServable(model, bitwise=self.backend is Backend.CPU)


def _describe(backend: Backend) -> dict[str, Any]:
    found = probe(backend)
    return {
        "backend": found.backend.value,
        "available": found.available,
        "reason": found.reason,
        "families": list(found.families),
        **found.details,
    }
