"""The account of each request: what was answered, how long it took, the access log."""

from __future__ import annotations

import re

from starlette.types import Scope

from nnz_service import logs
from nnz_service.gateway.request_ids import request_id
from nnz_service.metrics import Metrics
from nnz_service.repository import is_matrix_id
from nnz_service.web.fields import field
from nnz_service.web.stages import Stages

_INFER = re.compile(
    r"/v2/models/([A-Za-z0-9._-]{1,128})(?:/versions/([0-9]{1,18}))?/infer"
)
#: All matrices together, in metrics; no model can have this name.
_MATRICES = "m-*"
#: Of a servable; a caller may write anything into a path.
_LONGEST_NAME = 128


class Account:
    """Counts requests from their arrival to the end of their answers.

    Args:
        metrics: What is counted in.
        access_log: Write a line of level info about each, instead of level debug.
    """

    def __init__(self, metrics: Metrics, access_log: bool = False) -> None:
        self._metrics = metrics
        self._level = "info" if access_log else "debug"

    def begin(self, scope: Scope) -> Stages:
        """Give a request its name and its clock, in its state."""
        stages = Stages(request_id(field(scope, b"x-request-id") or ""))
        scope.setdefault("state", {})["stages"] = stages
        self._metrics.inflight.inc()
        return stages

    def forget(self) -> None:
        """Take back that a request began: it begins once more, elsewhere."""
        self._metrics.inflight.dec()

    def end(self, scope: Scope, stages: Stages, status: int, size: int) -> None:
        """Write down what came of it: a status, and so many bytes of a body."""
        self._metrics.inflight.dec()
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        # Matrices come and go, and their ids are their owners' business.
        servable = _MATRICES if is_matrix_id(stages.servable) else stages.servable
        self._metrics.answered(route, method, servable, status, stages.elapsed())
        if status >= 400 and (infer := _INFER.fullmatch(scope["path"])):
            name, version = infer.groups("")
            self._metrics.failed(name, version, status)
        if self._level not in (logs.chosen() or (self._level,)):
            return
        named = scope.get("path_params", {}).get("name", "")
        getattr(logs.logger(), self._level)(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(stages.elapsed(), 6),
            bytes_in=stages.bytes_in,
            bytes_out=size,
            servable=stages.servable or named[:_LONGEST_NAME],
        )
