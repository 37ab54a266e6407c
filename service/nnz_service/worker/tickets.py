"""One request waiting for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nnz_service.servable import Servable, Tensors
from nnz_service.worker.statistics import Counters


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a ticket's future holds in the end.

    Args:
        tensors: The answer.
        timings: Seconds by stage.
        rows: Of the run that it was part of, its own among them.
        work: Seconds of computing that were its own share of the run.
    """

    tensors: Tensors
    timings: Mapping[str, float]
    rows: int = 1
    work: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a request says beside its tensors.

    Args:
        token: Names it on the page that processes share; 0 is no name.
        owner: Id of the caller's key.
        priority: 1 goes first, 9 last; 0 does not say.
        alone: Join it with no other: it is under suspicion.
        deterministic: It must have the bits of a lone run.
    """

    token: int = 0
    owner: str = ""
    priority: int = 0
    alone: bool = False
    deterministic: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Order:
        """Take it out of the parameters of a call."""
        return cls(
            int(params.get("token", 0)),
            str(params.get("owner", "")),
            int(params.get("priority", 0)),
            bool(params.get("alone", False)),
            bool(params.get("deterministic", False)),
        )


@dataclass(eq=False, slots=True)
class Ticket:
    """One request whose tensors have passed the servable's `check`.

    Args:
        servable: What it is for.
        tensors: Inputs by name.
        outputs: Names of the outputs wanted; None for all.
        rows: Length of axis 0, when runs can be joined; else 1.
        key: Tickets with equal keys may run as one; None runs alone.
        cost: Estimated nanoseconds on the device.
        counters: Where it is counted.
        deadline: `time.monotonic()` after which nobody wants the answer.
        order: Who asks, and how urgently.
        rank: Place in the queue, which sets it.
        begun: Whether it goes on with what was let in before, and need not be again.
    """

    servable: Servable
    tensors: Tensors
    outputs: tuple[str, ...] | None
    rows: int
    key: Hashable | None
    cost: int
    counters: Counters
    deadline: float | None = None
    order: Order = Order()
    rank: int = 0
    begun: bool = False
    arrived: int = field(default_factory=time.perf_counter_ns)
    future: Future[Outcome] = field(default_factory=Future)

    @property
    def nbytes(self) -> int:
        """Bytes of its inputs."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def nanoseconds_left(self) -> float:
        """Until its deadline."""
        if self.deadline is None:
            return math.inf
        return (self.deadline - time.monotonic()) * 1e9

    @property
    def known(self) -> int:
        """Nanoseconds that it will take, where that is no guess; else 0.

        What has never run may have to be compiled first.
        """
        measured = self.counters.cost(self.rows)
        return measured if self.servable.steady else measured and self.cost

    @property
    def plans(self) -> bool:
        """Whether each new number of rows costs the making of a plan."""
        return self.servable.plans

    @property
    def max_rows(self) -> int:
        """Rows that one run may take."""
        return max(self.servable.max_batch, 1)


def ticket(
    servable: Servable,
    tensors: Tensors,
    outputs: tuple[str, ...] | None,
    counters: Counters,
    deadline: float | None = None,
    order: Order | None = None,
) -> Ticket:
    """Describe a request so that the batcher can compare it with others."""
    order = order or Order()
    if not servable.max_batch or not tensors:
        cost = _cost(servable, counters, 1)
        return Ticket(
            servable, tensors, outputs, 1, None, cost, counters, deadline, order
        )
    rows = next(iter(tensors.values())).shape[0]
    shapes = tuple(
        (name, tensors[name].dtype.str, tensors[name].shape[1:])
        for name in sorted(tensors)
    )
    alone = order.alone or (order.deterministic and not servable.bitwise)
    key: Any = None if alone else (id(servable), outputs, shapes)
    cost = _cost(servable, counters, rows)
    return Ticket(
        servable, tensors, outputs, rows, key, cost, counters, deadline, order
    )


def _cost(servable: Servable, counters: Counters, rows: int) -> int:
    known = counters.cost(rows) if servable.steady else 0
    return known or servable.work(rows)
