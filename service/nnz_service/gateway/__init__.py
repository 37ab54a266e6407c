"""What every front door shares, whatever protocol it speaks."""

from nnz_service.gateway.limits import Limits, limits_of
from nnz_service.gateway.parts import Drain, Parts
from nnz_service.gateway.turns import Turns

__all__ = ["Drain", "Limits", "Parts", "Turns", "limits_of"]
