"""Token buckets as arithmetic: how often, or how much, somebody may ask.

A bucket is two numbers, so that it can lie in a page that processes share: the tokens
in it, and the moment at which they were counted. Both 0.0 is a bucket that was never
used; it fills at its first use. Whoever holds the page serialises its changes:

    tokens, last, wait = take(tokens, last, time.monotonic(), rate, burst_of(rate), 1)
    # wait 0: granted. Else refuse, with Retry-After of ceil(wait) seconds.

`time.monotonic()` counts from the start of the machine for all of its processes, so
that they may share `last`.
"""

from __future__ import annotations

import math

#: A bucket holds what comes in so many seconds: callers arrive in bursts.
BURST_SECONDS = 2.0


def burst_of(rate: float) -> float:
    """Return what a bucket of this rate holds: two seconds' worth, at least one."""
    return max(1.0, BURST_SECONDS * rate)


def take(
    tokens: float, last: float, now: float, rate: float, burst: float, amount: float
) -> tuple[float, float, float]:
    """Take tokens out of a bucket, all of them or none.

    In any stretch of t seconds at most `rate` * t + `burst` tokens are granted. A clock
    that goes backwards brings no token, and `last` waits for it to come past again.

    Args:
        tokens: In the bucket at `last`.
        last: Monotonic seconds.
        now: Monotonic seconds.
        rate: Tokens that come in a second, more than 0.
        burst: Tokens that the bucket holds.
        amount: Tokens wanted, 0 or more. What passes `burst` is never granted: whoever
            wants it served takes `min(amount, burst)`.

    Returns:
        Tokens and last to keep, and the seconds to wait: 0 when they were granted,
        infinity when they never will be.
    """
    if now > last:
        tokens = min(burst, tokens + (now - last) * rate)
        last = now
    else:
        tokens = min(burst, tokens)
    if amount <= tokens:
        return tokens - amount, last, 0.0
    if amount > burst:
        return tokens, last, math.inf
    return tokens, last, (amount - tokens) / rate
