"""Questions about many jobs, to every store."""

from __future__ import annotations

from typing import Any

import pytest
from service.jobs.stores import claimed, ended

from nnz_service.errors import NotFoundError
from nnz_service.jobs import (
    JobStore,
    Retention,
    Status,
)
from nnz_service.jobs.forecast import Outlook
from nnz_service.jobs.retention import Ended, Usage, sweep


class TestList:
    def test_youngest_first_and_bounded(self, store: JobStore) -> None:
        ids = [store.submit("cg", {"n": n}).id for n in range(4)]

        assert [job.id for job in store.list(3)] == ids[:0:-1]

    @pytest.mark.parametrize("name", ["j-none", "j-0123456789abcdef", "j-\0", "\0"])
    def test_absent(self, store: JobStore, name: str) -> None:
        with pytest.raises(NotFoundError, match="there is no job"):
            store.get(name)

    def test_filters(self, store: JobStore) -> None:
        store.submit("cg", {"n": 0}, owner="ann")
        claimed(store)
        for kind, owner in [("cg", "ann"), ("lp", "ann"), ("cg", "bob")]:
            store.submit(kind, {"n": 1}, owner=owner)

        def found(**asked: Any) -> list[tuple[str, str, str]]:
            jobs = store.list(**asked)
            return [(job.kind, job.owner, job.status.value) for job in jobs]

        running, waiting = ("cg", "ann", "running"), ("cg", "ann", "queued")
        other, bobs = ("lp", "ann", "queued"), ("cg", "bob", "queued")
        assert found(owner="ann") == [other, waiting, running]
        assert found(kind="cg") == [bobs, waiting, running]
        assert found(status=Status.QUEUED, kind="cg") == [bobs, waiting]
        assert found(status=Status.RUNNING, owner="bob") == []

    def test_pages(self, store: JobStore) -> None:
        """Each begins behind the last of the one before, whatever was added."""
        ids = [store.submit("cg", {"n": n}).id for n in range(5)]
        first = store.list(2)
        store.submit("cg", {"n": 5})

        second = store.list(2, before=first[-1].id)
        third = store.list(2, before=second[-1].id)

        seen = [job.id for page in (first, second, third) for job in page]
        assert seen == ids[::-1]
        with pytest.raises(NotFoundError):
            store.list(before="j-0000000000000000")


class TestOwner:
    def test_jobs_of_others_are_not_there(self, store: JobStore) -> None:
        job = store.submit("cg", {}, owner="ann")

        for call in (
            lambda: store.get(job.id, "bob"),
            lambda: store.request_cancel(job.id, "bob"),
            lambda: store.delete(job.id, owner="bob"),
            lambda: store.list(before=job.id, owner="bob"),
        ):
            with pytest.raises(NotFoundError, match=f"there is no job '{job.id}'"):
                call()

        assert store.list(owner="bob") == []
        assert store.get(job.id, "ann") == store.get(job.id, None) == job

    def test_their_owner_may_do_all(self, store: JobStore) -> None:
        job = store.submit("cg", {}, owner="ann")

        store.request_cancel(job.id, "ann")
        store.delete(job.id, owner="ann")

        assert store.list() == []


class TestNewer:
    def test_only_what_has_changed(self, store: JobStore) -> None:
        one, two = store.submit("cg", {"n": 1}), store.submit("cg", {"n": 2})
        gone = "j-0000000000000000"
        seen = {one.id: one.revision, two.id: two.revision, gone: 3}

        now = claimed(store)

        assert now.revision == one.revision + 1
        assert store.newer(seen) == {one.id: now, gone: None}
        assert store.newer({}) == {}

    def test_every_change_counts(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = claimed(store)
        steps = [
            store.progress(job.id, job.token, {"iterations": 1}),
            store.request_cancel(job.id),
            store.finish(job.id, job.token, Status.CANCELLED),
        ]

        assert [step.revision for step in steps] == [3, 4, 5]


class TestOutlook:
    def test_nothing_is_known_at_first(self, store: JobStore) -> None:
        job = store.submit("cg", {"matrix": "m"})

        assert store.outlook([job.id]) == {job.id: Outlook(0, 0.0, None)}

    def test_the_queue_adds_up(self, store: JobStore) -> None:
        ended(store, {"matrix": "small"}, 2.0)
        ended(store, {"matrix": "large"}, 10.0)
        running = store.submit("cg", {"matrix": "large"})
        job = claimed(store)
        store.progress(job.id, job.token, {}, None, 4.0)
        first = store.submit("cg", {"matrix": "small"})
        second = store.submit("cg", {"matrix": "large"})
        other = store.submit("cg", {"matrix": "unknown"})
        last = store.submit("cg", {"matrix": "small"})

        found = store.outlook([j.id for j in store.list()])

        assert found == {
            running.id: Outlook(0, 0.0, 10.0),
            first.id: Outlook(0, 6.0, 2.0),
            second.id: Outlook(1, 8.0, 10.0),
            other.id: Outlook(2, 18.0, None),
            last.id: Outlook(3, None, 2.0),
        }

    def test_a_job_that_takes_too_long_has_nothing_left(self, store: JobStore) -> None:
        ended(store, {}, 1.0)
        store.submit("cg", {})
        job = claimed(store)
        store.progress(job.id, job.token, {}, None, 5.0)
        after = store.submit("cg", {})

        assert store.outlook([after.id]) == {after.id: Outlook(0, 0.0, 1.0)}

    def test_old_times_fade(self, store: JobStore) -> None:
        for seconds in [1.0, 3.0, *[9.0] * 15]:
            ended(store, {}, seconds)
        job = store.submit("cg", {})

        own = store.outlook([job.id])[job.id].own

        assert own == pytest.approx(9.0, abs=1.0)

    def test_only_success_teaches(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = claimed(store)
        store.finish(job.id, job.token, Status.FAILED, error="x", seconds=1.0)
        after = store.submit("cg", {})

        assert store.outlook([after.id])[after.id].own is None


class TestRetention:
    def test_what_has_ended(self, store: JobStore) -> None:
        one = ended(store, {"n": 1}, 1.0, result_sha="a", result_bytes=10)
        two = ended(store, {"n": 2}, 1.0, result_sha="b", result_bytes=20)
        store.submit("cg", {})

        assert store.usage() == Usage(2, 30)
        assert store.oldest_ended(5) == [
            Ended(one.id, one.finished or 0, 10),
            Ended(two.id, two.finished or 0, 20),
        ]
        assert len(store.oldest_ended(1)) == 1

    def test_inputs_of_what_has_ended(self, store: JobStore) -> None:
        store.submit("cg", {"n": 1}, "in1")
        job = claimed(store)
        store.finish(job.id, job.token, Status.SUCCEEDED)
        store.submit("cg", {"n": 2}, "in2")

        assert store.drop_inputs(5) == ["in1"]
        assert store.drop_inputs(5) == []
        assert store.blobs() == {"in2"}

    def test_release_spares_what_is_needed(self, store: JobStore) -> None:
        store.submit("cg", {}, "needed")
        dropped: list[str] = []

        gone = store.release(["needed", "idle", "idle"], dropped.append)

        assert gone == ("idle",)
        assert dropped == ["idle"]

    def test_sweep(self, store: JobStore) -> None:
        """Too old, too many bytes, too many: the oldest go, and all idle inputs."""
        for n in range(6):
            ended(store, {"n": n}, 1.0, result_sha=f"r{n}", result_bytes=10)
        store.submit("cg", {}, "in")
        dropped: list[str] = []

        def swept(**keep: Any) -> int:
            now = store.list(1)[0].created
            return sweep(store, dropped.append, Retention(**keep), now)

        assert swept() == 0
        assert swept(jobs=5) == 1
        assert swept(bytes=35) == 2
        assert dropped == ["r0", "r1", "r2"]
        assert swept(seconds=0.5) == 3
        assert swept(jobs=0, bytes=0) == 0
        assert [job.status for job in store.list()] == [Status.QUEUED]
