"""Wire the parts of the web process together; no logic here."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from nnz_service.dataplane import Dataplane
from nnz_service.dataplane.admission import Admission
from nnz_service.gateway import Controls, Drain, Turns, open_controls
from nnz_service.gateway.limits import Limits
from nnz_service.jobs import JobStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.web import handlers, openapi
from nnz_service.web.background import lifespan
from nnz_service.web.deps import Parts
from nnz_service.web.hot import hot_routes
from nnz_service.web.middleware.auth import Auth
from nnz_service.web.middleware.context import Context
from nnz_service.web.middleware.gate import Gate
from nnz_service.web.routers import ROUTERS
from nnz_service.web.schemas import BODIES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_DESCRIPTION = """\
nnz computes with pruned networks and sparse matrices and pays only for the nonzeros.

* `/v2` is the Open Inference Protocol with Triton's extensions, for any of its clients.
* `/v1` is nnz's own: put models and matrices, apply operations, run long work as jobs.

Tensors travel as JSON numbers or, better, as bytes behind a JSON header. Every error is
`{"error": "..."}`. Every answer carries `X-Request-Id` and `Server-Timing`.
"""

#: FastAPI's own telemetry, which would make a second span of each request, without the
#: route of the hot ones.
_NATIVE: Any = {"tracing": False, "metrics": False, "logs": False}


def create_app(
    *,
    limits: Limits,
    dataplane: Dataplane,
    repository: Repository,
    jobs: JobStore,
    admission: Admission,
    key: str | None = None,
    drain: Drain | None = None,
    controls: Controls | None = None,
    metrics: Metrics | None = None,
    tracing: TracerProvider | None = None,
    access_log: bool = False,
) -> FastAPI:
    """Build one application; tests build many.

    Args:
        limits: What a request may cost.
        dataplane: The way to the worker; started and closed with the application.
        repository: Stored models and matrices.
        jobs: Where long work is written down.
        admission: Where slots and bytes are reserved; shared by all web processes.
        key: The API key that callers must send; None lets everybody in.
        drain: Set by who ends the process; then it is not ready and holds no answer.
        controls: What callers may change; by default no shared memory, and no other
            process looks at it.
        metrics: What is counted; by default by this process alone.
        tracing: Where spans of requests go; ended with the application.
        access_log: Log a line for every request.
    """
    alone, metrics = controls is None, metrics or Metrics()
    controls = controls or open_controls(repository.home)
    app = FastAPI(
        title="nnz",
        version=version("nnz-server"),
        summary="Sparse networks and sparse matrices over HTTP.",
        description=_DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=_NATIVE,
        lifespan=lifespan(dataplane, controls, metrics, tracing, alone=alone),
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = Parts(
        limits,
        dataplane,
        repository,
        jobs,
        metrics,
        drain or Drain(),
        Turns(repository.home / "run" / "turns"),
        controls,
    )
    _mount(app)
    _wrap(app, limits, admission, metrics, key, access_log, tracing)
    # FastAPI documents this assignment
    app.openapi = lambda: openapi.describe(app, BODIES)  # type: ignore[method-assign]
    return app


def _operation_id(route: APIRoute) -> str:
    path = re.sub(r"[^a-z0-9]+", "_", route.path_format).strip("_")
    method = min(route.methods or {"any"}).lower()
    return f"{method}_{path}"


def _mount(app: FastAPI) -> None:
    app.state.api_routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    app.router.routes[:0] = hot_routes()
    handlers.install(app)


def _wrap(
    app: FastAPI,
    limits: Limits,
    admission: Admission,
    metrics: Metrics,
    key: str | None,
    access_log: bool,
    tracing: TracerProvider | None,
) -> None:
    """Add the middleware; Starlette runs that first which was added last."""
    app.add_middleware(Gate, limits=limits, admission=admission, metrics=metrics)
    app.add_middleware(Auth, key=key)
    app.add_middleware(Context, metrics=metrics, access_log=access_log)
    if tracing is not None:
        from nnz_service.web.middleware.tracing import Tracing

        app.add_middleware(Tracing, provider=tracing)
