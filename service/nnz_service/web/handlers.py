"""From exceptions to answers: every error is ``{"error": "..."}``."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from nnz_service import logs
from nnz_service.errors import ServiceError, UnsupportedModelError
from nnz_service.gateway.faults import fault_of
from nnz_service.web.answers import Json
from nnz_service.web.stages import Stages


def error_answer(exc: ServiceError) -> Response:
    """Build the answer of one error."""
    content: dict[str, object] = {"error": str(exc) or type(exc).__name__}
    if isinstance(exc, UnsupportedModelError):
        content["nodes"] = list(exc.nodes)
    headers = {}
    if exc.retry_after is not None:
        headers["Retry-After"] = str(exc.retry_after)
    if exc.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if exc.status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"
    return Json(content, status_code=exc.status, headers=headers)


def failure_answer(exc: Exception, stages: Stages) -> Response:
    """Build the answer of whatever went wrong; what nobody foresaw is logged."""
    if isinstance(exc, ServiceError):
        return error_answer(exc)
    logs.logger().error("request failed", exc_info=exc)
    return error_answer(fault_of(exc, stages.request_id))


def own_headers(stages: Stages, *, closing: bool) -> list[tuple[bytes, bytes]]:
    """Return what every answer carries, whoever made it, last before a close or not."""
    headers = [
        (b"x-request-id", stages.request_id.encode()),
        (b"server-timing", stages.header().encode()),
    ]
    if closing:
        headers.append((b"connection", b"close"))
    return headers


async def _service_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)  # noqa: S101 - narrows the handler's type
    return error_answer(exc)


async def _validation_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - as above
    problems = [
        f"{' '.join(str(part) for part in error['loc'])}: {error['msg']}"
        for error in exc.errors()
    ]
    return Json({"error": "; ".join(problems)}, status_code=400)


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101 - as above
    headers = dict(exc.headers or {})
    text = str(exc.detail)
    if exc.status_code == HTTPStatus.NOT_FOUND:
        text = f"there is no {request.url.path}; /docs lists every path"
    elif exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed(request))
        headers = {"Allow": allowed}
        text = f"{request.url.path} does not take {request.method}, only {allowed}"
    return Json({"error": text}, status_code=exc.status_code, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Collect the verbs of every route on this path; Starlette names only one's."""
    verbs: set[str] = set()
    for route in request.app.state.api_routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            verbs |= route.methods or set()
    return sorted(verbs)


def install(app: FastAPI) -> None:
    """Register every handler."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
