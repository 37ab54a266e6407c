from __future__ import annotations

from datetime import UTC, datetime

import pytest

from nnz._retry import RetryBudget, RetryPolicy, delay, retry_after

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def pause(attempt: int = 1, status: int | None = 503, **named: float | None) -> object:
    policy = RetryPolicy(retries=3, first=1.0, longest=10.0)
    arguments = {"retry_after": None, "random": 0.5, **named}
    return delay(policy, attempt=attempt, status=status, **arguments)


class TestDelay:
    def test_doubles_and_is_jittered(self) -> None:
        assert [pause(n) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
        assert pause(3, random=0.0) == 0.0

    def test_has_a_longest_pause(self) -> None:
        policy = RetryPolicy(retries=99, first=1.0, longest=10.0)

        seconds = delay(policy, attempt=90, status=429, retry_after=None, random=1.0)

        assert seconds == 10.0

    def test_stops_after_the_last_retry(self) -> None:
        assert pause(3) is not None
        assert pause(4) is None

    def test_zero_retries_means_none(self) -> None:
        policy = RetryPolicy(retries=0)

        assert delay(policy, attempt=1, status=503, retry_after=0.0, random=0.0) is None

    @pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 502, 504])
    def test_a_refusal_for_good_is_final(self, status: int) -> None:
        assert pause(status=status, retry_after=1.0) is None

    @pytest.mark.parametrize("status", [429, 503, None])
    def test_not_now_is_tried_again(self, status: int | None) -> None:
        assert pause(status=status) == 0.5

    def test_the_server_is_never_pressed(self) -> None:
        assert pause(retry_after=7.0, random=0.0) == 7.0
        assert pause(retry_after=7.0, random=0.5) == 7.5

    def test_a_server_that_wants_too_long_is_final(self) -> None:
        assert pause(retry_after=10.0) == 10.5
        assert pause(retry_after=10.5) is None


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            pytest.param("0", 0.0, id="now"),
            pytest.param(" 17 ", 17.0, id="number"),
            pytest.param("Mon, 04 May 2026 12:00:30 GMT", 30.0, id="date"),
            pytest.param("Mon, 04 May 2026 11:00:00 GMT", 0.0, id="past"),
            pytest.param("Mon, 04 May 2026 12:00:30 -0000", 30.0, id="no zone"),
            pytest.param("soon", None, id="word"),
            pytest.param("-3", None, id="negative"),
            pytest.param("", None, id="empty"),
        ],
    )
    def test_reads_what_the_standard_allows(
        self, value: str, seconds: float | None
    ) -> None:
        assert retry_after({"retry-after": value}, now=NOW) == seconds

    def test_absent(self) -> None:
        assert retry_after({}, now=NOW) is None


class TestRetryBudget:
    def test_runs_dry_and_refills_with_success(self) -> None:
        budget = RetryBudget(tokens=2.0, refund=0.5)

        assert [budget.take() for _ in range(3)] == [True, True, False]

        budget.success()
        assert not budget.take()
        budget.success()
        assert budget.take()

    def test_never_holds_more_than_at_first(self) -> None:
        budget = RetryBudget(tokens=1.0, refund=1.0)
        budget.success()

        assert [budget.take(), budget.take()] == [True, False]
