"""Bodies of the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorOut(BaseModel):
    """The body of every answer that is not a success."""

    error: str = Field(description="What was wrong, where, and what would be right.")
    nodes: list[str] | None = Field(
        None, description="Of a model that is not supported: every node that is not."
    )


class TensorSignature(BaseModel):
    """Name, type and shape of an input or output; -1 is a free extent."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(BaseModel):
    """What the server is and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """What a servable takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorSignature]
    outputs: list[TensorSignature]


class ConfigTensor(BaseModel):
    """A tensor of a model configuration; `dims` leaves the batch axis out."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """The part of a model configuration that clients read."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class InputTensor(BaseModel):
    """One input: JSON numbers in `data`, or `binary_data_size` bytes in the tail."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(
        None, description="Row-major, flat or nested as the shape says."
    )


class RequestedOutput(BaseModel):
    """One output to give back; `binary_data` chooses its form."""

    name: str
    parameters: dict[str, Any] | None = None


class TensorsIn(BaseModel):
    """The JSON part of a body that carries tensors."""

    id: str | None = Field(default=None, description="Comes back with the answer.")
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = Field(
        default=None, description="Those wanted; all where it is left out."
    )


class OutputTensor(BaseModel):
    """One output: flat JSON numbers, or `binary_data_size` bytes in the tail."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceOut(BaseModel):
    """The JSON part of an inference answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class IndexQuery(BaseModel):
    """Which servables to list."""

    ready: bool = Field(False, description="List only what is ready.")


class IndexEntry(BaseModel):
    """One servable of the repository."""

    name: str
    version: str
    state: str = Field(description="READY, LOADING or UNAVAILABLE.")
    reason: str


class LoadParameters(BaseModel):
    """What load and unload may say; nnz needs nothing here."""

    parameters: dict[str, Any] | None = None


class Duration(BaseModel):
    """How often, and how long altogether."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Times of one servable since it became resident."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(BaseModel):
    """Counters of one servable; inference_count counts rows, execution_count runs."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970.")
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any] = {}
    batch_stats: list[Any] = []
    memory_usage: list[Any] = []


class StatisticsOut(BaseModel):
    """Statistics of one or of all servables."""

    model_stats: list[ModelStatistics]


class LogSettings(BaseModel):
    """What is written to the log."""

    log_file: str = Field("", description="Empty: standard error; fixed.")
    log_info: bool
    log_warning: bool
    log_error: bool
    log_verbose_level: int = Field(0, description="Above 0: lines of level debug too.")
    log_format: str = Field("default", description="Fixed.")


class TraceSettings(BaseModel):
    """Which inferences leave their times in a file."""

    trace_file: str = Field(description="A file name in the server's folder traces.")
    trace_level: list[str] = Field(description="OFF or TIMESTAMPS.")
    trace_rate: str = Field(description="One of so many is traced.")
    trace_count: str = Field(description="So many more are traced; -1: no end.")
    log_frequency: str = Field(description="Always 0: one file.")
    trace_mode: str = Field(description="Always triton.")


class RegionIn(BaseModel):
    """A part of a POSIX shared memory object of this machine."""

    key: str = Field(description="The object's name, with or without a leading slash.")
    offset: int = Field(0, ge=0)
    byte_size: int = Field(ge=1)


class RegionOut(BaseModel):
    """A registered region of shared memory."""

    name: str
    key: str
    offset: int
    byte_size: int
