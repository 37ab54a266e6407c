"""Calls that run on the device: a ticket for each, and its outcome made a reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nnz_service.dataplane import Reply, Tensors
from nnz_service.worker.calls import Params, outputs_of, reply_of, text_of
from nnz_service.worker.ops import Ops
from nnz_service.worker.servables import Entry
from nnz_service.worker.tickets import Order, Outcome, Ticket, ticket
from nnz_service.worker.toolbox import Toolbox

#: The kinds of call that run on the device.
KINDS = frozenset({"infer", "op"})
_PRODUCTS = frozenset({"spmv", "spmm"})


@dataclass(frozen=True, slots=True)
class Work:
    """What a call wants from the device.

    Args:
        ticket: To be checked and queued.
        reply: Makes the reply of how it ended; on any thread.
    """

    ticket: Ticket
    reply: Callable[[Outcome], Reply]


class Computing:
    """Turns parameters and tensors into work.

    Args:
        toolbox: How to compute.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._ops = Ops(toolbox)

    def work(
        self,
        kind: str,
        params: Params,
        tensors: Tensors,
        entry: Entry | None,
        deadline: float | None,
    ) -> Work:
        """Describe what a call of one of `KINDS` asks for.

        Args:
            kind: Of the call.
            params: As they came.
            tensors: Inputs.
            entry: What `target` names.
            deadline: `time.monotonic()` after which nobody wants the answer.

        Raises:
            ServiceError: What the caller did wrong.
        """
        order = Order.of(params)
        if kind == "infer" and entry is not None:
            return _inference(params, tensors, entry, deadline, order)
        op = text_of(params, "op")
        if entry is not None:
            asked = self._ops.product(op, params, tensors, entry, deadline, order)
        else:
            asked = self._ops.vector(op, params, tensors, deadline, order)

        def reply(outcome: Outcome) -> Reply:
            shaped = self._ops.shape(op, outcome.tensors)
            return reply_of(replace(outcome, tensors=shaped), {})

        return Work(asked, reply)


def target(kind: str, params: Params) -> dict[str, Any] | None:
    """Return the parameters that name what a call is for; None when it needs nothing.

    Raises:
        MalformedError: They do not name it.
    """
    if kind == "infer":
        return {"name": text_of(params, "name"), "version": params.get("version")}
    if text_of(params, "op") in _PRODUCTS:
        return {"name": text_of(params, "matrix")}
    return None


def _inference(
    params: Params,
    tensors: Tensors,
    entry: Entry,
    deadline: float | None,
    order: Order,
) -> Work:
    servable = entry.ready
    outputs = outputs_of(servable, params.get("outputs"))
    asked = ticket(servable, tensors, outputs, entry.counters, deadline, order)

    def reply(outcome: Outcome) -> Reply:
        return reply_of(outcome, {"name": entry.name, "version": entry.version})

    return Work(asked, reply)
