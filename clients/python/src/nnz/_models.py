"""What the server says, as frozen dataclasses; unknown JSON fields are ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnz._tensors import Array, dtype_of

#: A job in one of these states will not change any more.
ENDED = frozenset({"succeeded", "failed", "cancelled"})

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and shape of a model's input or output.

    Args:
        name: As in the ONNX file.
        datatype: Protocol type such as FP32.
        shape: One extent an axis; None where any extent will do.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of `datatype`."""
        return dtype_of(self.datatype)

    @classmethod
    def of(cls, data: Json) -> TensorSpec:
        """Read it from the server's JSON."""
        shape = (None if extent in (None, -1) else extent for extent in data["shape"])
        datatype = data.get("datatype") or data.get("dtype", "")
        return cls(data["name"], datatype, tuple(shape))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A version of a model in the server's repository.

    Args:
        name: Name that it was put under.
        version: Digits.
        state: READY, LOADING or UNAVAILABLE.
        bytes: Size of the model file.
        sha256: Digest of the model file.
        inputs: What `infer` takes.
        outputs: What `infer` gives.
        reason: Why it is not ready; empty when it is.
        versions: All versions of the model; only `models.get` fills it.
        plan: One mapping a layer: op, shape, density, block, bytes, kernel, reason.
            Only `models.get` fills it.
    """

    name: str
    version: str
    state: str = ""
    bytes: int | None = None
    sha256: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    reason: str = ""
    versions: tuple[str, ...] = ()
    plan: tuple[Json, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, data: Json) -> ModelInfo:
        """Read it from the server's JSON."""
        return cls(
            name=data["name"],
            version=str(data.get("version") or ""),
            state=data.get("state") or "",
            bytes=data.get("bytes"),
            sha256=data.get("sha256"),
            inputs=tuple(map(TensorSpec.of, data.get("inputs") or ())),
            outputs=tuple(map(TensorSpec.of, data.get("outputs") or ())),
            reason=data.get("reason") or "",
            versions=tuple(map(str, data.get("versions") or ())),
            plan=tuple(data.get("plan") or ()),
        )


#: What a server may say of a matrix, or not yet.
_FACTS = (
    "dense_bytes", "density", "symmetry", "pattern_symmetric", "row_nnz", "bandwidth",
    "zero_diagonal", "stored_zeros", "finite", "pattern",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MatrixInfo:
    """A matrix that the server keeps.

    Args:
        id: Made from the content; the same matrix has the same id.
        shape: Rows, columns.
        nnz: Stored entries.
        dtype: Type of the values: FP32, FP64 or C128 (complex).
        name: Name that it was put under, if any.
        bytes: Size of the stored arrays.
        created: When it was put, in seconds since 1970.
        state: READY when it is resident.
        pinned: It stays resident whatever else is loaded.
        index_dtype: INT32 or INT64.
        dense_bytes: What it would take without sparsity.
        density: Stored entries over all places.
        symmetry: symmetric, skew-symmetric, hermitian or none; of the numbers. This and
            what follows is None while the server does not know.
        pattern_symmetric: Whether the stored places are symmetric.
        row_nnz: Entries a row: min, mean, max, and how many rows are empty.
        bandwidth: Diagonals used below (lower) and above (upper) the main one.
        zero_diagonal: Places of the diagonal that are zero or not stored.
        stored_zeros: Entries that are zero.
        finite: No entry is a NaN or an infinity.
        pattern: Digest of shape and stored places.
    """

    id: str
    shape: tuple[int, int]
    nnz: int
    dtype: str
    name: str | None = None
    bytes: int | None = None
    created: float | None = None
    state: str = ""
    pinned: bool = False
    index_dtype: str = ""
    dense_bytes: int | None = None
    density: float | None = None
    symmetry: str | None = None
    pattern_symmetric: bool | None = None
    row_nnz: Json | None = None
    bandwidth: Json | None = None
    zero_diagonal: int | None = None
    stored_zeros: int | None = None
    finite: bool | None = None
    pattern: str | None = None

    @classmethod
    def of(cls, data: Json) -> MatrixInfo:
        """Read it from the server's JSON."""
        rows, columns = data["shape"]
        return cls(
            id=data["id"],
            shape=(int(rows), int(columns)),
            nnz=int(data["nnz"]),
            dtype=data["dtype"],
            name=data.get("name"),
            bytes=data.get("bytes"),
            created=data.get("created"),
            state=data.get("state") or "",
            pinned=bool(data.get("pinned")),
            index_dtype=data.get("index_dtype") or "",
            **{name: data.get(name) for name in _FACTS},
        )


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job at one moment.

    Args:
        id: Name of the job.
        kind: What it does, such as ``cg``.
        status: queued, running, succeeded, failed or cancelled.
        progress: Numbers that the solver reports while it runs.
        summary: Numbers at the end, without the result's tensors.
        error: Why it failed.
        created: When it was submitted, in seconds since 1970.
        started: When a worker took it.
        finished: When it ended.
        params: What it was asked, without tensors.
        cancel_requested: It was told to stop, and will soon.
        revision: Counts its changes.
        expires: When the server forgets it at the latest; None before its end.
        queue_position: Jobs that will be begun before it; None once it has begun.
        predicted_finish: When it will probably end, in seconds since 1970; None when
            nothing is known, and in events.
    """

    id: str
    kind: str
    status: str
    progress: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    error: str | None = None
    created: float | None = None
    started: float | None = None
    finished: float | None = None
    params: Json = field(default_factory=dict)
    cancel_requested: bool = False
    revision: int = 0
    expires: float | None = None
    queue_position: int | None = None
    predicted_finish: float | None = None

    @property
    def ended(self) -> bool:
        """It succeeded, failed or was cancelled."""
        return self.status in ENDED

    @classmethod
    def of(cls, data: Json) -> JobInfo:
        """Read it from the server's JSON."""
        return cls(
            id=data["id"],
            kind=data["kind"],
            status=data["status"],
            progress=data.get("progress") or {},
            summary=data.get("result") or {},
            error=_text(data.get("error")),
            created=data.get("created"),
            started=data.get("started"),
            finished=data.get("finished"),
            params=data.get("params") or {},
            cancel_requested=bool(data.get("cancel_requested")),
            revision=int(data.get("revision") or 0),
            expires=data.get("expires"),
            queue_position=data.get("queue_position"),
            predicted_finish=data.get("predicted_finish"),
        )


def _text(error: object) -> str | None:
    if isinstance(error, Mapping):
        return str(error.get("message", error))
    return None if error is None else str(error)


@dataclass(frozen=True, slots=True)
class SolveResult:
    """Where the solve of a linear system ended.

    With several right-hand sides each figure is the largest, and the status that of
    the first that did not converge.

    Args:
        x: ``(n,)`` or ``(n, k)`` solution, or the last iterate short of one.
        status: converged, iteration_limit, time_limit, breakdown, not_spd, singular,
            numerical_error or cancelled.
        iterations: Steps that moved x.
        residual: Norm of ``b - A x``; infinite beyond the range of numbers.
        relative_residual: The same divided by the norm of b.
        backward_error: Relative size of the change to A and b that makes x exact.
        message: One sentence on why it ended.
        componentwise_backward_error: The same for the entries of A and b each by
            itself.
        method: That was used.
        preconditioner: That was used.
        columns: Status and figures of each right-hand side, when there are several.
    """

    x: Array = field(repr=False)  # it would bury the rest
    status: str
    iterations: int
    residual: float
    relative_residual: float | None = None
    backward_error: float | None = None
    message: str = ""
    componentwise_backward_error: float | None = None
    method: str = ""
    preconditioner: str = ""
    columns: tuple[Json, ...] = field(default=(), repr=False)

    @property
    def converged(self) -> bool:
        """The tolerance was reached, by every right-hand side."""
        return self.status == "converged"

    @classmethod
    def of(cls, x: Array, summary: Json) -> SolveResult:
        """Join the tensor and the summary of the job."""
        residual = summary["residual"]
        return cls(
            x=x,
            status=summary["status"],
            iterations=int(summary["iterations"]),
            residual=math.inf if residual is None else float(residual),
            relative_residual=summary.get("relative_residual"),
            backward_error=summary.get("backward_error"),
            message=summary.get("message") or "",
            componentwise_backward_error=summary.get("componentwise_backward_error"),
            method=summary.get("method") or "",
            preconditioner=summary.get("preconditioner") or "",
            columns=tuple(summary.get("columns") or ()),
        )


#: Its name when conjugate gradients were the only method.
CgResult = SolveResult


@dataclass(frozen=True, slots=True)
class SparseVector:
    """(index, value) pairs in any order.

    Args:
        indices: ``(nnz,)`` integers.
        values: ``(nnz,)`` float32 or float64.
        size: Dimension; None when it does not matter.
    """

    indices: Array
    values: Array
    size: int | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server calls itself.

    Args:
        name: Of the server.
        version: Of the server.
        extensions: Protocol extensions that it knows.
    """

    name: str
    version: str
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, data: Json) -> ServerInfo:
        """Read it from the server's JSON."""
        return cls(data["name"], data["version"], tuple(data.get("extensions") or ()))
