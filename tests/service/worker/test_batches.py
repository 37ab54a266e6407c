"""What becomes of the requests of one run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from service.worker.servables import Doubler, rows

from nnz_kernels.errors import DeviceLostError
from nnz_service.errors import ServiceError, WorkerLostError
from nnz_service.servable import Tensors
from nnz_service.worker.batches import run_batch
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Ticket, ticket


class Dying(Doubler):
    """Loses its device at the run that holds the fatal number."""

    FATAL = 13.0

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        if len(tensors["x"]) == 1 and (tensors["x"] == self.FATAL).any():
            raise DeviceLostError("gone")
        return super().run(tensors, outputs)


def waiting(servable: Doubler, *requests: dict) -> list[Ticket]:
    counters = Counters()
    return [ticket(servable, tensors, None, counters) for tensors in requests]


def test_each_is_told_its_share_of_the_work() -> None:
    batch = waiting(Doubler(), rows(1), rows(2), rows(5))

    run_batch(batch)

    outcomes = [each.future.result() for each in batch]
    whole = outcomes[0].timings["compute"]
    assert [one.timings["compute"] for one in outcomes] == [whole] * 3
    assert [one.rows for one in outcomes] == [8] * 3
    shares = [one.work / whole for one in outcomes]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_one_that_breaks_fails_alone() -> None:
    batch = waiting(Doubler(), rows(1), rows(1, -1.0), rows(1))

    run_batch(batch)

    assert batch[0].future.result().rows == 1
    with pytest.raises(ServiceError, match="negative"):
        batch[1].future.result()
    assert batch[2].future.result().rows == 1


def test_device_that_is_lost_on_the_way_leaves_nobody_waiting() -> None:
    """The joined run breaks, so each runs alone; the second takes the device along."""
    batch = waiting(Dying(), rows(1), rows(1, Dying.FATAL), rows(1, -1.0), rows(1))

    with pytest.raises(DeviceLostError):
        run_batch(batch)

    assert batch[0].future.result(timeout=0).rows == 1
    for each in batch[1:]:
        with pytest.raises(WorkerLostError):
            each.future.result(timeout=0)
