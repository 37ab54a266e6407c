"""When to try again: pure functions; time and randomness come in as arguments."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Statuses that say "not now" rather than "not ever".
RETRY_STATUSES = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how patiently, a call is sent again.

    A call is sent again only when the connection failed or the server answered 429
    or 503, and only when sending it twice does no harm: reads, idempotent writes, and
    submissions that carry an idempotency key.

    Args:
        retries: Tries after the first one; 0 turns retrying off.
        first: Seconds of the first pause, before jitter; each further one doubles.
        longest: Longest pause in seconds. A server that asks for more is not pressed:
            its error is raised at once, with `retry_after`.
    """

    retries: int = 4
    first: float = 0.25
    longest: float = 20.0


def delay(
    policy: RetryPolicy,
    *,
    attempt: int,
    status: int | None,
    retry_after: float | None,
    random: float,
) -> float | None:
    """Seconds to wait before the next try, or None to give up.

    Full jitter on an exponential pause (Brooker, "Exponential Backoff And Jitter"),
    never shorter than the server's Retry-After.

    Args:
        policy: Limits.
        attempt: Tries made so far, from 1.
        status: HTTP status of the answer; None when the connection failed.
        retry_after: Seconds that the server asked for, if it did.
        random: Uniform number in [0, 1).
    """
    if attempt > policy.retries:
        return None
    if status is not None and status not in RETRY_STATUSES:
        return None
    pause = random * min(policy.longest, policy.first * 2.0 ** (attempt - 1))
    if retry_after is None:
        return pause
    if retry_after > policy.longest:
        return None
    return retry_after + pause


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds named by a Retry-After header (RFC 9110, 10.2.3), number or date.

    Args:
        headers: Header names in lower case, or a case-blind mapping.
        now: The present, with a time zone.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


class RetryBudget:
    """Lets retries be a small part of all calls, so that they never feed an overload.

    Each retry takes one token; each success gives a tenth back. One budget serves all
    threads of a client.
    """

    def __init__(self, tokens: float = 10.0, refund: float = 0.1) -> None:
        self._lock = threading.Lock()
        self._most = tokens
        self._tokens = tokens
        self._refund = refund

    def take(self) -> bool:
        """Take a token; False when none is left."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def success(self) -> None:
        """Give a part of a token back."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._refund)
