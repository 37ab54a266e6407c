"""Every route, in the order in which paths are tried."""

from nnz_service.web.routers import health, inference

ROUTERS = (health.router, inference.router)
