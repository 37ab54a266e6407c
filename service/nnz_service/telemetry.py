"""OpenTelemetry, when the extra `otel` is installed and a collector is named.

Nothing of OpenTelemetry is imported before that.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nnz_service import __version__
from nnz_service.errors import ServiceError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
#: Where a collector takes traces (OTLP specification, "OTLP/HTTP Request").
_PATH = "/v1/traces"
_SECONDS = 5  # for one batch to be taken; the end of a process waits no longer


class TelemetryError(ServiceError):
    """Spans are to be sent, but cannot be."""


def check_endpoint(endpoint: str | None) -> None:
    """Refuse an endpoint that cannot be used, before anything starts.

    Raises:
        TelemetryError: saying what to install or to write.
    """
    if not endpoint:
        return
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise TelemetryError(
            f"NNZ_OTEL_ENDPOINT is {endpoint!r}; it must be the URL of a collector, "
            "such as http://localhost:4318"
        )
    if missing := [name for name in _NEEDED if not _installed(name)]:
        raise TelemetryError(
            f"NNZ_OTEL_ENDPOINT needs {' and '.join(missing)}: "
            "pip install 'nnz-server[otel]'"
        )


def open_tracing(endpoint: str) -> TracerProvider:
    """Return what makes spans and sends them in batches; shut it down at the end.

    Args:
        endpoint: Of a collector; without a path, that of the protocol is added.

    Raises:
        TelemetryError: As `check_endpoint`.
    """
    check_endpoint(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    bare = urlsplit(endpoint).path in ("", "/")
    url = endpoint.rstrip("/") + _PATH if bare else endpoint
    facts = {"service.name": "nnz", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=url, timeout=_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of it is missing
        return False
