"""Both ends of the pipe between a web process and a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from nnz_service.dataplane.admission import Admission, Reservation
from nnz_service.dataplane.client import SocketDataplane
from nnz_service.dataplane.connect import connect
from nnz_service.dataplane.fleet import FleetDataplane
from nnz_service.dataplane.inline import Handler, InlineDataplane
from nnz_service.dataplane.listener import Listener
from nnz_service.dataplane.messages import Pending, Reply, Tensors
from nnz_service.dataplane.packing import is_big
from nnz_service.dataplane.page import Page
from nnz_service.dataplane.steady import SteadyDataplane

__all__ = [
    "Admission",
    "Dataplane",
    "FleetDataplane",
    "Handler",
    "InlineDataplane",
    "Listener",
    "Page",
    "Pending",
    "Reply",
    "Reservation",
    "SocketDataplane",
    "SteadyDataplane",
    "Tensors",
    "connect",
    "is_big",
]


class Dataplane(Protocol):
    """How the web side reaches a worker.

    Kinds of call (parameters -> result):
    `ping {}` -> {ready, detail, pid}; `devices {}` -> {devices};
    `load {kind, name, version, path, pinned?}` -> metadata;
    `unload {name, version?}` -> {};
    `index {}` -> {models: [{name, version, kind, state, reason}]};
    `infer {name, version?, outputs?, priority?, owner?, deterministic?}` + tensors ->
    {name, version, batch, work} + tensors, work being seconds of the device;
    `metadata {name, version?}` -> {name, version, versions, kind, inputs, outputs,
    max_batch_size, nbytes}; `explain {name, version?}` -> {rows};
    `describe {name}` -> {facts} and `spy {name, size}` -> png, both of a matrix;
    `pin {name, pinned}` -> {};
    `revalue {name, out, blob, pattern?}` + data -> {sha256, info};
    `op {op, matrix?, transpose?, r?, zeros?, duplicates?, size?, and as infer}` +
    tensors -> {batch, work} + tensors;
    `sparse {op, matrix, other?, preflight?, and those of the op}` + tensors -> {matrix:
    {sha256, bytes, shape, nnz, dtype, index_dtype}} or tensors, or what it would cost;
    `chain {steps: [{as, op, matrix, other?, inputs, params, keep}], preflight?}` +
    tensors -> {matrices} + tensors by the names of steps;
    `stats {name?, version?}` -> {model_stats, scheduler, processes};
    `wake {}` -> {}.
    """

    @property
    def ready(self) -> bool:
        """Whether the worker answers and has finished starting."""
        ...

    @property
    def detail(self) -> str:
        """One line for people: what the worker is doing, or why it is not ready."""
        ...

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        ...

    async def close(self) -> None:
        """Disconnect; calls in flight fail."""
        ...

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the worker must know it too
    ) -> Reply:
        """Ask the worker for something.

        Args:
            kind: One of the kinds above.
            params: Plain JSON.
            tensors: Arrays by name, any layout; not to be changed before the answer.
            timeout: Seconds until the answer is of no use; None waits for ever.

        Raises:
            DeadlineError: when the time is over; the worker drops the request.
            WorkerLostError: when the worker ended or cannot be reached.
            ServiceError: what the worker refused, as the type it raised.
        """
        ...
