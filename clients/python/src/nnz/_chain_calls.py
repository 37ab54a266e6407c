"""Chains of operations, and single matrices' entries, as data."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from nnz import _tensors
from nnz._calls import Answer, Call, _path, _reader
from nnz._errors import ProtocolError
from nnz._expressions import Dense, Expression, Wanted, kept_view
from nnz._matrices import entries
from nnz._models import JobInfo, MatrixInfo
from nnz._rules import numbers
from nnz._steps import steps_of
from nnz._tensors import Array

T = TypeVar("T")
H = TypeVar("H")

#: What became of an expression.
Made = MatrixInfo | Array | float


def chain(
    wanted: Sequence[Wanted], names: Sequence[str | None] | None = None
) -> Call[list[Made]]:
    """Compute expressions; results in their order.

    Raises:
        ValueError: There is nothing to compute.
    """
    steps, tensors, results = _written(wanted, names)

    def parse(answer: Answer) -> list[Made]:
        head, outputs = _tensors.decode(answer.headers, answer.body)
        return _all_made(head.get("matrices") or {}, outputs, results, wanted)

    headers, content = _tensors.encode(tensors, fields={"steps": steps})
    return Call("POST", "/v1/ops", parse, headers=headers, content=content)


def chain_job(
    wanted: Sequence[Wanted],
    names: Sequence[str | None] | None = None,
    idempotency_key: str | None = None,
) -> Call[JobInfo]:
    """Submit the computing of expressions as a job.

    Raises:
        ValueError: There is nothing to compute.
    """
    steps, tensors, _ = _written(wanted, names)
    fields = {"kind": "chain", "steps": steps}
    headers, content = _tensors.encode(tensors, fields=fields)
    key = idempotency_key or uuid.uuid4().hex
    return Call(
        "POST",
        "/v1/jobs",
        _reader(JobInfo.of),
        headers={**headers, "Idempotency-Key": key},
        content=content,
    )


def held(
    handle: Callable[[MatrixInfo, bool, bool], H],
    wanted: Sequence[Wanted],
    made: Sequence[Made],
) -> list[H | Array | float]:
    """What a chain made, its matrices as handles.

    Args:
        handle: Makes one: what is stored, whether this is the transpose of it, and
            whether its entries are the conjugates.
        wanted: The expressions.
        made: What became of each.
    """
    found: list[H | Array | float] = []
    for one, result in zip(map(kept_view, wanted), made, strict=True):
        if isinstance(result, MatrixInfo) and not isinstance(one, Dense):
            found.append(handle(result, one.transposed, one.conjugated))
        elif not isinstance(result, MatrixInfo):
            found.append(result)
    return found


def made_by_job(
    wanted: Sequence[Wanted], info: JobInfo, outputs: Mapping[str, Array]
) -> list[Made]:
    """What became of the expressions of a job that has ended, in their order.

    Raises:
        ProtocolError: The server left something out.
    """
    _, _, results = _written(wanted, None)
    return _all_made(info.summary.get("matrices") or {}, outputs, results, wanted)


def matrices_of(info: JobInfo) -> dict[str, MatrixInfo]:
    """The matrices that a job made, by step.

    Raises:
        ProtocolError: The server left something out.
    """
    made = info.summary.get("matrices") or {}
    return {name: _matrix_of(one) for name, one in made.items()}


def preflight(wanted: Sequence[Wanted]) -> Call[dict[str, Any]]:
    """What expressions would cost; nothing is computed."""
    steps, tensors, _ = _written(wanted, None)
    parameters = {"preflight": True}
    headers, content = _tensors.encode(
        tensors, parameters=parameters, fields={"steps": steps}
    )
    return Call("POST", "/v1/ops", _cost, headers=headers, content=content)


def preflight_op(
    op: str,
    matrix_id: str,
    other: str | None,
    inputs: Mapping[str, ArrayLike],
    parameters: Mapping[str, Any],
    *,
    exact: bool,
) -> Call[dict[str, Any]]:
    """What one operation would cost."""
    given = {
        **parameters,
        "matrix": matrix_id,
        "other": other,
        "preflight": "exact" if exact else True,
    }
    headers, content = _tensors.encode(inputs, parameters=given)
    path = _path("v1", "ops", op)
    return Call("POST", path, _cost, headers=headers, content=content)


def apply_op(
    op: str,
    matrix_id: str,
    other: str | None,
    inputs: Mapping[str, ArrayLike],
    name: str | None,
    parameters: Mapping[str, Any],
) -> Call[MatrixInfo | dict[str, Array]]:
    """Do one operation by the server's name for it."""
    given = {**parameters, "matrix": matrix_id, "other": other, "name": name}
    headers, content = _tensors.encode(inputs, parameters=given)

    def parse(answer: Answer) -> MatrixInfo | dict[str, Array]:
        head, outputs = _tensors.decode(answer.headers, answer.body)
        if (made := head.get("matrix")) is None:
            return outputs
        return _matrix_of(made)

    path = _path("v1", "ops", op)
    return Call("POST", path, parse, headers=headers, content=content)


def entries_of(info: MatrixInfo) -> Call[tuple[Array, Array, Array]]:
    """The entries of a matrix: data, indices and indptr of compressed rows."""

    def parse(answer: Answer) -> tuple[Array, Array, Array]:
        _, found = _tensors.decode(answer.headers, answer.body)
        try:
            data, indices, indptr = (found[n] for n in ("data", "indices", "indptr"))
        except KeyError as error:
            raise ProtocolError(f"the matrix lacks {error}") from error
        if data.ndim == 2:  # real and imaginary parts
            data = np.ascontiguousarray(data).view(np.complex128)[:, 0]
        return entries(data), indices, indptr

    return Call("GET", _path("v1", "matrices", info.id, "content"), parse)


def _written(
    wanted: Sequence[Wanted], names: Sequence[str | None] | None
) -> tuple[list[dict[str, Any]], dict[str, Array], list[str]]:
    labels = [None] * len(wanted) if names is None else list(names)
    if len(labels) != len(wanted):
        raise ValueError(f"there are {len(labels)} names for {len(wanted)} results")
    return steps_of([kept_view(one) for one in wanted], labels)


def _all_made(
    matrices: Mapping[str, Any],
    outputs: Mapping[str, Array],
    results: Sequence[str],
    wanted: Sequence[Wanted],
) -> list[Made]:
    try:
        return [
            _made(matrices, outputs, name, one)
            for name, one in zip(results, wanted, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the answer lacks something: {error!r}") from error


def _made(
    matrices: Mapping[str, Any],
    outputs: Mapping[str, Array],
    name: str,
    one: Wanted,
) -> Made:
    if name in matrices or not isinstance(one, Dense):
        return MatrixInfo.of(matrices[name])
    if one.shape == ():
        return float(outputs[name].reshape(()))
    if one.dtype is None:
        return outputs[name]
    return numbers(one.dtype, outputs[name], one.conjugated)


def _matrix_of(made: Any) -> MatrixInfo:
    try:
        return MatrixInfo.of(made)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the answer lacks something: {error!r}") from error


def _cost(answer: Answer) -> dict[str, Any]:
    found = answer.json()
    if not isinstance(found, dict) or not isinstance(found.get("preflight"), dict):
        raise ProtocolError("the answer does not say what it would cost")
    cost: dict[str, Any] = found["preflight"]
    return cost


def matrix(one: Expression, name: str | None = None) -> Call[MatrixInfo]:
    """Compute one matrix.

    Raises:
        ValueError: It is stored already.
    """
    return _only(chain([one], [name]), MatrixInfo)


def array(one: Dense) -> Call[Array]:
    """Compute a vector or columns."""
    return _only(chain([one]), np.ndarray)


def number(one: Dense) -> Call[float]:
    """Compute a number."""
    return _only(chain([one]), float)


def _only(call: Call[list[Made]], kind: type[T]) -> Call[T]:
    """The same call, for its one result."""

    def parse(answer: Answer) -> T:
        (made,) = call.parse(answer)
        if not isinstance(made, kind):
            raise ProtocolError(f"the answer holds {type(made).__name__}")
        return made

    return Call(
        call.method, call.path, parse, headers=call.headers, content=call.content
    )
