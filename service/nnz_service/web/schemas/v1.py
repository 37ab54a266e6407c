"""Bodies of nnz's own interface."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from nnz_service.web.schemas.oip import OutputTensor, TensorSignature, TensorsIn


class ModelOut(BaseModel):
    """One version of a model."""

    name: str
    version: str
    sha256: str
    bytes: int
    state: str = Field(description="READY, LOADING or UNAVAILABLE.")
    reason: str = Field(description="Why it is not ready; empty when it is.")
    source: str = Field(description="put, or directory for files found at start.")
    created: float = Field(description="Seconds since 1970.")
    inputs: list[TensorSignature]
    outputs: list[TensorSignature]


class PlannedModelOut(ModelOut):
    """One version of a model and how it runs."""

    versions: list[str]
    plan: list[dict[str, Any]] = Field(
        description="One row a layer: name, op, shape, density, block, bytes, "
        "dense_bytes, kernel, reason. Empty while the model is not resident."
    )


class ModelsOut(BaseModel):
    """Every version of every model."""

    models: list[ModelOut]


class ResidenceOut(BaseModel):
    """Where a model stands after load or unload."""

    name: str
    version: str
    state: str


class MatrixOut(BaseModel):
    """A stored matrix; its id is made from its content."""

    id: str
    name: str | None
    shape: list[int]
    nnz: int
    dtype: str
    bytes: int
    created: float
    state: str
    reason: str


class MatricesOut(BaseModel):
    """Every stored matrix, newest first."""

    matrices: list[MatrixOut]


class OpOut(BaseModel):
    """The JSON part of the answer of an operation."""

    op: str
    id: str | None = None
    outputs: list[OutputTensor]


class JobIn(TensorsIn):
    """The JSON part of a job: what to do, on what."""

    kind: str = Field(description="cg: solve A x = b, A symmetric positive definite.")


class JobOut(BaseModel):
    """A job at one moment."""

    id: str
    kind: str
    params: dict[str, Any]
    status: str = Field(description="queued, running, succeeded, failed or cancelled.")
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    created: float
    started: float | None
    finished: float | None
    cancel_requested: bool
    attempts: int = Field(description="How often a worker has begun it.")
    owner: str = Field(description="Id of the key that submitted it; often empty.")
    seconds: float = Field(description="Of computing so far.")
    revision: int = Field(description="Counts its changes; the id of its last event.")
    expires: float | None = Field(
        description="When it is deleted at the latest; null before its end."
    )
    queue_position: int | None = Field(
        description="Jobs that will be begun before it; null once it has begun."
    )
    predicted_finish: float | None = Field(
        description="From what jobs of this kind on this matrix took before; null when "
        "nothing is known, and in events."
    )


class JobsOut(BaseModel):
    """The youngest jobs, youngest first."""

    jobs: list[JobOut]


class JobResultOut(BaseModel):
    """The JSON part of a job's result."""

    id: str
    result: dict[str, Any]
    outputs: list[OutputTensor]


class DevicesOut(BaseModel):
    """Where the server can compute, and why not elsewhere."""

    devices: list[dict[str, Any]]


class StatsOut(BaseModel):
    """Counters of every servable and of the scheduler."""

    model_stats: list[dict[str, Any]]
    scheduler: dict[str, Any]
    worker: dict[str, Any]
    processes: dict[str, Any] = Field(
        description="pid, resident_bytes, uptime_seconds and version: of `web`, the "
        "process that answers, and of each of the `workers`; how often each process of "
        "the server was started again, by its name (`restarts`)."
    )
