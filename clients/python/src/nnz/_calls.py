"""Every endpoint once, as data: what to send, and how to read the answer.

`Client` and `AsyncClient` send these; nothing here touches the network.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from numpy.typing import ArrayLike

from nnz import _matrices, _tensors
from nnz._content import READING, Content, of_buffers, of_file
from nnz._errors import ProtocolError
from nnz._models import JobInfo, MatrixInfo, ModelInfo, ServerInfo, SparseVector
from nnz._tensors import Array

T = TypeVar("T")
Json = Mapping[str, Any]

OCTETS = {"Content-Type": "application/octet-stream"}
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer with a success status; header names are case-blind."""

    status: int
    headers: Mapping[str, str]
    body: bytearray

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ProtocolError: It is something else.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ProtocolError(
                f"the answer is not JSON but {bytes(self.body[:80])!r}; "
                "is this the URL of an nnz server?",
                status=self.status,
            ) from error


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer.

    Args:
        method: HTTP verb.
        path: Below the server's URL, quoted.
        parse: Answer -> result.
        params: Query parameters.
        headers: Beyond what every request carries.
        content: Body.
        idempotent: Sending it twice does no harm, so that it may be retried.
        wait: Seconds for which the server may hold the answer back on purpose.
    """

    method: str
    path: str
    parse: Callable[[Answer], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None
    idempotent: bool = True
    wait: float = 0.0


def _path(*segments: str) -> str:
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def _of_version(version: str | int | None) -> tuple[str, ...]:
    return () if version is None else ("versions", str(version))


def _given(**params: object) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}


def _reader(build: Callable[[Any], T]) -> Callable[[Answer], T]:
    """A parser of JSON that turns a missing or odd field into a ProtocolError."""

    def parse(answer: Answer) -> T:
        data = answer.json()
        try:
            return build(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(
                f"the answer lacks something: {type(error).__name__}: {error}",
                status=answer.status,
            ) from error

    return parse


def _list_of(key: str, build: Callable[[Json], T]) -> Callable[[Answer], list[T]]:
    return _reader(lambda data: [build(item) for item in data[key]])


def _nothing(answer: Answer) -> None:
    del answer


def _outputs(answer: Answer) -> dict[str, Array]:
    return _tensors.decode(answer.headers, answer.body)[1]


def _output(name: str) -> Callable[[Answer], Array]:
    def parse(answer: Answer) -> Array:
        outputs = _outputs(answer)
        if name not in outputs:
            raise ProtocolError(f"the answer has {sorted(outputs)}, not {name!r}")
        return outputs[name]

    return parse


# The server


def ready() -> Call[None]:
    """Is the server ready for work; no retry, for the caller asks again."""
    return Call("GET", "/v2/health/ready", _nothing, idempotent=False)


def metadata() -> Call[ServerInfo]:
    """Name, version and extensions of the server."""
    return Call("GET", "/v2", _reader(ServerInfo.of))


def stats() -> Call[dict[str, Any]]:
    """Counters of the server."""
    return Call("GET", "/v1/stats", _reader(dict))


def devices() -> Call[list[dict[str, Any]]]:
    """Where the server can compute, and why not elsewhere."""
    return Call("GET", "/v1/devices", _list_of("devices", dict))


# Models


def put_model(
    name: str, source: str | os.PathLike[str] | bytes, version: str | int | None
) -> Call[ModelInfo]:
    """Put an ONNX file, given as a path or as its bytes, under a name."""
    if isinstance(source, bytes):
        content = of_buffers([source])
    else:
        content = of_file(Path(source))
    return Call(
        "PUT",
        _path("v1", "models", name),
        _reader(ModelInfo.of),
        params=_given(version=version),
        headers=OCTETS,
        content=content,
        wait=READING,
    )


def get_model(name: str, version: str | int | None) -> Call[ModelInfo]:
    """A model with its plan."""
    return Call(
        "GET",
        _path("v1", "models", name),
        _reader(ModelInfo.of),
        params=_given(version=version),
    )


def get_signature(name: str, version: str | int | None) -> Call[ModelInfo]:
    """Inputs and outputs of whatever `infer` takes: a model or a matrix."""
    path = _path("v2", "models", name, *_of_version(version))
    return Call("GET", path, _reader(ModelInfo.of))


def list_models() -> Call[list[ModelInfo]]:
    """All models."""
    return Call("GET", "/v1/models", _list_of("models", ModelInfo.of))


def load_model(name: str, version: str | int | None) -> Call[ModelInfo]:
    """Make a model resident."""
    return _residence(name, "load", version)


def unload_model(name: str, version: str | int | None) -> Call[ModelInfo]:
    """Free the memory of a model; its file stays."""
    return _residence(name, "unload", version)


def _residence(name: str, verb: str, version: str | int | None) -> Call[ModelInfo]:
    path = _path("v1", "models", name, verb)
    params = _given(version=version)
    return Call("POST", path, _reader(ModelInfo.of), params=params)


def delete_model(name: str, version: str | int | None) -> Call[None]:
    """Remove a model, file and all."""
    return Call(
        "DELETE", _path("v1", "models", name), _nothing, params=_given(version=version)
    )


def infer(
    name: str,
    feeds: Mapping[str, ArrayLike],
    outputs: Sequence[str] | None,
    version: str | int | None,
) -> Call[dict[str, Array]]:
    """Apply a model, or a matrix, to arrays by input name."""
    headers, content = _tensors.encode(feeds, outputs=outputs)
    return Call(
        "POST",
        _path("v2", "models", name, *_of_version(version), "infer"),
        _outputs,
        headers=headers,
        content=content,
    )


# Matrices and operations


def put_matrix(source: _matrices.MatrixSource, name: str | None) -> Call[MatrixInfo]:
    """Put a matrix from scipy or from a file."""
    headers, content = _matrices.upload(source)
    return Call(
        "POST",
        "/v1/matrices",
        _reader(MatrixInfo.of),
        params=_given(name=name),
        headers=headers,
        content=content,
        wait=READING,
    )


def get_matrix(matrix_id: str) -> Call[MatrixInfo]:
    """A matrix by id."""
    return Call("GET", _path("v1", "matrices", matrix_id), _reader(MatrixInfo.of))


def list_matrices() -> Call[list[MatrixInfo]]:
    """All matrices."""
    return Call("GET", "/v1/matrices", _list_of("matrices", MatrixInfo.of))


def delete_matrix(matrix_id: str) -> Call[None]:
    """Remove a matrix."""
    return Call("DELETE", _path("v1", "matrices", matrix_id), _nothing)


def _two_vectors(u: SparseVector, v: SparseVector) -> dict[str, ArrayLike]:
    return {
        "u.indices": u.indices,
        "u.values": u.values,
        "v.indices": v.indices,
        "v.values": v.values,
    }


def _size(u: SparseVector, v: SparseVector) -> int | None:
    known = {vector.size for vector in (u, v)} - {None}
    if len(known) > 1:
        raise ValueError(f"u has dimension {u.size} and v {v.size}; they must agree")
    return next(iter(known), None)


def axpy(
    u: SparseVector, r: float, v: SparseVector, parameters: Json
) -> Call[SparseVector]:
    """U + r v."""
    size = _size(u, v)
    headers, content = _tensors.encode(
        _two_vectors(u, v), parameters={"size": size, **parameters, "r": float(r)}
    )

    def parse(answer: Answer) -> SparseVector:
        return SparseVector(
            _output("w.indices")(answer), _output("w.values")(answer), size
        )

    return Call("POST", "/v1/ops/axpy", parse, headers=headers, content=content)


def dot(u: SparseVector, v: SparseVector, parameters: Json) -> Call[float]:
    """Inner product."""
    headers, content = _tensors.encode(
        _two_vectors(u, v), parameters={"size": _size(u, v), **parameters}
    )

    def parse(answer: Answer) -> float:
        return float(_output("dot")(answer).reshape(()))

    return Call("POST", "/v1/ops/dot", parse, headers=headers, content=content)


# Jobs


def submit_job(
    kind: str,
    inputs: Mapping[str, ArrayLike],
    parameters: Json,
    idempotency_key: str | None = None,
) -> Call[JobInfo]:
    """Submit work; the key lets the server recognise a repeated submission."""
    headers, content = _tensors.encode(
        inputs, parameters=parameters, fields={"kind": kind}
    )
    key = idempotency_key or uuid.uuid4().hex
    return Call(
        "POST",
        "/v1/jobs",
        _reader(JobInfo.of),
        headers={**headers, "Idempotency-Key": key},
        content=content,
    )


def get_job(job_id: str, wait: float = 0.0) -> Call[JobInfo]:
    """A job, at once or as soon as it ends within `wait` seconds (60 at most)."""
    params = _given(wait=f"{wait:.3f}" if wait > 0 else None)
    path = _path("v1", "jobs", job_id)
    return Call("GET", path, _reader(JobInfo.of), params=params, wait=wait)


def list_jobs(
    limit: int | None, status: str | None, kind: str | None, before: str | None
) -> Call[list[JobInfo]]:
    """Jobs, newest first, from behind the one `before`."""
    params = _given(limit=limit, status=status, kind=kind, before=before)
    return Call("GET", "/v1/jobs", _list_of("jobs", JobInfo.of), params=params)


def job_events(job_id: str, last: str = "") -> Call[JobInfo]:
    """A job's changes as server-sent events; `parse` reads the data of one.

    `last` is the id of the last event that came, where a stream was cut.
    """
    headers = {"Accept": EVENTS} | ({"Last-Event-ID": last} if last else {})
    path = _path("v1", "jobs", job_id, "events")
    return Call("GET", path, _reader(JobInfo.of), headers=headers)


def job_result(job_id: str) -> Call[dict[str, Array]]:
    """The tensors that a job made."""
    return Call("GET", _path("v1", "jobs", job_id, "result"), _outputs)


def cancel_job(job_id: str) -> Call[JobInfo]:
    """Ask a job to stop."""
    return Call("POST", _path("v1", "jobs", job_id, "cancel"), _reader(JobInfo.of))


def delete_job(job_id: str) -> Call[None]:
    """Forget a job and its result."""
    return Call("DELETE", _path("v1", "jobs", job_id), _nothing)
