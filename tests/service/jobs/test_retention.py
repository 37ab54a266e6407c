"""Which jobs go."""

from __future__ import annotations

import pytest

from nnz_service.jobs import Retention
from nnz_service.jobs.retention import Ended, Usage, surplus

OLDEST = [Ended(f"j{n}", float(n), 10) for n in range(5)]
ALL = Usage(5, 50)
ROOMY = {"seconds": 100.0, "bytes": 100, "jobs": 100}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        pytest.param({}, 0, id="all may stay"),
        pytest.param({"seconds": 7.0}, 3, id="too old"),
        pytest.param({"seconds": 10.0}, 0, id="just not too old"),
        pytest.param({"jobs": 3}, 2, id="too many"),
        pytest.param({"bytes": 25}, 3, id="too many bytes"),
        pytest.param({"bytes": 50}, 0, id="just not too many bytes"),
        pytest.param({"bytes": 0}, 5, id="no results at all"),
        pytest.param({"jobs": 4, "bytes": 45, "seconds": 8.5}, 2, id="the strictest"),
    ],
)
def test_the_oldest_go_first(keep: dict[str, float], expected: int) -> None:
    rule = Retention(**{**ROOMY, **keep})

    assert surplus(ALL, OLDEST, rule, 10.0) == [f"j{n}" for n in range(expected)]


def test_a_page_of_many() -> None:
    """What is beyond the page is found in the next round."""
    rule = Retention(100.0, 1000, 10)

    assert len(surplus(Usage(100, 0), OLDEST, rule, 10.0)) == 5


def test_nothing_has_ended() -> None:
    assert surplus(Usage(0, 0), [], Retention(0.0, 0, 0), 10.0) == []
