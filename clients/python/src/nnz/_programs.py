"""Linear programs: what a job of kind `lp` is sent, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import ArrayLike

from nnz._matrices import floats
from nnz._models import MatrixInfo
from nnz._tensors import Array

_OF_ROWS = ("lc", "uc", "y0")


@dataclass(frozen=True, slots=True)
class LpResult:
    """Where a linear program ended; residuals are those of the program as given.

    Args:
        x: ``(n,)`` values of the variables; empty when there are none.
        y: ``(m,)`` values of the rows, for the objective to minimize.
        reduced_costs: ``(n,)``, as y.
        status: optimal, optimal_relative_only (in relative 2-norms alone), infeasible,
            unbounded, iteration_limit, time_limit or numerical_error.
        method: pdhg or highs.
        iterations: Of that method.
        seconds: Of computing, over all attempts; of highs, of the process that ran it.
        objective: ``c'x + offset``; None without x.
        dual_objective: What y and the reduced costs prove.
        relative_gap: Their distance over their size.
        relative_primal_residual: Violations of rows and variables over the size of the
            bounds of the rows.
        relative_dual_residual: ``c - A'y - reduced_costs`` over the size of c.
        max_primal_violation: The largest violation of a row or a variable.
        max_dual_violation: The largest entry of ``c - A'y - reduced_costs``.
        message: One sentence on why it ended.
        notes: What was read otherwise than it was written.
        ray: Certificate of an infeasible or unbounded program, if there is one.
        summary: Everything that the server said.
    """

    x: Array = field(repr=False)
    y: Array = field(repr=False)
    reduced_costs: Array = field(repr=False)
    status: str
    method: str
    iterations: int
    seconds: float | None
    objective: float | None
    dual_objective: float | None
    relative_gap: float | None
    relative_primal_residual: float | None
    relative_dual_residual: float | None
    max_primal_violation: float | None
    max_dual_violation: float | None
    message: str
    notes: tuple[str, ...]
    ray: Array | None = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def optimal(self) -> bool:
        """Optimal by relative and absolute measures."""
        return self.status == "optimal"

    @property
    def polished(self) -> bool:
        """Whether feasibility polishing was asked for and reached its tolerance."""
        return bool((self.summary.get("polish") or {}).get("reached"))

    @classmethod
    def of(cls, outputs: Mapping[str, Array], summary: Mapping[str, Any]) -> LpResult:
        """Join the tensors and the summary of the job."""
        return cls(
            x=outputs["x"],
            y=outputs["y"],
            reduced_costs=outputs["reduced_costs"],
            status=summary["status"],
            method=summary["method"],
            iterations=int(summary["iterations"]),
            seconds=summary.get("seconds"),
            objective=summary.get("objective"),
            dual_objective=summary.get("dual_objective"),
            relative_gap=summary.get("relative_gap"),
            relative_primal_residual=summary.get("relative_primal_residual"),
            relative_dual_residual=summary.get("relative_dual_residual"),
            max_primal_violation=summary.get("max_primal_violation"),
            max_dual_violation=summary.get("max_dual_violation"),
            message=summary.get("message") or "",
            notes=tuple(summary.get("notes") or ()),
            ray=outputs.get("ray"),
            summary=summary,
        )


class HasId(Protocol):
    """A job that a client holds."""

    @property
    def id(self) -> str:
        """As the server calls it."""
        ...


def id_of_job(job: HasId | str | None) -> str | None:
    """The id of a job that is given as a handle or by its id."""
    return job if job is None or isinstance(job, str) else job.id


def lp_request(
    vectors: Mapping[str, ArrayLike | None],
    matrix: MatrixInfo | None,
    parameters: Mapping[str, Any],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Inputs and parameters of a job; what is None is left to the server.

    Raises:
        ValueError: A vector does not fit the matrix.
    """
    inputs = {name: floats(v) for name, v in vectors.items() if v is not None}
    for name, vector in inputs.items():
        if matrix is None:
            continue
        size = matrix.shape[0 if name in _OF_ROWS else 1]
        if vector.shape != (size,):
            raise ValueError(f"{name} has shape {vector.shape}; ({size},) is right")
    return inputs, {k: v for k, v in parameters.items() if v is not None}
