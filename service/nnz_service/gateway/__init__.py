"""What every front door shares, whatever protocol it speaks."""

from nnz_service.gateway.controls import Controls, forget_controls, open_controls
from nnz_service.gateway.limits import Limits, limits_of
from nnz_service.gateway.parts import Drain, Parts
from nnz_service.gateway.turns import Turns
from nnz_service.gateway.watch import Watch

__all__ = [
    "Controls",
    "Drain",
    "Limits",
    "Parts",
    "Turns",
    "Watch",
    "forget_controls",
    "limits_of",
    "open_controls",
]
