"""Which scopes open which path; the one table of it."""

from __future__ import annotations

import re

from nnz_service.gateway.ownership import scopes_of
from nnz_service.keys import Scope

#: Any key will do.
ANY: frozenset[Scope] = frozenset()
_INFER = frozenset({Scope.INFER})
_ALGEBRA = frozenset({Scope.ALGEBRA})
_ADMIN = frozenset({Scope.ADMIN})

_LOOKING = frozenset({"GET", "HEAD"})
#: Probes carry no secrets, and what they answer is none.
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
_STATISTICS = "/v2/models/stats"
#: Only to be looked at.
_FIXED = {
    **dict.fromkeys(("/v2", "/docs", "/openapi.json", "/metrics"), ANY),
    **dict.fromkeys(("/v1/devices", "/v1/stats", "/v1/usage"), ANY),
    _STATISTICS: _INFER,
}
_SETTINGS = frozenset({"/v2/logging", "/v2/trace/setting"})
#: Whatever lies below these takes one scope, for looking too.
_WHOLE = (
    (re.compile(r"/v1/(matrices|uploads|ops|jobs)(/.*)?", re.S), _ALGEBRA),
    (re.compile(r"/v2/(repository|(system|cuda)sharedmemory)/.*", re.S), _ADMIN),
)
#: What is pinned takes memory from everybody.
_PINS = re.compile(r"/v1/matrices/[^/]+/(un)?pin", re.S)
_MODELS = re.compile(r"/v1/models(/.*)?", re.S)
_SERVABLE = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?(/.*)?", re.S)
_ASKING = frozenset({None, "/ready", "/stats", "/config", "/trace/setting"})


def servable_in(path: str) -> str | None:
    """Return the name of the model or matrix that a path of the protocol is about."""
    found = _SERVABLE.fullmatch(path)
    return found[1] if found and path != _STATISTICS else None


def scopes_for(method: str, path: str) -> frozenset[Scope] | None:
    """Return the scopes of which a caller needs one; admin opens everything besides.

    Args:
        method: GET, PUT and so on.
        path: Decoded, without the query.

    Returns:
        Empty where any key will do; None where no rule says anything.
    """
    looking = method in _LOOKING
    if path in _FIXED:
        return _FIXED[path] if looking else None
    if path in _SETTINGS:
        return ANY if looking else _ADMIN
    if _PINS.fullmatch(path):
        return _ADMIN
    for below, scopes in _WHOLE:
        if below.fullmatch(path):
            return scopes
    if _MODELS.fullmatch(path):
        return _INFER if looking else _ADMIN
    if found := _SERVABLE.fullmatch(path):
        return _of_servable(method, found[1], found[2])
    return None


def _of_servable(method: str, name: str, rest: str | None) -> frozenset[Scope] | None:
    using = scopes_of(name)
    if method in _LOOKING:
        return using if rest in _ASKING else None
    if method == "POST":
        return {"/infer": using, "/trace/setting": _ADMIN}.get(rest or "")
    return None
