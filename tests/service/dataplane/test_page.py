"""What the processes of a server share, and what is left of one that was killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest

from nnz_service.dataplane import Admission, Page
from nnz_service.dataplane.page import note_start
from nnz_service.errors import OverloadedError
from nnz_service.keys import Caller, Quota

_DOOR = """
import sys
from nnz_service.dataplane import Admission, Page
from nnz_service.errors import OverloadedError

admission = Admission(40, 10**9, Page(int(sys.argv[1])), int(sys.argv[2]))
print("there", flush=True)
sys.stdin.readline()
held = 0
for _ in range(100):
    try:
        admission.reserve(1)
        held += 1
    except OverloadedError:
        pass
print(held, flush=True)
sys.stdin.readline()
"""


def door(page: Page, number: int) -> subprocess.Popen[str]:
    """A process that takes all it can get once it is told."""
    return subprocess.Popen(
        [sys.executable, "-c", _DOOR, str(page.fd), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[page.fd],
    )


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class TestSharedBounds:
    def test_never_more_than_allowed_over_all_doors(self) -> None:
        page = Page()
        with contextlib.ExitStack() as stack:
            doors = [stack.enter_context(door(page, number)) for number in range(3)]
            stack.callback(lambda: [one.kill() for one in doors])
            assert [says(one) for one in doors] == ["there"] * 3
            for one in doors:
                assert one.stdin is not None
                one.stdin.write("\n")
                one.stdin.flush()
            held = [int(says(one)) for one in doors]

            assert sum(held) == 40
            assert int(page.doors["slots"].sum()) == 40
            doors[1].kill()
            doors[1].wait()
            successor = Admission(slots=40, nbytes=10**9, page=page, door=1)
            assert successor.used_slots == 40 - held[1]

    def test_bounds_of_one_key(self) -> None:
        page = Page()
        web, grpc = (Admission(9, 99, page, door) for door in (0, 1))
        caller = Caller("k-1", quota=Quota(inflight=2), row=7)
        held = [web.reserve(1, caller), grpc.reserve(1, caller)]

        with pytest.raises(OverloadedError, match="2 requests of this key"):
            grpc.reserve(1, caller)

        web.reserve(1, Caller("k-2", row=8)).release()
        held[0].release()
        grpc.reserve(1, caller)

    def test_retry_after_is_the_predicted_wait(self) -> None:
        page = Page()
        admission = Admission(1, 99, page)
        admission.reserve(1)
        page.workers[0]["backlog"] = 7_200_000_000
        page.beat(page.workers[0])

        with pytest.raises(OverloadedError) as caught:
            admission.reserve(1)

        assert caught.value.retry_after == 8


class TestMarks:
    def test_of_a_worker_and_of_its_successor(self) -> None:
        page = Page()
        page.mark(3, [5, 0, 6])

        assert page.marked(5)
        assert page.marked(6)
        assert not page.marked(7)
        page.mark(3, ())
        assert not page.marked(5)

    def test_a_batch_of_more_than_can_be_named(self) -> None:
        page = Page()
        page.mark(0, range(1, 1000))

        assert page.marked(1)
        assert not page.marked(999)

    def test_nobody_is_the_token_of_an_idle_worker(self) -> None:
        """0 stands for no request, and is what an empty row holds."""
        assert not Page().marked(0)


class TestRefusals:
    def test_for_a_while(self) -> None:
        page = Page()
        page.refuse(42, seconds=0.05)

        assert page.refuses
        assert page.refused(42)
        assert not page.refused(43)
        time.sleep(0.06)
        assert not page.refuses
        assert not page.refused(42)

    def test_the_oldest_makes_room(self) -> None:
        page = Page()
        for number in range(1, 101):
            page.refuse(number, seconds=100 + number)

        assert page.refused(100)
        assert not page.refused(1)


def test_restarts() -> None:
    """What the supervisor writes down of a start the doors count, over any number."""
    page = Page()
    note_start(page.workers[0], "worker 0")
    for _ in range(3):
        note_start(page.workers[63], "worker 63")
    note_start(page.doors[1], "grpc")

    assert Page(page.fd).restarts() == {
        "worker": {"worker 0": 0, "worker 63": 2},
        "door": {"grpc": 0},
    }
