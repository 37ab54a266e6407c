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
    shared_memory,
    status,
    uploads,
)

ROUTERS = (
    health.router,
    inference.router,
    repository.router,
    oip_settings.router,
    shared_memory.router,
    models.router,
    matrices.router,
    uploads.router,
    ops.router,
    jobs.router,
    status.router,
)
