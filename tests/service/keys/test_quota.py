"""No order of requests gets more out of a bucket than is promised."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnz_service.keys.quota import burst_of, take

RATES = st.floats(0.01, 1e4)
STEPS = st.lists(
    st.tuples(st.floats(-5.0, 5.0), st.floats(0.0, 100.0)), min_size=1, max_size=60
)


def replay(rate: float, steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Ask at each step; gives (now, granted)."""
    tokens, last, now, out = 0.0, 0.0, 1000.0, []
    for pause, amount in steps:
        now += pause
        tokens, last, wait = take(tokens, last, now, rate, burst_of(rate), amount)
        assert 0.0 <= tokens <= burst_of(rate)
        out.append((now, amount if wait == 0.0 else 0.0))
    return out


class TestTake:
    @given(rate=RATES, steps=STEPS)
    def test_never_more_than_promised(
        self, rate: float, steps: list[tuple[float, float]]
    ) -> None:
        """Whatever the clock does: rate x time that was really new, and one burst."""
        history = replay(rate, steps)
        granted = sum(amount for _, amount in history)
        times = [now for now, _ in history]
        elapsed = max(times) - times[0]

        assert granted <= (rate * elapsed + burst_of(rate)) * (1 + 1e-9)

    @given(rate=RATES, tokens=st.floats(0, 50), back=st.floats(0.0, 1e6))
    def test_a_clock_that_goes_back_grants_nothing(
        self, rate: float, tokens: float, back: float
    ) -> None:
        burst = burst_of(rate)
        left, last, _ = take(min(tokens, burst), 1e6, 1e6 - back, rate, burst, 0.0)

        assert left == min(tokens, burst)
        assert last == 1e6

    @given(rate=RATES, steps=STEPS)
    def test_who_waits_as_told_is_served(
        self, rate: float, steps: list[tuple[float, float]]
    ) -> None:
        burst = burst_of(rate)
        tokens, last, now = 0.0, 0.0, 1000.0
        for pause, amount in steps:
            now += abs(pause)
            wanted = min(amount, burst)
            tokens, last, wait = take(tokens, last, now, rate, burst, wanted)
            assert wait <= burst / rate
            if wait:
                now += wait + 1e-6
                tokens, last, wait = take(
                    tokens, last, now, rate, burst, wanted * 0.999
                )
                assert wait == 0.0

    def test_first_use_finds_a_full_bucket(self) -> None:
        assert take(0.0, 0.0, 5e4, 3.0, 6.0, 6.0) == (0.0, 5e4, 0.0)

    def test_wait_is_the_time_until_enough_came_in(self) -> None:
        assert take(1.0, 10.0, 10.5, 2.0, 4.0, 4.0) == (2.0, 10.5, 1.0)

    def test_more_than_the_bucket_never(self) -> None:
        assert take(4.0, 10.0, 10.0, 2.0, 4.0, 4.5) == (4.0, 10.0, math.inf)

    def test_a_page_with_too_many_tokens_is_set_right(self) -> None:
        tokens, _, _ = take(99.0, 10.0, 10.0, 2.0, 4.0, 0.0)
        assert tokens == 4.0


@pytest.mark.parametrize(("rate", "burst"), [(0.1, 1.0), (0.5, 1.0), (10.0, 20.0)])
def test_burst(rate: float, burst: float) -> None:
    assert burst_of(rate) == burst
