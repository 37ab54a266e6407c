"""HTTP: the Open Inference Protocol under /v2, nnz's own interface under /v1."""

from nnz_service.web.app import create_app
from nnz_service.web.deps import Drain
from nnz_service.web.limits import Limits

__all__ = ["Drain", "Limits", "create_app"]
