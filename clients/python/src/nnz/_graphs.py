"""Graph algorithms and eigenpairs: what their jobs answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnz._tensors import Array


@dataclass(frozen=True, slots=True)
class GraphResult:
    """What a graph algorithm found.

    Args:
        values: ``(n,)``, a number for each vertex: ranks, levels (-1 where no path
            leads), distances (inf) or labels; None of `triangles`.
        status: converged, iteration_limit (of pagerank), time_limit, or unbounded
            (sssp: a cycle of negative weight can be reached).
        summary: Everything that the server said, such as ``components``,
            ``triangles``, ``depth``, ``reached`` or ``iterations``.
    """

    values: Array | None = field(repr=False)
    status: str
    summary: Mapping[str, Any]

    @classmethod
    def of(
        cls, outputs: Mapping[str, Array], summary: Mapping[str, Any]
    ) -> GraphResult:
        """Join the tensor and the summary of the job."""
        values = next(iter(outputs.values()), None)
        return cls(values, summary["status"], summary)


@dataclass(frozen=True, slots=True)
class EigenResult:
    """Eigenpairs of a symmetric matrix.

    Args:
        eigenvalues: ``(k,)``, the most wanted first.
        eigenvectors: ``(n, k)``, orthonormal columns in the same order.
        residuals: ``(k,)``, norms of ``A x - lambda x``, computed from the definition.
        status: converged, iteration_limit, time_limit or breakdown.
        iterations: Products with the matrix.
        summary: Everything that the server said.
    """

    eigenvalues: Array
    eigenvectors: Array = field(repr=False)
    residuals: Array
    status: str
    iterations: int
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def converged(self) -> bool:
        """The tolerance was reached, by every pair."""
        return self.status == "converged"

    @classmethod
    def of(
        cls, outputs: Mapping[str, Array], summary: Mapping[str, Any]
    ) -> EigenResult:
        """Join the tensors and the summary of the job."""
        return cls(
            eigenvalues=outputs["eigenvalues"],
            eigenvectors=outputs["eigenvectors"],
            residuals=outputs["residuals"],
            status=summary["status"],
            iterations=int(summary["iterations"]),
            summary=summary,
        )
