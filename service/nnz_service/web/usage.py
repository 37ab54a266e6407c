"""What was computed for each key, as far as a caller may know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nnz_service.dataplane import Admission
from nnz_service.keys import Caller

_NOTHING = {"requests": 0.0, "jobs": 0.0}


def known_to(
    caller: Caller, counted: Mapping[str, Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """Return the seconds of computing of the caller's key, or to an admin of all."""
    own = {caller.id: counted.get(caller.id, _NOTHING)}
    return own | dict(counted) if caller.admin else own


def usage_of(
    caller: Caller,
    counted: Mapping[str, Mapping[str, float]],
    admission: Admission,
) -> dict[str, Any]:
    """Return `UsageOut`.

    Args:
        caller: Who asks.
        counted: Seconds by the id of the key, for `requests` and for `jobs`.
        admission: Knows what is left of quotas.
    """
    found = known_to(caller, counted)
    return {
        "key": caller.id,
        "quota": asdict(caller.quota),
        "work_left": admission.work_left(caller),
        "keys": [{"key": key, **found[key]} for key in sorted(found)],
    }
