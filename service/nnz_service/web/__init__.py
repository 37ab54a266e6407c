"""HTTP: the Open Inference Protocol under /v2, nnz's own interface under /v1."""

from nnz_service.web.app import create_app

__all__ = ["create_app"]
