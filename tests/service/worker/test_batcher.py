from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nnz_service.worker.batcher import Limits, cut


@dataclass(frozen=True)
class Waiting:
    key: Hashable | None = "a"
    rows: int = 1
    cost: int = 1
    nbytes: int = 1
    max_rows: int = 8
    plans: bool = False
    number: int = 0


WIDE = Limits(cost=1000, nbytes=1000)


class TestCut:
    def test_nobody_waits(self) -> None:
        assert cut([], WIDE) == []

    def test_equal_keys_join_in_order(self) -> None:
        queue = [Waiting("ab"[n % 2], number=n) for n in range(6)]

        assert [w.number for w in cut(queue, WIDE)] == [0, 2, 4]

    def test_no_key_runs_alone(self) -> None:
        assert cut([Waiting(None), Waiting(None)], WIDE) == [Waiting(None)]

    def test_others_with_no_key_do_not_join(self) -> None:
        assert len(cut([Waiting("a"), Waiting(None), Waiting("a")], WIDE)) == 2

    @pytest.mark.parametrize(
        ("each", "limits", "count"),
        [
            pytest.param(Waiting(rows=3), WIDE, 2, id="rows: 3 + 3 of 8"),
            pytest.param(Waiting(cost=40), Limits(cost=100), 2, id="cost"),
            pytest.param(Waiting(nbytes=40), Limits(nbytes=100), 2, id="bytes"),
            pytest.param(Waiting(cost=50), Limits(cost=100), 2, id="exactly full"),
            pytest.param(Waiting(rows=9), WIDE, 1, id="too long, but alone"),
            pytest.param(Waiting(cost=200), Limits(cost=100), 1, id="too dear, alone"),
        ],
    )
    def test_bounds(self, each: Waiting, limits: Limits, count: int) -> None:
        assert len(cut([each] * 5, limits)) == count

    def test_a_later_small_one_does_not_overtake(self) -> None:
        queue = [Waiting(rows=6), Waiting(rows=4), Waiting(rows=1)]

        assert cut(queue, WIDE) == queue[:1]

    def test_looks_at_a_bounded_number(self) -> None:
        queue = [Waiting("a"), *[Waiting("b")] * 3, Waiting("a")]

        assert len(cut(queue, Limits(scan=3))) == 1
        assert len(cut(queue, Limits(scan=4))) == 2

    @pytest.mark.parametrize(
        ("rows", "count"),
        [
            pytest.param([1] * 7, 4, id="ones"),
            pytest.param([1] * 8, 8, id="a full one"),
            pytest.param([2, 2, 2], 2, id="twos"),
            pytest.param([3, 3, 3], 2, id="threes double too"),
            pytest.param([1, 3, 1], 2, id="mixed: 1 + 3"),
            pytest.param([2, 1, 4], 1, id="nothing fits"),
            pytest.param([0, 0, 1], 3, id="empty ones"),
        ],
    )
    def test_plans_grow_by_doubling(self, rows: list[int], count: int) -> None:
        queue = [Waiting(rows=n, plans=True) for n in rows]

        assert len(cut(queue, WIDE)) == count

    @given(
        st.lists(
            st.builds(
                Waiting,
                key=st.sampled_from([None, "a", "b"]),
                rows=st.integers(0, 9),
                cost=st.integers(0, 9),
                nbytes=st.integers(0, 9),
                number=st.integers(),
            ),
            min_size=1,
            max_size=30,
        )
    )
    def test_always(self, queue: list[Waiting]) -> None:
        """
        The oldest goes first, alone or with equals, within bounds.
        """
        limits = Limits(cost=20, nbytes=20)

        batch = cut(queue, limits)

        assert batch[0] is queue[0]
        assert len(batch) == 1 or {w.key for w in batch} == {queue[0].key} != {None}
        if len(batch) > 1:
            assert sum(w.rows for w in batch) <= 8
            assert sum(w.cost for w in batch) <= 20
            assert sum(w.nbytes for w in batch) <= 20
