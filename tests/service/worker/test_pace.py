"""When checkpoints are written."""

from __future__ import annotations

import pytest

from nnz_service.worker.attempt import Pace


def test_the_first_checkpoint_comes_early() -> None:
    pace = Pace(100.0)

    assert not pace.save_due(100.2)
    assert pace.save_due(100.25)


def test_later_ones_are_what_a_crash_may_cost_apart() -> None:
    pace = Pace(100.0)
    pace.did_save(100.25, 100.26)

    assert not pace.save_due(102.25)
    assert pace.save_due(102.26)


@pytest.mark.parametrize("cost", [0.5, 3.0])
def test_saving_takes_a_tenth_of_the_time(cost: float) -> None:
    pace = Pace(0.0)
    now, saving = 0.0, 0.0
    while now < 1000.0:
        now += 0.05
        if pace.save_due(now):
            pace.did_save(now, now + cost)
            now, saving = now + cost, saving + cost

    assert 0.08 <= saving / now <= 0.11
