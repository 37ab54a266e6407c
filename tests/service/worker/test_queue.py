"""The order in which requests go, and how many may wait."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.worker.servables import Doubler, rows

from nnz_service.errors import OverloadedError
from nnz_service.worker.queue import Bounds, Queue
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Order, Ticket, ticket

MS = 1_000_000
SERVABLE = Doubler()


def of(
    owner: str = "",
    priority: int = 0,
    cost: int = MS,
    arrived: int = 1000 * MS,
    deadline: float | None = None,
) -> Ticket:
    order = Order(owner=owner, priority=priority)
    made = ticket(SERVABLE, rows(1), None, Counters(), deadline, order)
    made.cost, made.arrived = cost, arrived
    return made


def queue(*tickets: Ticket) -> list[Ticket]:
    made = Queue(Bounds())
    for one in tickets:
        made.add(one)
    return list(made)


class TestOrder:
    def test_equals_go_as_they_come(self) -> None:
        tickets = [of(arrived=n * MS) for n in range(5)]

        assert queue(*tickets) == tickets

    def test_the_higher_priority_first(self) -> None:
        low, silent, usual, high = of(priority=9), of(), of(priority=5), of(priority=1)

        assert queue(low, silent, usual, high) == [high, silent, usual, low]

    def test_a_low_priority_does_not_wait_for_ever(self) -> None:
        low = of(priority=9, arrived=0)
        high = of(priority=1, arrived=9000 * MS)

        assert queue(low, high) == [low, high]

    def test_beyond_the_lowest_there_is_none(self) -> None:
        first, second = of(priority=2**63, arrived=0), of(priority=9, arrived=1)

        assert queue(first, second) == [first, second]

    def test_a_flood_delays_its_sender(self) -> None:
        flood = [of("a", cost=10 * MS, arrived=1000 * MS + n) for n in range(20)]
        other = [of("b", cost=10 * MS, arrived=1005 * MS + n) for n in range(2)]

        order = queue(*flood, *other)

        places = [order.index(one) for one in other]
        assert places == [1, 3]

    def test_what_is_done_is_forgotten(self) -> None:
        made = Queue(Bounds())
        for _ in range(5):
            made.add(of("a", cost=10**12, arrived=1000 * MS))
            made.take(list(made))
        late = of("a", arrived=2000 * MS)
        made.add(of("b", arrived=2000 * MS + 1))
        made.add(late)

        assert next(iter(made)) is late


class TestBounds:
    def test_by_count(self) -> None:
        made = Queue(Bounds(count=2))
        made.add(of(cost=3000 * MS))
        made.add(of(cost=100 * MS))

        with pytest.raises(OverloadedError, match="2 requests wait") as caught:
            made.add(of())

        assert caught.value.retry_after == 4  # whole seconds

    def test_by_work(self) -> None:
        made = Queue(Bounds(seconds=1))
        made.add(of(cost=9000 * MS))  # alone it may be as long as it is
        made.take(list(made))
        made.add(of(cost=600 * MS))

        with pytest.raises(OverloadedError, match=r"0\.6 s waits already, 0\.5 s more"):
            made.add(of(cost=500 * MS))

        made.add(of(cost=400 * MS))

    def test_what_has_begun_is_let_in(self) -> None:
        """All that it took so far would be lost; in time it has to be even so."""
        made = Queue(Bounds(count=1, seconds=1))
        made.add(of(cost=900 * MS))
        part, late = of(cost=500 * MS), of(deadline=time.monotonic() + 0.5)
        part.begun = late.begun = True

        made.add(part)

        assert len(made) == 2
        with pytest.raises(OverloadedError, match="until the deadline"):
            made.add(late)

    def test_what_cannot_be_in_time_is_refused_at_once(self) -> None:
        made = Queue(Bounds())
        made.add(of(cost=2000 * MS))

        with pytest.raises(OverloadedError, match="until the deadline"):
            made.add(of(deadline=time.monotonic() + 1), ahead=500 * MS)

        made.add(of(priority=1, deadline=time.monotonic() + 1), ahead=500 * MS)
        made.add(of(deadline=time.monotonic() + 9), ahead=500 * MS)

    def test_a_refusal_changes_nothing(self) -> None:
        made = Queue(Bounds(count=1))
        made.add(of("a"))
        for _ in range(3):
            with pytest.raises(OverloadedError):
                made.add(of("b", cost=10**12))

        made.take(list(made))
        assert (len(made), made.cost) == (0, 0)


class TestLeaving:
    def test_what_was_late_and_left_is_paid_back_once(self) -> None:
        made = Queue(Bounds())
        both, stays = of("a", deadline=1.0), of("a")
        for one in (both, stays):
            made.add(one)
        before = made._clocks["a"]
        both.future.cancel()

        made.drop(2.0)

        assert made._clocks["a"] == before - both.cost

    def test_the_late_and_those_who_left(self) -> None:
        made = Queue(Bounds())
        late, left, stays = of(deadline=1.0), of(), of()
        for one in (late, left, stays):
            made.add(one)
        left.future.cancel()

        assert made.drop(now=2.0) == [late]
        assert list(made) == [stays]
        assert made.cost == MS

    def test_what_was_not_computed_does_not_count_against_its_caller(self) -> None:
        made = Queue(Bounds())
        gone = [of("a", cost=10**10) for _ in range(5)]
        for one in (of("b"), *gone):
            made.add(one)
        for one in gone:
            one.future.cancel()
        made.drop(now=0.0)

        again, other = of("a", arrived=2000 * MS), of("b", arrived=2000 * MS + 1)
        made.add(other)
        made.add(again)

        assert list(made)[-2:] == [again, other]

    def test_all(self) -> None:
        made = Queue(Bounds())
        tickets = [of(), of()]
        for one in tickets:
            made.add(one)

        assert made.clear() == tickets
        assert not len(made)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 10**9)),
        max_size=30,
    )
)
def test_nothing_is_lost_and_costs_add_up(asked: list[tuple[str, int, int]]) -> None:
    made = Queue(Bounds(seconds=1e9))
    tickets = [of(owner, priority, cost) for owner, priority, cost in asked]
    for one in tickets:
        made.add(one)

    assert made.cost == sum(cost for _, _, cost in asked)
    assert sorted(map(id, made)) == sorted(map(id, tickets))
    assert [one.rank for one in made] == sorted(one.rank for one in made)
