"""The seconds of computing that each key may use: buckets in the page of all processes.

Workers take what they have computed out of them, when it is computed: also of what
failed, or of a request whose client did not wait for its end. Front doors refuse who
has none left.
"""

from __future__ import annotations

import time
from typing import Any

from nnz_service.dataplane.page import Page
from nnz_service.keys import Caller
from nnz_service.keys.quota import take

MINUTE = 60.0


def charge(page: Page, caller: Caller, seconds: float) -> None:
    """Take what was computed for a key from its quota, if it has one.

    It is known only afterwards, so a bucket may go below zero; the key then waits until
    it is filled again.
    """
    if caller.quota.work is not None and seconds > 0:
        with page.lock():
            refilled(page, caller, caller.quota.work)["tokens"] -= seconds


def left(page: Page, caller: Caller) -> float | None:
    """Return the seconds that a key may still use now; None when there is no bound."""
    if caller.quota.work is None:
        return None
    with page.lock():
        return float(refilled(page, caller, caller.quota.work)["tokens"])


def refilled(page: Page, caller: Caller, work: float) -> Any:
    """Return the bucket of a key as it is now; for who holds the lock of the page.

    Args:
        page: Where it is.
        caller: Holder of the key.
        work: Seconds a minute; a minute's worth, at least one, may be used at once.
    """
    rate, bucket = work / MINUTE, page.work[caller.row]
    state = float(bucket["tokens"]), float(bucket["last"])
    full = max(1.0, rate * MINUTE)
    tokens, last, _ = take(*state, time.monotonic(), rate, full, 0)
    bucket["tokens"], bucket["last"] = tokens, last
    return bucket
