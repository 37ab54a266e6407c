"""Every route, in the order in which paths are tried."""

from nnz_service.web.routers import (
    health,
    inference,
    jobs,
    matrices,
    models,
    oip_settings,
    ops,
    repository,
    status,
)

ROUTERS = (
    health.router,
    inference.router,
    repository.router,
    oip_settings.router,
    models.router,
    matrices.router,
    ops.router,
    jobs.router,
    status.router,
)
