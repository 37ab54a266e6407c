"""Wire the parts of the web process together; no logic here."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from nnz_service.dataplane import Dataplane
from nnz_service.dataplane.admission import Admission
from nnz_service.gateway import Controls, Drain, Turns, Watch, open_controls
from nnz_service.gateway.limits import Limits
from nnz_service.jobs import JobStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.web import handlers, openapi
from nnz_service.web.account import Account
from nnz_service.web.background import lifespan
from nnz_service.web.bodies import HEADER_LENGTH
from nnz_service.web.bounds import Bounds
from nnz_service.web.deps import Parts
from nnz_service.web.direct import Direct
from nnz_service.web.door import Door
from nnz_service.web.guard import Guard
from nnz_service.web.middleware.audit import Audit
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
`{"error": "..."}`; besides those that are listed, any request may be a 400 (its head
cannot be read), 408 (its body stopped arriving), 413 (it is too large) or 504
(there was no answer in time). Answers carry `X-Request-Id` and `Server-Timing`;
refusals of what is no whole request lack the second, and answers to a browser's
preflight both.
"""

#: Headers that a web page may send and read, beside those that every page may.
_SENT_BY_PAGES = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    HEADER_LENGTH,
    "Idempotency-Key",
    "Upload-Length",
    "Upload-Offset",
    "X-Request-Id",
)
_READ_BY_PAGES = (
    HEADER_LENGTH,
    "Retry-After",
    "Server-Timing",
    "Upload-Length",
    "Upload-Offset",
    "X-Batch-Size",
    "X-Request-Id",
)

#: FastAPI's own telemetry, which would make a second span of each request, without the
#: route of the hot ones.
_NATIVE: Any = {"tracing": False, "metrics": False, "logs": False}
_ABOUT: dict[str, Any] = {
    "title": "nnz",
    "version": version("nnz-server"),
    "summary": "Sparse networks and sparse matrices over HTTP.",
    "description": _DESCRIPTION,
    "redirect_slashes": False,
    "docs_url": None,
    "redoc_url": None,
    "telemetry": _NATIVE,
}


def create_app(
    *,
    limits: Limits,
    dataplane: Dataplane,
    repository: Repository,
    jobs: JobStore,
    admission: Admission,
    guard: Guard | None = None,
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
        guard: Who watches the door; None lets everybody in.
        drain: Set by who ends the process; then it is not ready and holds no answer.
        controls: What callers may change; by default no shared memory, and no other
            process looks at it.
        metrics: What is counted; by default by this process alone.
        tracing: Where spans of requests go; ended with the application.
        access_log: Log a line for every request.
    """
    drain = drain or Drain()
    alone, metrics = controls is None, metrics or Metrics()
    controls = controls or open_controls(repository.home)
    guard = guard or Guard()
    watch = Watch(jobs, lambda: drain.begun)
    app = FastAPI(
        **_ABOUT,
        lifespan=lifespan(dataplane, controls, watch, metrics, tracing, alone=alone),
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = Parts(
        limits,
        dataplane,
        repository,
        jobs,
        metrics,
        drain,
        Turns(repository.home / "run" / "turns"),
        controls,
        watch,
        admission,
    )
    _mount(app)
    bounds = Bounds(limits, admission, metrics)
    _add_layers(app, guard, bounds, Account(metrics, access_log), tracing)
    # FastAPI documents this assignment
    app.openapi = lambda: openapi.describe(app, BODIES)  # type: ignore[method-assign]
    return app


def _add_layers(
    app: FastAPI,
    guard: Guard,
    bounds: Bounds,
    account: Account,
    tracing: TracerProvider | None,
) -> None:
    """Put the layers around the routes, and what answers beside them."""
    parts: Parts = app.state.parts
    routes = app.state.api_routes
    keyring, repository = guard.keyring, parts.repository
    door = Door(keyring, repository, routes, guard.origins, guard.local)
    # Starlette runs the middleware that was added last first.
    app.add_middleware(Gate, bounds=bounds)
    app.add_middleware(Auth, door=door)
    app.add_middleware(Context, account=account, drain=parts.drain)
    if guard.audit is not None:
        app.add_middleware(Audit, log=guard.audit, routes=routes)
    if guard.origins:
        # Outside of the door: a browser asks first, without the key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=guard.origins,
            allow_methods=("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"),
            allow_headers=_SENT_BY_PAGES,
            expose_headers=_READ_BY_PAGES,
        )
    if tracing is None:
        app.state.direct = Direct(parts, door, bounds, account)
    else:  # every request has a span
        from nnz_service.web.middleware.tracing import Tracing

        app.add_middleware(Tracing, provider=tracing)


def _operation_id(route: APIRoute) -> str:
    path = re.sub(r"[^a-z0-9]+", "_", route.path_format).strip("_")
    method = min(route.methods or {"any"}).lower()
    return f"{method}_{path}"


def _mount(app: FastAPI) -> None:
    app.state.api_routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    handlers.install(app)
