"""Parameters of a request that mean the same at every front door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.keys import Caller


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def timeout_of(parameters: Mapping[str, Any]) -> int | None:
    """Microseconds after which the caller has no use for the answer.

    Raises:
        MalformedError: It is not such a number.
    """
    value: int | None = parameters.get("timeout")
    if value is not None and (not is_int(value) or value < 0):
        raise MalformedError(
            f"parameters.timeout is {value!r}; it must be microseconds, 0 or more"
        )
    return value


def priority_of(parameters: Mapping[str, Any]) -> int:
    """1 goes first; 0 does not say.

    Raises:
        MalformedError: It is not such a number.
    """
    value = parameters.get("priority", 0)
    if not is_int(value) or not 0 <= value < 2**64:
        raise MalformedError(
            f"parameters.priority is {value!r}; it must be a number from 0, which "
            "does not say, and 1, the highest"
        )
    return int(value)


def deterministic_of(parameters: Mapping[str, Any]) -> bool:
    """Whether the answer must have the bits of a run without company.

    Raises:
        MalformedError: It is neither true nor false.
    """
    value = parameters.get("deterministic", False)
    if not isinstance(value, bool):
        raise MalformedError(
            f"parameters.deterministic is {value!r}; it must be true or false"
        )
    return value


def order_of(parameters: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Return who asks, how urgently and how exactly, as parameters of a call.

    Raises:
        MalformedError: The request says it in a way that means nothing.
    """
    order: dict[str, Any] = {"owner": caller.id}
    if priority := priority_of(parameters):
        order["priority"] = priority
    if deterministic_of(parameters):
        order["deterministic"] = True
    return order


def refuse_sequences(parameters: Mapping[str, Any]) -> None:
    """Refuse a request that belongs to others.

    Raises:
        ImpossibleError: It names its sequence.
    """
    if parameters.get("sequence_id"):
        raise ImpossibleError(
            "parameters.sequence_id: no servable here keeps state between requests"
        )
