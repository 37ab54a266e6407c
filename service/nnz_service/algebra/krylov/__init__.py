"""Linear systems: resumable solvers of one shape, and their preconditioners."""

from nnz_service.algebra.krylov.report import Done, Outcome, Progress
from nnz_service.algebra.krylov.solve import Solve

__all__ = ["Done", "Outcome", "Progress", "Solve"]
