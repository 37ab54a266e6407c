from __future__ import annotations

import pytest

from nnz_service.dataplane import Admission, Page, allowance
from nnz_service.errors import OverloadedError, TooLargeError
from nnz_service.keys import Caller, Quota


class TestAdmission:
    def test_slots(self) -> None:
        admission = Admission(slots=2, nbytes=100)
        first = admission.reserve(0)
        admission.reserve(0)

        with pytest.raises(OverloadedError, match="2 requests"):
            admission.reserve(0)

        first.release()
        admission.reserve(0)

    def test_bytes(self) -> None:
        admission = Admission(slots=9, nbytes=100)
        with admission.reserve(60):
            with pytest.raises(OverloadedError, match="hold 60 of 100 bytes; 41 more"):
                admission.reserve(41)
            admission.reserve(40).release()

        assert (admission.used_slots, admission.used_bytes) == (0, 0)

    def test_more_than_there_will_ever_be(self) -> None:
        with pytest.raises(TooLargeError, match="101"):
            Admission(slots=1, nbytes=100).reserve(101)

    def test_a_refusal_takes_nothing(self) -> None:
        admission = Admission(slots=1, nbytes=100)
        held = admission.reserve(10)
        with pytest.raises(OverloadedError):
            admission.reserve(10)
        held.release()

        assert (admission.used_slots, admission.used_bytes) == (0, 0)

    def test_true_up(self) -> None:
        admission = Admission(slots=2, nbytes=100)
        held = admission.reserve(90)

        held.true_up(10)
        assert admission.used_bytes == 10
        held.release()
        held.release()
        held.true_up(50)

        assert (admission.used_slots, admission.used_bytes) == (0, 0)

    def test_released_by_an_error(self) -> None:
        admission = Admission(slots=1, nbytes=1)

        with pytest.raises(KeyError), admission.reserve(1):
            raise KeyError

        assert admission.used_slots == 0


class TestQuotas:
    def test_requests_a_second(self) -> None:
        admission = Admission(slots=99, nbytes=99)
        caller = Caller("k-1", quota=Quota(rate=2.0), row=3)
        for _ in range(4):  # two seconds' worth may come at once
            admission.reserve(1, caller).release()

        with pytest.raises(OverloadedError, match="2 requests a second") as caught:
            admission.reserve(1, caller)

        assert caught.value.retry_after == 1
        admission.reserve(1, Caller("k-2", quota=Quota(rate=2.0), row=4)).release()
        admission.reserve(1).release()

    def test_work_a_minute(self) -> None:
        """A minute's worth may be used at once; for more one has to wait."""
        page = Page()
        admission = Admission(slots=99, nbytes=99, page=page)
        caller = Caller("k-1", quota=Quota(work=30.0), row=3)
        assert admission.work_left(caller) == 30
        for seconds in (29.0, 5.0):
            admission.reserve(1, caller).release()
            allowance.charge(page, caller, seconds)

        with pytest.raises(OverloadedError, match="30 s of computing") as caught:
            admission.reserve(1, caller)

        assert caught.value.retry_after == 8  # 4 s too many, half a second a second
        assert admission.work_left(caller) == pytest.approx(-4, abs=0.5)
        assert admission.work_left(Caller("k-2", row=3)) is None

    def test_what_is_only_fetched_needs_no_work(self) -> None:
        """The result of a job that used up all of it can be fetched."""
        page = Page()
        admission = Admission(slots=99, nbytes=99, page=page)
        caller = Caller("k-1", quota=Quota(work=30.0), row=3)
        allowance.charge(page, caller, 3600.0)

        admission.reserve(1, caller, computes=False).release()
        with pytest.raises(OverloadedError, match="30 s of computing"):
            admission.reserve(1, caller)

    def test_a_refused_request_takes_nothing(self) -> None:
        admission = Admission(slots=1, nbytes=99)
        caller = Caller("k-1", quota=Quota(rate=1.0), row=3)
        with admission.reserve(1), pytest.raises(OverloadedError, match="1 requests"):
            admission.reserve(1, caller)

        admission.reserve(1, caller).release()
        admission.reserve(1, caller).release()


def test_growing() -> None:
    """A body whose length is known only when it is there."""
    admission = Admission(slots=2, nbytes=100)
    with admission.reserve(0) as held, admission.reserve(60):
        with pytest.raises(OverloadedError, match="hold 60 of 100"):
            held.grow(41)
        held.grow(40)
        assert admission.used_bytes == 100

    assert (admission.used_slots, admission.used_bytes) == (0, 0)
