"""When a job will end."""

from __future__ import annotations

import dataclasses

import pytest

from nnz_service.jobs import Job, Status
from nnz_service.jobs.forecast import Outlook, predicted_finish, updated

QUEUED = Job("j", "cg", {}, Status.QUEUED, 0.0)
RUNNING = dataclasses.replace(QUEUED, status=Status.RUNNING, seconds=2.0)


@pytest.mark.parametrize(
    ("job", "outlook", "devices", "expected"),
    [
        pytest.param(QUEUED, Outlook(0, 0.0, 5.0), 1, 105.0, id="alone"),
        pytest.param(QUEUED, Outlook(2, 8.0, 5.0), 1, 113.0, id="behind others"),
        pytest.param(QUEUED, Outlook(2, 8.0, 5.0), 2, 109.0, id="two devices"),
        pytest.param(RUNNING, Outlook(0, 0.0, 5.0), 1, 103.0, id="under way"),
        pytest.param(RUNNING, Outlook(0, 0.0, 1.0), 1, None, id="longer than any"),
        pytest.param(
            QUEUED, Outlook(0, 0.0, None), 1, None, id="the first of its kind"
        ),
        pytest.param(QUEUED, Outlook(1, None, 5.0), 1, None, id="behind such a one"),
    ],
)
def test_predicted_finish(
    job: Job, outlook: Outlook, devices: int, expected: float | None
) -> None:
    assert predicted_finish(job, outlook, devices, 100.0) == expected


def test_a_mean_is_exact_at_first() -> None:
    mean, count = 0.0, 0
    for seconds in (1.0, 2.0, 6.0):
        mean, count = updated(mean, count, seconds)

    assert (mean, count) == (pytest.approx(3.0), 3)
