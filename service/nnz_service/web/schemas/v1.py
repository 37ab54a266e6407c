"""Bodies of nnz's own interface."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nnz_service.web.schemas.oip import (
    InputTensor,
    OutputTensor,
    TensorSignature,
    TensorsIn,
)


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


class RowNnz(BaseModel):
    """How many entries the rows of a matrix store."""

    min: int
    mean: float
    max: int
    empty: int


class Bandwidth(BaseModel):
    """Diagonals below and above the main one on which something is stored."""

    lower: int
    upper: int


class MatrixOut(BaseModel):
    """A stored matrix; its id is made from its content."""

    id: str
    name: str | None
    shape: list[int] = Field(description="Rows, columns.")
    nnz: int = Field(description="Stored entries, zeros among them.")
    dtype: str = Field(description="FP32, FP64 or C128 (complex).")
    index_dtype: str = Field(description="INT32 or INT64.")
    bytes: int = Field(description="Of what is stored.")
    dense_bytes: int | None = Field(
        description="Bytes of the same matrix without sparsity; null from 2**63 on."
    )
    density: float = Field(description="Stored entries over rows times columns.")
    created: float = Field(description="Seconds since 1970.")
    pinned: bool = Field(description="It stays resident whatever else is loaded.")
    state: str = Field(description="READY (resident), LOADING or UNAVAILABLE.")
    reason: str = Field(description="Why it is not resident; empty when it is.")
    symmetry: str | None = Field(
        description="symmetric, skew-symmetric, hermitian or none; of the numbers. "
        "This and what follows is null while it is not known."
    )
    pattern_symmetric: bool | None = Field(description="Of the stored places.")
    row_nnz: RowNnz | None
    bandwidth: Bandwidth | None
    zero_diagonal: int | None = Field(
        description="Places of the diagonal that are zero or not stored."
    )
    stored_zeros: int | None
    finite: bool | None = Field(description="No entry is a NaN or an infinity.")
    pattern: str | None = Field(description="Digest of shape and stored places.")


class UploadOut(BaseModel):
    """A file that comes in pieces."""

    id: str
    offset: int = Field(description="Bytes that are there.")
    length: int | None = Field(description="Bytes that it will have, if known.")
    expires: float = Field(description="When it is given up unless a piece comes.")


class MatricesOut(BaseModel):
    """Every stored matrix, newest first."""

    matrices: list[MatrixOut]


class MatrixContentOut(BaseModel):
    """The JSON part of the entries of a matrix."""

    id: str
    shape: list[int]
    outputs: list[OutputTensor]


class MadeMatrix(BaseModel):
    """A stored matrix as its maker sees it."""

    id: str
    name: str | None
    shape: list[int]
    nnz: int
    dtype: str
    bytes: int
    created: float


class OpIn(TensorsIn):
    """The JSON part of an operation; those on matrices alone need no tensors."""

    parameters: dict[str, Any] | None = Field(
        default=None,
        description="Those of the operation, and `timeout`, `priority`, "
        "`deterministic`, `binary_data_output`.",
    )
    inputs: list[InputTensor] = Field(default=[], description="Dense operands.")


class OpOut(BaseModel):
    """The JSON part of the answer of an operation."""

    op: str
    id: str | None = None
    outputs: list[OutputTensor] = Field(default=[], description="Of most operations.")
    matrix: MadeMatrix | None = Field(
        default=None, description="What an operation made, now resident."
    )
    preflight: dict[str, Any] | None = Field(
        default=None, description="What the operation would cost; it did not run."
    )


class ChainStep(BaseModel):
    """One operation of a chain; its own parameters are further members."""

    model_config = ConfigDict(extra="allow")

    op: str = Field(description="Its name under `/v1/ops`.")
    result: str | None = Field(
        default=None, alias="as", description="Name of its result."
    )
    matrix: str = Field(description="Id, or the name of an earlier step.")
    other: str | None = None
    mask: str | None = Field(default=None, description="Of `spgemm`.")
    inputs: dict[str, str] = Field(
        default={}, description="Dense operands: names of tensors or earlier steps."
    )
    keep: bool | None = Field(default=None, description="The last step is kept.")
    name: str | None = Field(default=None, description="Label of a kept matrix.")


class ChainIn(OpIn):
    """The JSON part of several operations."""

    steps: list[ChainStep] = Field(min_length=1, max_length=64)


class ChainOut(BaseModel):
    """The JSON part of what several operations gave."""

    op: str
    id: str | None = None
    outputs: list[OutputTensor] = Field(description="Kept tensors, named by step.")
    matrices: dict[str, MadeMatrix] | None = Field(
        default=None, description="Kept matrices by step, now resident."
    )
    preflight: dict[str, Any] | None = Field(
        default=None, description="What the steps would cost at most; they did not run."
    )


class JobIn(TensorsIn):
    """The JSON part of a job: what to do, on what."""

    parameters: dict[str, Any] | None = Field(
        default=None, description="`matrix`, and those that the kind has."
    )
    inputs: list[InputTensor] = Field(
        default=[], description="Vectors, such as `b`; several kinds have none."
    )

    kind: str = Field(
        description="solve: A x = b, for one or many b, by the method in `parameters`; "
        "cg: the same by conjugate gradients; lp: a linear program; op: an operation "
        "between matrices; factorize: LU factors; graph: a graph algorithm; "
        "eigs: eigenpairs of a symmetric matrix; chain: `steps`. graph and eigs end at "
        "`time_limit` (s) with what there is: ranks that still change, vertices not "
        "reached yet, distances that may shrink, components that may join, triangles "
        "of some rows, perhaps fewer pairs, each with its residual."
    )
    steps: list[ChainStep] | None = Field(
        default=None,
        max_length=64,
        description="Of a chain that takes too long for a request, as POST /v1/ops has "
        "them; its progress names the step under way. `result.matrices` has the kept "
        "matrices by step; kept tensors are those of the result.",
    )


class JobOut(BaseModel):
    """A job at one moment; times are seconds since 1970."""

    id: str
    kind: str
    params: dict[str, Any] = Field(description="As they were submitted.")
    status: str = Field(description="queued, running, succeeded, failed or cancelled.")
    progress: dict[str, Any] = Field(
        description="Numbers of the solver, such as `iterations`, `residual` and the "
        "`target` at which it ends, or `rows` done `of` all; each kind has its own."
    )
    result: dict[str, Any] | None = Field(
        description="What came out, but for tensors, which `/result` has; null until "
        "it has succeeded."
    )
    error: str | None = Field(description="Why it failed.")
    created: float
    started: float | None = Field(description="When a worker first began it.")
    finished: float | None
    cancel_requested: bool = Field(description="It ends soon, unless it already has.")
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


class KeyUsageOut(BaseModel):
    """Seconds of computing for one key since the workers started."""

    key: str = Field(description="Its id; empty for anybody, `env` for NNZ_API_KEY.")
    requests: float
    jobs: float


class QuotaOut(BaseModel):
    """How much a key may ask for; null: no bound."""

    inflight: int | None = Field(description="Requests at once.")
    rate: float | None = Field(description="Requests a second.")
    work: float | None = Field(description="Seconds of computing a minute.")
    stored: int | None = Field(description="Bytes of matrices that it keeps.")


class UsageOut(BaseModel):
    """What was computed for the caller's key."""

    key: str
    quota: QuotaOut
    work_left: float | None = Field(
        description="Seconds of computing that are left now; below 0 requests that "
        "compute are refused until it is filled again. null: no bound."
    )
    keys: list[KeyUsageOut] = Field(description="The caller's; to an admin all.")


class StatsOut(BaseModel):
    """Counters of every servable and of the scheduler."""

    model_stats: list[dict[str, Any]]
    scheduler: dict[str, Any]
    worker: dict[str, Any]
    resident: dict[str, Any] = Field(
        description="Matrices in memory: `bytes` of all, the `budget` beyond which "
        "those go that were not used for the longest time (null: none), and of the "
        "caller's `matrices` each with name, bytes, pinned and idle_seconds."
    )
    processes: dict[str, Any] = Field(
        description="pid, resident_bytes, uptime_seconds and version: of `web`, the "
        "process that answers, and of each of the `workers`; how often each process of "
        "the server was started again, by its name (`restarts`)."
    )
