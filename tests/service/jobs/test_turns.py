"""Owners take turns, and so many of their jobs may wait."""

from __future__ import annotations

import pytest
from service.jobs.stores import KINDS

from nnz_service.errors import OverloadedError
from nnz_service.jobs import JobStore, Status


class TestRoom:
    """An owner may have so many queued jobs; how many run or have ended is all one."""

    def test_full(self, store: JobStore) -> None:
        ids = [store.submit("cg", {}, owner="ann", most=2).id for _ in range(2)]
        store.submit("cg", {"n": 1}, None, "key", "bob", 2)

        with pytest.raises(
            OverloadedError, match="2 of your jobs are queued"
        ) as caught:
            store.submit("cg", {}, owner="ann", most=2)

        assert caught.value.retry_after == 1  # nothing is before the first of them
        assert {job.id for job in store.list(owner="ann")} == set(ids)
        store.submit("cg", {}, owner="bob", most=2)

    def test_a_job_that_begins_makes_room(self, store: JobStore) -> None:
        store.submit("cg", {}, most=1)
        store.claim("w", KINDS)

        store.submit("cg", {}, most=1)

        with pytest.raises(OverloadedError) as caught:
            store.submit("cg", {}, most=1)
        assert caught.value.retry_after == 10  # nobody knows what runs takes

    def test_what_is_there_is_found(self, store: JobStore) -> None:
        first = store.submit("cg", {}, None, "key", most=1)

        assert store.submit("cg", {}, None, "key", most=1).id == first.id


class TestTurns:
    def test_of_many_senders_each_has_a_turn(self, store: JobStore) -> None:
        """Nobody waits for all that somebody else has sent."""
        for owner, count in (("a", 4), ("b", 2), ("", 1)):
            for _ in range(count):
                store.submit("cg", {}, owner=owner)

        order = []
        while (job := store.claim("w", KINDS)) is not None:
            order.append(job.owner)
            if len(order) == 4:  # those of b have ended
                for one in store.list(status=Status.RUNNING):
                    if one.owner == "b":
                        store.finish(one.id, one.token, Status.SUCCEEDED)

        assert order == ["a", "b", "", "a", "b", "a", "a"]

    def test_who_was_served_waits(self, store: JobStore) -> None:
        """Where all have as many running, those who have sent more do not come first.

        Here a long job of one takes a place, and two share the other.
        """
        store.submit("cg", {}, owner="long")
        store.claim("w", KINDS)
        for _ in range(5):
            store.submit("cg", {}, owner="many")
        for _ in range(2):
            store.submit("cg", {}, owner="few")

        order = []
        while (job := store.claim("w", KINDS)) is not None:
            order.append(job.owner)
            store.finish(job.id, job.token, Status.SUCCEEDED)

        assert order == ["many", "few", "many", "few", "many", "many", "many"]

    def test_an_owner_of_other_kinds_is_passed_over(self, store: JobStore) -> None:
        store.submit("other", {}, owner="a")
        wanted = store.submit("cg", {}, owner="b")
        store.submit("other", {}, owner="b")

        job = store.claim("w", ["cg"])

        assert job is not None
        assert job.id == wanted.id
        assert store.claim("w", ["cg"]) is None
