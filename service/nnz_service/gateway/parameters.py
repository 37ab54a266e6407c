"""Parameters of a request that mean the same at every front door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnz_service.errors import ImpossibleError, MalformedError


def is_int(value: object) -> bool:
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


def refuse_sequences(parameters: Mapping[str, Any]) -> None:
    """Refuse a request that belongs to others.

    Raises:
        ImpossibleError: It names its sequence.
    """
    if parameters.get("sequence_id"):
        raise ImpossibleError(
            "parameters.sequence_id: no servable here keeps state between requests"
        )
