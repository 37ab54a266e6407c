"""Chains of operations: what a request may say, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from nnz_service.errors import InvalidInputError, MalformedError, ServiceError
from nnz_service.gateway.ownership import check_servable, owner_of
from nnz_service.gateway.parameters import order_of
from nnz_service.gateway.residence import MATRIX_VERSION, forget
from nnz_service.repository import Owner, is_matrix_id, matrix_id
from nnz_service.web.answers import tensor_answer
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.deps import Parts, caller_of, name_resource
from nnz_service.web.fields import field
from nnz_service.web.sparse import (
    MATRICES,
    SPARSE_OPS,
    Preflight,
    check_label,
    check_outputs,
    check_semiring,
    estimate_of,
    made_blob,
    preflight_of,
)
from nnz_service.web.stages import stages_of
from nnz_service.web.uploads import keep_matrix

#: Steps of one chain at most.
MAX_STEPS = 64

_PRODUCTS = frozenset({"spmv", "spmm"})
#: Operations that a chain may have, and what each takes besides matrices and tensors.
CHAIN_OPS: dict[str, frozenset[str]] = {
    op: names - MATRICES - {"name", "preflight"} for op, names in SPARSE_OPS.items()
} | dict.fromkeys(_PRODUCTS, frozenset({"transpose", "semiring"}))
#: Those whose result is not a matrix.
_DENSE = _PRODUCTS | {"triangular_solve", "norm", "sums", "diagonal"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_OF_A_STEP = MATRICES | {"as", "op", "inputs", "keep", "name"}
_ALWAYS = frozenset(
    {"binary_data_output", "timeout", "priority", "deterministic", "preflight"}
)


async def apply_chain(
    request: Request,
    parts: Parts,
    asked: TensorRequest,
    query: Preflight | None,
) -> Response:
    """Do several operations, or say what they would cost.

    Args:
        request: What was sent.
        parts: Of the application.
        asked: The body.
        query: What the query says of `preflight`, if anything.

    Raises:
        MalformedError: The steps cannot be understood.
        NotFoundError: A matrix is not stored, or not theirs.
        InvalidInputError: An output is named that no step gives.
        ServiceError: What the worker answered; the message names the step.
    """
    caller, stages = caller_of(request), stages_of(request)
    if unknown := asked.parameters.keys() - _ALWAYS:
        raise MalformedError(
            f"a chain has no parameter {min(unknown)[:80]!r}; those of operations "
            "belong to their steps"
        )
    preflight = preflight_of(asked.parameters, query)
    if preflight == "exact":
        raise MalformedError("preflight of a chain must be true or false")
    steps = checked(asked.fields.get("steps"), asked.tensors.keys())
    kept = [step["as"] for step in steps if step["keep"] and step["op"] in _DENSE]
    check_outputs("the chain", asked, kept, "it keeps no tensor")
    ids = {step.get(key) for step in steps for key in MATRICES}
    for name in sorted(name for name in ids if name and is_matrix_id(name)):
        await check_servable(parts.repository, caller, name)
    params = order_of(asked.parameters, caller) | {
        "steps": [{k: v for k, v in step.items() if k != "name"} for step in steps],
        "preflight": preflight,
    }
    stages.shorten(asked.timeout)
    reply = await parts.call(request, "chain", params, asked.tensors)
    head: dict[str, Any] = {"op": "chain"}
    if asked.id is not None:
        head["id"] = asked.id
    if preflight:
        head["preflight"] = estimate_of(reply)
    else:
        labels = {step["as"]: step.get("name") for step in steps}
        head["matrices"] = await _keep(request, parts, reply.result, labels)
    with stages.measure("encode"):
        return await tensor_answer(
            head,
            reply.tensors,
            asked,
            accept_encoding=field(request.scope, b"accept-encoding") or "",
            binary_default=asked.binary,
        )


async def _keep(
    request: Request,
    parts: Parts,
    result: Mapping[str, Any],
    labels: Mapping[str, str | None],
) -> dict[str, Any]:
    """Record the matrices that a chain made for who asked; describe them by step.

    All of them or, where one is refused, none.
    """
    owner, found, added = owner_of(caller_of(request)), {}, []
    try:
        for step, made in result["matrices"].items():
            blob, info = made_blob(made, parts)
            record, new = await keep_matrix(
                parts, matrix_id(blob.sha256), blob, info, labels[step], owner
            )
            found[step] = record.to_json()
            added += [record.id] if new else []
    except ServiceError:
        share = Owner(owner.id, all=not owner.id)
        for key in added:
            await forget(parts, key, MATRIX_VERSION, share)
        raise
    if found:
        name_resource(request, ",".join(row["id"] for row in found.values()))
    return found


def checked(steps: object, tensors: Any) -> list[dict[str, Any]]:
    """Return the steps in full: each has `as`, `op`, `inputs`, `params` and `keep`.

    Args:
        steps: As they came.
        tensors: Names of the request's tensors.

    Raises:
        MalformedError: What is wrong, and in which step.
        InvalidInputError: A tensor or a result is of no use.
    """
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise MalformedError(f"'steps' must be a list of 1 to {MAX_STEPS} operations")
    scope = _Scope(dict.fromkeys(tensors, "tensor"))
    found = []
    for number, row in enumerate(steps):
        step = _step(row, f"step{number + 1}", last=number == len(steps) - 1)
        scope.enter(step)
        found.append(step)
    wanted = {step["as"] for step in found if step["keep"]}
    if idle := [n for n in scope.kinds if n not in scope.used | wanted]:
        raise InvalidInputError(
            f"{idle[0]!r} is used by no step and not kept; leave it out"
        )
    return found


def _step(row: object, name: str, *, last: bool) -> dict[str, Any]:
    """Check one step by itself."""
    if not isinstance(row, dict):
        raise MalformedError(f"{name} of 'steps' must be an object")
    name = row.get("as", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MalformedError(
            f"'as' is {str(name)[:40]!r}; it must be a word of up to 32 letters, "
            "digits and _"
        )
    op = row.get("op")
    if not isinstance(op, str) or op not in CHAIN_OPS:
        raise MalformedError(
            f"step {name!r}: there is no op {str(op)[:40]!r} for a chain; there are "
            f"{', '.join(CHAIN_OPS)}"
        )
    takes = _OF_A_STEP | CHAIN_OPS[op]
    takes -= MATRICES - SPARSE_OPS.get(op, frozenset({"matrix"}))
    if unknown := row.keys() - takes:
        raise MalformedError(
            f"step {name!r}: {op} has no {min(unknown)[:80]!r}; it takes "
            f"{', '.join(sorted(takes))}"
        )
    keep = row.get("keep", last)
    if not isinstance(keep, bool):
        raise MalformedError(f"step {name!r}: 'keep' must be true or false")
    step = {key: row[key] for key in MATRICES | {"name"} if key in row}
    check_semiring(op, row)
    check_label(step.get("name"))
    return step | {
        "as": name,
        "op": op,
        "keep": keep,
        "inputs": row.get("inputs", {}),
        "params": {key: row[key] for key in CHAIN_OPS[op] & row.keys()},
    }


class _Scope:
    """What may be named at some point of a chain.

    Args:
        kinds: `tensor` or `matrix` by name.
    """

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds = kinds
        self.used: set[str] = set()

    def enter(self, step: dict[str, Any]) -> None:
        """Check what a step names, and add its result.

        Raises:
            MalformedError: It names something that is not there, or is taken.
        """
        told = f"step {step['as']!r}"
        needed = SPARSE_OPS.get(step["op"], {"matrix"}) - {"mask"}
        for key in ("matrix", "other", "mask"):
            if key in step or key in needed:
                self._matrix(step.get(key), key, told)
        inputs = step["inputs"]
        if not isinstance(inputs, dict):
            raise MalformedError(
                f"{told}: 'inputs' must be an object from its inputs to names of "
                "tensors or of earlier steps"
            )
        for key, name in inputs.items():
            self._known(name, "tensor", f"{told}: input {key[:40]!r}")
        if step["as"] in self.kinds:
            raise MalformedError(f"{told}: the name is taken; give another as 'as'")
        self.kinds[step["as"]] = "tensor" if step["op"] in _DENSE else "matrix"

    def _matrix(self, name: object, key: str, told: str) -> None:
        if not (isinstance(name, str) and is_matrix_id(name)):
            self._known(name, "matrix", f"{told}: {key!r}")

    def _known(self, name: object, kind: str, told: str) -> None:
        if not isinstance(name, str) or self.kinds.get(name) != kind:
            what = "a tensor of the request" if kind == "tensor" else "a matrix's id"
            raise MalformedError(
                f"{told} is {str(name)[:40]!r}; it must be {what} or the name of an "
                f"earlier step that gives a {kind}"
            )
        self.used.add(name)
