"""What a request may cost: its size, its time, its place among those under way."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.types import Scope

from nnz_service.dataplane.admission import Admission, Reservation
from nnz_service.errors import MalformedError, OverloadedError, TooLargeError
from nnz_service.gateway.limits import Limits
from nnz_service.keys import ANYBODY, Caller
from nnz_service.metrics import Metrics
from nnz_service.web.fields import field
from nnz_service.web.stages import Stages

#: What an upload holds in memory while it goes to disk.
_UPLOAD_BUFFER = 4 << 20
#: The longest that `GET /v1/jobs/{id}?wait=` may hold its answer back.
_LONGEST_WAIT = 60.0
#: The longest that one stream of events lives; its client comes back.
_LONGEST_STREAM = 3600.0

_TENSORS = re.compile(r"/v2/models/.+/infer|/v1/ops(/.+)?|/v1/jobs")
_VALUES = re.compile(r"/v1/matrices/[^/]+/values")
_PICTURES = re.compile(r"/v1/matrices/[^/]+/spy")
_UPLOADS = re.compile(r"/v1/models/[^/]+|/v1/matrices")
_PIECES = re.compile(r"/v1/uploads/[^/]+")
_RESULTS = re.compile(r"/v1/jobs/[^/]+/result|/v1/matrices/[^/]+/content")
_EVENTS = re.compile(r"/v1/jobs/[^/]+/events")
_LOADS = re.compile(r".+/(un)?(load|pin)")


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one request.

    Args:
        limit: Bytes of its body.
        seconds: Until its answer; None where the work has bounds of its own.
        reserve: Bytes to reserve when the length is unknown; None needs no slot. With 0
            the route asks for its bytes when it knows them.
        computes: Whether anything is computed for it.
    """

    limit: int
    seconds: float | None
    reserve: int | None = None
    computes: bool = True


def rule_of(method: str, path: str, limits: Limits) -> Rule:
    """Choose the rule for a request, before anything of it is read."""
    if method in ("PUT", "POST") and _UPLOADS.fullmatch(path):
        return Rule(limits.max_upload, None, _UPLOAD_BUFFER)
    if method == "PATCH" and _PIECES.fullmatch(path):
        return Rule(limits.max_upload, None, _UPLOAD_BUFFER)
    if method == "PUT" and _VALUES.fullmatch(path):
        return Rule(limits.max_body, None, limits.max_body)
    if method == "POST" and _TENSORS.fullmatch(path):
        return Rule(limits.max_body, limits.request_timeout, limits.max_body)
    if (method, path) == ("POST", "/v1/uploads") or _PICTURES.fullmatch(path):
        return Rule(limits.max_json, limits.request_timeout, 0)
    if method == "POST" and _LOADS.fullmatch(path):
        return Rule(limits.max_json, None)
    if _EVENTS.fullmatch(path):
        return Rule(limits.max_json, _LONGEST_STREAM)
    large = method == "GET" and _RESULTS.fullmatch(path)
    waits = _LONGEST_WAIT if path.startswith("/v1/jobs/") else 0.0
    seconds = limits.request_timeout + waits
    return Rule(limits.max_json, seconds, 0 if large else None, computes=not large)


class Bounds:
    """Looks at the heads of requests.

    Args:
        limits: What a request may cost.
        admission: Where slots and bytes are reserved.
        metrics: Counts refusals.
    """

    def __init__(self, limits: Limits, admission: Admission, metrics: Metrics) -> None:
        self.limits = limits
        self._admission = admission
        self._metrics = metrics

    def admit(self, scope: Scope, stages: Stages) -> Rule:
        """Set the deadline of a request and reserve what it needs; its stages hold it.

        Raises:
            MalformedError: Its Content-Length is no number.
            TooLargeError: Its Content-Length passes the limit.
            OverloadedError: There is no room for it now.
        """
        rule = rule_of(scope["method"], scope["path"], self.limits)
        length = _content_length(scope)
        if length is not None and length > rule.limit:
            raise too_large(f"{length} bytes", rule.limit)
        stages.deadline = rule.seconds
        stages.reservation = self._reserve(scope, rule, length)
        return rule

    def _reserve(
        self, scope: Scope, rule: Rule, length: int | None
    ) -> Reservation | None:
        if rule.reserve is None:
            return None
        # A compressed body may unfold to the limit, whatever its length.
        encoded = field(scope, b"content-encoding") is not None
        known = rule.reserve if length is None or encoded else length
        caller: Caller = scope["state"].get("caller", ANYBODY)
        try:
            return self._admission.reserve(
                min(known, rule.reserve), caller, computes=rule.computes
            )
        except OverloadedError:
            self._metrics.refused.inc()
            raise


def _content_length(scope: Scope) -> int | None:
    text = field(scope, b"content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedError(f"Content-Length is {text!r}; it must be a number")
    return int(text)


def too_large(found: str, limit: int) -> TooLargeError:
    """Say what of a body passes which limit, and what to do."""
    return TooLargeError(
        f"the body has {found}, the limit here is {limit}; send less at once, or raise "
        "the limits of the server (NNZ_MAX_BODY, NNZ_MAX_JSON; NNZ_MAX_UPLOAD for what "
        "is put)"
    )
