"""The life of a job, in every store."""

from __future__ import annotations

import threading

import pytest
from service.jobs.stores import KINDS, claimed

from nnz_service.errors import ConflictError, ImpossibleError
from nnz_service.jobs import (
    MAX_ATTEMPTS,
    TRANSITIONS,
    JobStore,
    StaleTokenError,
    Status,
)


class TestCounts:
    def test_by_status(self, store: JobStore) -> None:
        """Every status, those of no job too."""
        for _ in range(3):
            store.submit("cg", {})
        store.claim("w", KINDS)
        store.request_cancel(store.list()[0].id)

        found = store.counts()

        assert set(found) == {status.value for status in Status}
        assert {name: count for name, count in found.items() if count} == {
            "running": 1,
            "queued": 1,
            "cancelled": 1,
        }


class TestSubmit:
    def test_new_job(self, store: JobStore) -> None:
        job = store.submit("cg", {"matrix": "m-1", "rtol": 1e-8}, "aa")

        assert job == store.get(job.id)
        assert (job.status, job.params["rtol"], job.inputs_sha) == (
            Status.QUEUED,
            1e-8,
            "aa",
        )
        assert (job.started, job.finished, job.attempts) == (None, None, 0)

    def test_same_key_same_request(self, store: JobStore) -> None:
        first = store.submit("cg", {"a": 1, "b": 2}, "aa", "key")
        store.claim("w", KINDS)

        again = store.submit("cg", {"b": 2, "a": 1}, "aa", "key")

        assert again.id == first.id
        assert again.status is Status.RUNNING
        assert len(store.list()) == 1

    @pytest.mark.parametrize(
        ("params", "inputs"), [({"a": 2}, "aa"), ({"a": 1}, "bb"), ({"a": 1}, None)]
    )
    def test_same_key_other_request(
        self, store: JobStore, params: dict[str, int], inputs: str | None
    ) -> None:
        store.submit("cg", {"a": 1}, "aa", "key")

        with pytest.raises(
            ImpossibleError, match="'key' was used for other work, job j-"
        ):
            store.submit("cg", params, inputs, "key")

    def test_no_key_means_two_jobs(self, store: JobStore) -> None:
        store.submit("cg", {}, "aa")
        store.submit("cg", {}, "aa")

        assert len(store.list()) == 2

    def test_keys_belong_to_owners(self, store: JobStore) -> None:
        ids = [
            store.submit("cg", {"of": owner}, "aa", "key", owner).id
            for owner in ("", "ann", "bob")
        ]

        assert len(set(ids)) == 3
        assert store.submit("cg", {"of": "ann"}, "aa", "key", "ann").id == ids[1]

    def test_key_is_free_after_delete(self, store: JobStore) -> None:
        first = store.submit("cg", {}, "aa", "key")
        store.request_cancel(first.id)
        store.delete(first.id)

        assert store.submit("cg", {"other": 1}, "bb", "key").id != first.id

    def test_concurrent_submits_with_one_key(self, store: JobStore) -> None:
        ids: list[str] = []
        threads = [
            threading.Thread(
                target=lambda: ids.append(store.submit("cg", {}, "aa", "key").id)
            )
            for _ in range(8)
        ]

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(ids) == 8
        assert len(set(ids)) == 1


class TestClaim:
    def test_oldest_of_the_kinds(self, store: JobStore) -> None:
        store.submit("lp", {})
        first = store.submit("cg", {"n": 1})
        store.submit("cg", {"n": 2})

        job = store.claim("w", KINDS)

        assert job is not None
        assert (job.id, job.status, job.worker) == (first.id, Status.RUNNING, "w")
        assert (job.attempts, job.token) == (1, 1)
        assert job.started is not None

    def test_nothing_queued(self, store: JobStore) -> None:
        assert store.claim("w", KINDS) is None

    def test_each_job_goes_to_one_worker(self, store: JobStore) -> None:
        for n in range(12):
            store.submit("cg", {"n": n})
        claimed: list[str] = []

        def work() -> None:
            while (job := store.claim("w", KINDS)) is not None:
                claimed.append(job.id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(claimed) == sorted(job.id for job in store.list())


class TestProgress:
    def test_checkpoint_stays_until_replaced(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None

        store.progress(job.id, job.token, {"iterations": 1}, "c1")
        now = store.progress(job.id, job.token, {"iterations": 2})

        assert now == store.get(job.id)
        assert (now.progress, now.checkpoint) == ({"iterations": 2}, "c1")

    def test_stale_token(self, store: JobStore) -> None:
        store.submit("cg", {})
        old = store.claim("w", KINDS)
        store.requeue_lost("w")
        new = store.claim("w", KINDS)
        assert old is not None
        assert new is not None

        with pytest.raises(StaleTokenError, match="under token 2; 1 is stale"):
            store.progress(old.id, old.token, {"iterations": 9})
        with pytest.raises(StaleTokenError):
            store.finish(old.id, old.token, Status.SUCCEEDED)

        assert store.get(new.id) == new

    def test_ended_job(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None
        store.finish(job.id, job.token, Status.FAILED, error="broken")

        with pytest.raises(StaleTokenError, match="is failed"):
            store.progress(job.id, job.token, {})


class TestFinish:
    def test_succeeded(self, store: JobStore) -> None:
        store.submit("cg", {}, "in")
        job = store.claim("w", KINDS)
        assert job is not None
        store.progress(job.id, job.token, {"iterations": 5}, "c1")

        end = store.finish(
            job.id, job.token, Status.SUCCEEDED, result={"n": 5}, result_sha="out"
        )

        assert end == store.get(job.id)
        assert (end.result, end.result_sha, end.checkpoint) == ({"n": 5}, "out", None)
        assert end.finished is not None
        assert store.blobs() == {"in", "out"}

    def test_numbers_that_are_none(self, store: JobStore) -> None:
        """NaN is no JSON; the text of an error may hold anything."""
        store.submit("cg", {})
        job = claimed(store)
        store.progress(job.id, job.token, {"residual": float("nan")})

        end = store.finish(job.id, job.token, Status.FAILED, error="a\0b")

        assert end.error == store.get(job.id).error == "a\ufffdb"

    def test_not_a_possible_end(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None

        with pytest.raises(ConflictError, match="cannot become running"):
            store.finish(job.id, job.token, Status.RUNNING)


class TestCancel:
    def test_queued_at_once(self, store: JobStore) -> None:
        job = store.request_cancel(store.submit("cg", {}).id)

        assert (job.status, job.cancel_requested) == (Status.CANCELLED, True)
        assert store.claim("w", KINDS) is None

    def test_running_is_asked(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None

        store.request_cancel(job.id)
        now = store.progress(job.id, job.token, {})

        assert (now.status, now.cancel_requested) == (Status.RUNNING, True)

    def test_ended_stays(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None
        end = store.finish(job.id, job.token, Status.SUCCEEDED)

        assert store.request_cancel(job.id) == end


class TestDelete:
    def test_returns_blobs_that_nobody_else_needs(self, store: JobStore) -> None:
        one = store.submit("cg", {"n": 1}, "shared")
        two = store.submit("cg", {"n": 2}, "shared")
        store.request_cancel(one.id)
        store.request_cancel(two.id)

        dropped: list[str] = []
        assert store.delete(one.id, dropped.append) == ()
        assert dropped == []
        assert store.delete(two.id, dropped.append) == ("shared",)
        assert dropped == ["shared"]
        assert store.list() == []

    def test_not_before_the_end(self, store: JobStore) -> None:
        job = store.submit("cg", {})

        with pytest.raises(ConflictError, match="is queued; cancel it first"):
            store.delete(job.id)


class TestRequeueLost:
    def test_only_running_jobs_of_that_worker(self, store: JobStore) -> None:
        for n in range(3):
            store.submit("cg", {"n": n})
        mine, other = store.claim("mine", KINDS), store.claim("other", KINDS)
        assert mine is not None
        assert other is not None
        store.progress(mine.id, mine.token, {"iterations": 3}, "c1")

        lost = store.requeue_lost("mine")

        assert [job.id for job in lost] == [mine.id]
        assert store.get(other.id).status is Status.RUNNING
        again = store.claim("mine", KINDS)
        assert again is not None
        assert (again.id, again.token, again.checkpoint) == (mine.id, 2, "c1")
        assert again.started == mine.started

    def test_cancelled_meanwhile(self, store: JobStore) -> None:
        store.submit("cg", {})
        job = store.claim("w", KINDS)
        assert job is not None
        store.request_cancel(job.id)

        assert [j.status for j in store.requeue_lost("w")] == [Status.CANCELLED]

    def test_jobs_that_it_still_has(self, store: JobStore) -> None:
        for n in range(2):
            store.submit("cg", {"n": n})
        kept, lost = claimed(store), claimed(store)

        found = store.requeue_lost("w", besides=[kept.id])

        assert [job.id for job in found] == [lost.id]

    def test_gives_up_on_a_job_that_kills_workers(self, store: JobStore) -> None:
        store.submit("cg", {})
        for _ in range(MAX_ATTEMPTS):
            assert store.claim("w", KINDS) is not None
            (last,) = store.requeue_lost("w")

        assert last.status is Status.FAILED
        assert (
            last.error
            == f"the worker ended {MAX_ATTEMPTS} times in a row while it ran "
            "this job, before a checkpoint"
        )
        assert store.claim("w", KINDS) is None

    def test_an_attempt_with_a_checkpoint_is_no_failure(self, store: JobStore) -> None:
        """However often the worker ends: the job gets on."""
        store.submit("cg", {})
        for n in range(3 * MAX_ATTEMPTS):
            job = claimed(store)
            store.progress(job.id, job.token, {}, f"c{n}")
            (last,) = store.requeue_lost("w")

        assert (last.status, last.attempts) == (Status.QUEUED, 3 * MAX_ATTEMPTS)

    def test_the_count_begins_anew_after_a_checkpoint(self, store: JobStore) -> None:
        store.submit("cg", {})
        for n in range(2 * MAX_ATTEMPTS - 1):
            job = claimed(store)
            if n == MAX_ATTEMPTS - 1:
                store.progress(job.id, job.token, {}, "c")
            (last,) = store.requeue_lost("w")

        assert last.status is Status.QUEUED
        claimed(store)
        assert [job.status for job in store.requeue_lost("w")] == [Status.FAILED]

    def test_an_orderly_end_is_not_held_against_it(self, store: JobStore) -> None:
        store.submit("cg", {})
        for _ in range(2 * MAX_ATTEMPTS):
            claimed(store)
            (last,) = store.requeue_lost("w", orderly=True)

        assert (last.status, last.fruitless) == (Status.QUEUED, 0)


def test_ended_means_no_way_out() -> None:
    ended = {status for status in Status if status.ended}

    assert ended == {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}
    assert TRANSITIONS.keys() == set(Status)
