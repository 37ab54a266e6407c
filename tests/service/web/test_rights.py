"""Every route has a rule, and the rules are those that were promised."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route

from nnz_service.keys import Scope
from nnz_service.web.rights import ANY, OPEN, scopes_for, servable_in
from nnz_service.web.routers import ROUTERS

INFER, ALGEBRA, ADMIN = (frozenset({scope}) for scope in Scope)
MATRIX = "m-0123456789abcdef"
ROUTES = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, Route)
    for method in sorted(route.methods or ())
]


def filled(path: str, **values: Any) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "net"), path)


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/openapi.json")])
def test_every_route_has_a_rule(method: str, path: str) -> None:
    """Who adds a route says who may use it: nnz_service/web/rights.py."""
    there = filled(path)

    assert there in OPEN or scopes_for(method, there) is not None
    if method not in ("GET", "HEAD", "POST"):
        assert scopes_for(method, there)


@pytest.mark.parametrize(
    ("scopes", "methods", "paths"),
    [
        (ANY, "GET", "/v2 /docs /openapi.json /metrics /v1/devices /v1/stats"),
        (ANY, "GET HEAD", "/v2/logging /v2/trace/setting"),
        (ADMIN, "POST", "/v2/logging /v2/trace/setting /v2/models/n/trace/setting"),
        (INFER, "GET", "/v1/models /v1/models/n /v2/models/stats"),
        (ADMIN, "PUT DELETE POST", "/v1/models/n"),
        (ADMIN, "POST", "/v1/models/n/load /v1/models/n/unload"),
        (ADMIN, "POST", "/v2/repository/index /v2/repository/models/n/load"),
        (INFER, "POST", "/v2/models/n/infer /v2/models/n/versions/1/infer"),
        (INFER, "GET HEAD", "/v2/models/n /v2/models/n/ready /v2/models/n/stats"),
        (INFER, "GET", "/v2/models/n/versions/1 /v2/models/n/versions/1/config"),
        (INFER, "GET", "/v2/models/n/trace/setting /v2/models/m-0/stats"),
        (ALGEBRA, "POST", f"/v2/models/{MATRIX}/infer"),
        (ALGEBRA, "POST", f"/v2/models/{MATRIX}/versions/1/infer"),
        (ALGEBRA, "GET", f"/v2/models/{MATRIX} /v2/models/{MATRIX}/ready"),
        (ALGEBRA, "GET POST", "/v1/matrices /v1/jobs"),
        (ALGEBRA, "GET DELETE", f"/v1/matrices/{MATRIX} /v1/jobs/j /v1/jobs/j/result"),
        (ALGEBRA, "GET", f"/v1/matrices/{MATRIX}/spy /v1/matrices/m/content"),
        (ALGEBRA, "PUT", f"/v1/matrices/{MATRIX}/values"),
        (ALGEBRA, "POST", f"/v1/matrices/{MATRIX}/load /v1/matrices/m/unload"),
        (ADMIN, "POST", f"/v1/matrices/{MATRIX}/pin /v1/matrices/m/unpin"),
        (ALGEBRA, "POST PATCH HEAD DELETE", "/v1/uploads /v1/uploads/u-0"),
        (ALGEBRA, "POST", "/v1/ops /v1/ops/spmv /v1/jobs/j/cancel"),
        (ADMIN, "GET", "/v2/systemsharedmemory/status"),
        (ADMIN, "POST", "/v2/systemsharedmemory/region/r/register"),
        (ADMIN, "POST", "/v2/cudasharedmemory/region/r/register"),
    ],
)
def test_rules(scopes: frozenset[Scope], methods: str, paths: str) -> None:
    for method in methods.split():
        for path in paths.split():
            assert scopes_for(method, path) == scopes, (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v2/"),
        ("GET", "/v3"),
        ("POST", "/v2"),
        ("DELETE", "/metrics"),
        ("GET", "/v2/models/n/infer"),
        ("POST", "/v2/models/n/generate"),
        ("POST", "/v2/models/n/versions/1/infer/more"),
        ("DELETE", "/v2/models/n"),
        ("GET", "/v2/models//infer"),
        ("GET", "//v2"),
        ("GET", "/v1/modelsx"),
    ],
)
def test_no_rule(method: str, path: str) -> None:
    assert scopes_for(method, path) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/v2/models/{MATRIX}", MATRIX),
        (f"/v2/models/{MATRIX}/infer", MATRIX),
        (f"/v2/models/{MATRIX}/versions/1/stats", MATRIX),
        (f"/v2/models/{MATRIX}/anything/new", MATRIX),
        ("/v2/models/stats", None),
        ("/v2/models/stats/infer", "stats"),
        ("/v1/models/n", None),
        ("/v2/models/a\nb/infer", "a\nb"),
    ],
)
def test_servable(path: str, name: str | None) -> None:
    assert servable_in(path) == name
