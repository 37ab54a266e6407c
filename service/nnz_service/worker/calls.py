"""Reading the parameters of a call, and writing its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nnz_service.dataplane import Reply, Tensors, is_big
from nnz_service.errors import InvalidInputError, MalformedError
from nnz_service.servable import Servable
from nnz_service.worker.tickets import Outcome

Params = Mapping[str, Any]


async def check_tensors(servable: Servable, tensors: Tensors) -> None:
    """Refuse inputs that a servable cannot take; much is looked at in a thread.

    Raises:
        InvalidInputError: naming the tensor and what would be right.
    """
    if not is_big(tensors):
        servable.check(tensors)
    else:
        await asyncio.to_thread(servable.check, tensors)


def outputs_of(servable: Servable, wanted: Any) -> tuple[str, ...] | None:
    """Return the names of the outputs that a caller wants; None for all.

    Raises:
        InvalidInputError: when one of them is unknown.
    """
    if wanted is None:
        return None
    known = [spec.name for spec in servable.outputs]
    if unknown := [name for name in wanted if name not in known]:
        raise InvalidInputError(f"outputs {unknown} are unknown; there are {known}")
    return tuple(dict.fromkeys(wanted)) or None


def reply_of(outcome: Outcome, result: dict[str, Any]) -> Reply:
    """Write down how a run ended, and of how many rows it was."""
    result["batch"] = outcome.rows
    return Reply(result, dict(outcome.tensors), dict(outcome.timings))


def text_of(params: Params, name: str) -> str:
    """Return a parameter that has to be text.

    Raises:
        MalformedError: when it is not.
    """
    value = params.get(name)
    if not isinstance(value, str):
        raise MalformedError(f"the call needs {name!r} as text, not {value!r}")
    return value
