"""Streams of events, owners, lists and forecasts, over a store that the test moves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from service.web.doubler import Doubler, running

from nnz_service.dataplane import Admission
from nnz_service.gateway import Drain, Limits
from nnz_service.jobs import Job, MemoryStore, Status
from nnz_service.keys import ANYBODY, Caller, Keyring, Scope
from nnz_service.repository import Repository
from nnz_service.web import create_app, events
from nnz_service.web.guard import Guard

SOON = 10.0


class Named(Keyring):
    """Believes the bearer token: it is the name of the caller."""

    def caller(self, sent: str | None) -> Caller:
        if sent is None:
            return ANYBODY
        scopes = frozenset(Scope) if sent == "admin" else frozenset({Scope.ALGEBRA})
        return Caller(sent, scopes)


class Site:
    """A server, its store and its drain."""

    def __init__(self, home: Path, limits: Limits) -> None:
        self.store = MemoryStore()
        self.drain = Drain()
        self.repository = Repository(home)
        self.app = create_app(
            limits=limits,
            dataplane=Doubler(),
            repository=self.repository,
            jobs=self.store,
            admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
            drain=self.drain,
            guard=Guard(Named()),
        )

    def claim(self) -> Job:
        job = self.store.claim("w", ["cg"])
        assert job is not None
        return job


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site; its parameter is the seconds that a request may take."""
    seconds = getattr(request, "param", 60.0)
    made = Site(tmp_path, Limits(request_timeout=seconds, job_ttl=100.0))
    yield made
    made.repository.close()


@pytest.fixture
def http(site: Site) -> Iterator[httpx2.Client]:
    with (
        running(site.app) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=SOON) as client,
    ):
        yield client


class Stream:
    """Events of one job as they come."""

    def __init__(self, http: httpx2.Client, job_id: str, **headers: str) -> None:
        self._stack = ExitStack()
        path = f"/v1/jobs/{job_id}/events"
        streamed = http.stream("GET", path, headers=headers)
        self.response = self._stack.enter_context(streamed)
        self._lines = self.response.iter_lines()

    def block(self) -> list[str]:
        """Lines up to an empty one; [] at the end."""
        return list(itertools.takewhile(bool, self._lines))

    def event(self) -> tuple[str, str, Any]:
        """Name, id and data of the next event, comments left out."""
        while (lines := self.block()) == [":"]:
            pass
        names = [line.partition(": ")[0] for line in lines]
        assert names == ["event", "id", "data"], lines
        name, number, data = (line.partition(": ")[2] for line in lines)
        return name, number, httpx2.Response(200, content=data.encode()).json()

    def close(self) -> None:
        self._stack.close()


class TestEvents:
    @pytest.mark.parametrize("site", [1.0], indirect=True)
    def test_from_the_queue_to_the_end(self, site: Site, http: httpx2.Client) -> None:
        job = site.store.submit("cg", {"matrix": "m"})
        stream = Stream(http, job.id)
        told = [stream.event()]
        claimed = site.claim()
        told.append(stream.event())
        time.sleep(1.1)  # longer than a request may take
        site.store.progress(job.id, claimed.token, {"iterations": 5})
        told.append(stream.event())
        site.store.finish(
            job.id, claimed.token, Status.SUCCEEDED, result={"status": "converged"}
        )
        told.append(stream.event())

        assert stream.block() == []
        stream.close()
        kinds = [(name, number, data["status"]) for name, number, data in told]
        assert kinds == [
            ("status", "1", "queued"),
            ("status", "2", "running"),
            ("progress", "3", "running"),
            ("end", "4", "succeeded"),
        ]
        assert told[2][2]["progress"] == {"iterations": 5}
        assert told[3][2]["result"] == {"status": "converged"}
        headers = stream.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"]

    def test_goes_on_where_it_was_cut(self, site: Site, http: httpx2.Client) -> None:
        job = site.store.submit("cg", {})
        claimed = site.claim()

        stream = Stream(http, job.id, **{"Last-Event-ID": "2"})
        assert stream.block() == [":"]
        site.store.finish(job.id, claimed.token, Status.FAILED, error="broken")
        name, number, data = stream.event()
        stream.close()

        assert (name, number, data["error"]) == ("end", "3", "broken")
        late = Stream(http, job.id, **{"Last-Event-ID": "2"})
        assert late.event()[0] == "end"
        late.close()

    def test_nothing_left_to_tell(self, site: Site, http: httpx2.Client) -> None:
        """A browser would come back for ever after anything but a 204."""
        job = site.store.request_cancel(site.store.submit("cg", {}).id)
        last = {"Last-Event-ID": str(job.revision)}

        answer = http.get(f"/v1/jobs/{job.id}/events", headers=last)

        assert (answer.status_code, answer.content) == (204, b"")

    @pytest.mark.parametrize("last", ["x", "-1", "1" * 20, "1.5"])
    def test_an_id_that_is_none(
        self, site: Site, http: httpx2.Client, last: str
    ) -> None:
        job = site.store.submit("cg", {})

        answer = http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": last})

        assert answer.status_code == 400
        assert "Last-Event-ID" in answer.json()["error"]

    def test_absent(self, http: httpx2.Client) -> None:
        assert http.get("/v1/jobs/j-0/events").status_code == 404

    def test_silence_is_broken(
        self, site: Site, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "HEARTBEAT", 0.05)
        stream = Stream(http, site.store.submit("cg", {}).id)
        stream.event()

        assert [stream.block() for _ in range(3)] == [[":"]] * 3
        stream.close()

    def test_who_leaves_gives_the_seat_back(
        self, site: Site, http: httpx2.Client
    ) -> None:
        watch = site.app.state.parts.watch
        free = watch._free
        streams = [Stream(http, site.store.submit("cg", {}).id) for _ in range(3)]
        for stream in streams:
            stream.event()
        assert watch._free == free - 3

        for stream in streams:
            stream.close()

        end = time.monotonic() + SOON
        while watch._free != free:
            assert time.monotonic() < end
            time.sleep(0.01)

    def test_too_many_watchers(self, site: Site, http: httpx2.Client) -> None:
        """The answer says when to come back, of a stream as of a long poll."""
        job = site.store.submit("cg", {})
        site.app.state.parts.watch._free = 1
        stream = Stream(http, job.id)
        stream.event()

        for path in (f"/v1/jobs/{job.id}/events", f"/v1/jobs/{job.id}?wait=5"):
            answer = http.get(path)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
        assert http.get(f"/v1/jobs/{job.id}").status_code == 200
        stream.close()

    def test_a_drain_ends_it_and_says_when_to_come_back(
        self, site: Site, http: httpx2.Client
    ) -> None:
        stream = Stream(http, site.store.submit("cg", {}).id)
        stream.event()

        site.drain.begun = True

        while (lines := stream.block()) == [":"]:
            pass
        assert lines == ["retry: 1000"]
        assert stream.block() == []
        stream.close()

    def test_deleted_meanwhile(self, site: Site, http: httpx2.Client) -> None:
        """Between two looks a job may end and be forgotten: the stream ends."""
        job = site.store.submit("cg", {})
        stream = Stream(http, job.id)
        stream.event()
        with site.store._lock:
            site.store.request_cancel(job.id)
            site.store.delete(job.id)

        while (lines := stream.block()) == [":"]:
            pass
        assert lines == []
        stream.close()


class TestWait:
    def test_it_ends_in_time(self, site: Site, http: httpx2.Client) -> None:
        job = site.store.submit("cg", {})
        began = time.monotonic()

        found = http.get(f"/v1/jobs/{job.id}?wait=0.3").json()

        assert found["status"] == "queued"
        assert 0.3 <= time.monotonic() - began < 2.0

    def test_it_ends_with_the_job(self, site: Site, http: httpx2.Client) -> None:
        job = site.store.submit("cg", {})
        cancel = threading.Timer(0.2, site.store.request_cancel, [job.id])
        cancel.start()
        began = time.monotonic()

        found = http.get(f"/v1/jobs/{job.id}?wait=30").json()

        assert found["status"] == "cancelled"
        assert time.monotonic() - began < 5.0
        cancel.join()


class TestOwner:
    @pytest.mark.parametrize(
        ("verb", "path"),
        [
            ("GET", "/v1/jobs/{}"),
            ("GET", "/v1/jobs/{}?wait=1"),
            ("GET", "/v1/jobs/{}/events"),
            ("GET", "/v1/jobs/{}/result"),
            ("POST", "/v1/jobs/{}/cancel"),
            ("DELETE", "/v1/jobs/{}"),
            ("GET", "/v1/jobs?before={}"),
        ],
    )
    def test_jobs_of_others_look_absent(
        self, site: Site, http: httpx2.Client, verb: str, path: str
    ) -> None:
        """Not one byte differs from the answer about a job that never was."""
        job = site.store.submit("cg", {}, owner="ann")
        bob = {"Authorization": "Bearer bob"}
        absent = "j-0000000000000000"

        answer = http.request(verb, path.format(job.id), headers=bob)
        other = http.request(verb, path.format(absent), headers=bob)

        assert answer.status_code == other.status_code == 404
        assert answer.text.replace(job.id, absent) == other.text
        assert site.store.get(job.id) == job

    def test_lists_are_ones_own(self, site: Site, http: httpx2.Client) -> None:
        for owner in ("ann", "bob", ""):
            site.store.submit("cg", {}, owner=owner)

        def owners(caller: str) -> list[str]:
            listed = http.get(
                "/v1/jobs", headers={"Authorization": f"Bearer {caller}"}
            ).json()
            return [job["owner"] for job in listed["jobs"]]

        assert owners("ann") == ["ann"]
        assert owners("eve") == []
        assert owners("admin") == ["", "bob", "ann"]


class TestList:
    def test_filters_and_pages(self, site: Site, http: httpx2.Client) -> None:
        ids = [site.store.submit("cg", {"n": n}).id for n in range(4)]
        site.claim()

        def listed(query: str) -> list[str]:
            answer = http.get(f"/v1/jobs?{query}")
            assert answer.status_code == 200, answer.text
            return [job["id"] for job in answer.json()["jobs"]]

        assert listed("status=running") == ids[:1]
        assert listed("status=queued&limit=2") == [ids[3], ids[2]]
        assert listed(f"status=queued&before={ids[2]}") == [ids[1]]
        assert listed("kind=lp") == []

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("status=asleep", 400),
            ("kind=%00", 400),
            ("limit=0", 400),
            ("before=j-9", 404),
        ],
    )
    def test_refused(self, http: httpx2.Client, query: str, code: int) -> None:
        answer = http.get(f"/v1/jobs?{query}")

        assert answer.status_code == code
        assert answer.json()["error"]


class TestForecast:
    def test_what_a_job_can_expect(self, site: Site, http: httpx2.Client) -> None:
        store = site.store
        first = store.submit("cg", {"matrix": "m"})
        assert http.get(f"/v1/jobs/{first.id}").json()["predicted_finish"] is None
        store.finish(first.id, site.claim().token, Status.SUCCEEDED, seconds=20.0)
        second, third = (store.submit("cg", {"matrix": "m"}) for _ in range(2))
        site.claim()
        now = time.time()

        rows = {row["id"]: row for row in http.get("/v1/jobs").json()["jobs"]}

        assert rows[third.id]["queue_position"] == 0
        assert rows[third.id]["predicted_finish"] == pytest.approx(now + 40, abs=5)
        assert rows[second.id]["queue_position"] is None
        assert rows[second.id]["predicted_finish"] == pytest.approx(now + 20, abs=5)
        assert rows[second.id]["expires"] is None
        assert rows[first.id]["predicted_finish"] is None
        finished = rows[first.id]["finished"]
        assert rows[first.id]["expires"] == pytest.approx(finished + 100.0)
