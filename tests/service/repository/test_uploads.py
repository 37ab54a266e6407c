from __future__ import annotations

import os
import time
from pathlib import Path

import orjson
import pytest

from nnz_service.errors import (
    ConflictError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
)
from nnz_service.repository import Owner
from nnz_service.repository.uploads import ENDED_TTL, MOST, TTL, UploadStore

ANN, BOB, ADMIN = Owner("ann", all=False), Owner("bob", all=False), Owner("root")


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> UploadStore:
    return UploadStore(tmp_path / "uploads", clock)


def add(store: UploadStore, identity: str, offset: int, *chunks: bytes) -> int:
    with store.appending(identity, ANN, offset, 100) as write:
        for chunk in chunks:
            write(chunk)
    return store.find(identity, ANN).offset


def test_pieces_make_a_file(store: UploadStore, tmp_path: Path) -> None:
    """Also when another process takes the next one."""
    made = store.begin(ANN, 7, 100)
    assert (made.offset, made.length) == (0, 7)

    assert add(store, made.id, 0, b"ab", b"c") == 3
    other = UploadStore(tmp_path / "uploads")
    assert add(other, made.id, 3, b"defg") == 7

    with store.held(made.id, ANN) as (upload, path):
        assert (upload.offset, path.read_bytes()) == (7, b"abcdefg")
    store.delete(made.id, ANN)
    assert list((tmp_path / "uploads").iterdir()) == []


def test_what_came_of_a_cut_piece_stays(store: UploadStore) -> None:
    made = store.begin(ANN, None, 100)

    def cut() -> None:
        with store.appending(made.id, ANN, 0, 100) as write:
            write(b"abc")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        cut()

    assert store.find(made.id, ANN).offset == 3


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_gap_or_an_overlap_is_refused(store: UploadStore, offset: int) -> None:
    made = store.begin(ANN, None, 100)
    add(store, made.id, 0, b"abc")

    with pytest.raises(ConflictError, match=f"Upload-Offset 3, not {offset}"):
        add(store, made.id, offset, b"x")

    assert store.find(made.id, ANN).offset == 3


def test_one_at_a_time(store: UploadStore) -> None:
    made = store.begin(ANN, None, 100)

    with store.held(made.id, ANN), pytest.raises(ConflictError, match="another"):
        add(store, made.id, 0, b"x")

    assert add(store, made.id, 0, b"x") == 1


@pytest.mark.parametrize(("length", "most"), [(5, 5), (None, 100)])
def test_bounds(store: UploadStore, length: int | None, most: int) -> None:
    """Nothing is written beyond the length, or where it is unknown the limit."""
    made = store.begin(ANN, length, 100)
    add(store, made.id, 0, b"x" * most)

    with pytest.raises(TooLargeError, match=f"passes {most}"):
        add(store, made.id, most, b"y")

    assert store.find(made.id, ANN).offset == most
    with pytest.raises(TooLargeError, match="101 bytes passes the limit of 100"):
        store.begin(ANN, 101, 100)


def test_others_find_nothing(store: UploadStore) -> None:
    made = store.begin(ANN, None, 100)

    for identity in (made.id, "u-" + "0" * 32, "../catalog.sqlite", ""):
        with pytest.raises(NotFoundError):
            store.find(identity, BOB)
        with pytest.raises(NotFoundError):
            store.delete(identity, BOB)
    assert store.find(made.id, ADMIN).id == made.id


def test_each_owner_has_so_many(store: UploadStore) -> None:
    for _ in range(MOST):
        store.begin(ANN, None, 100)

    with pytest.raises(OverloadedError, match=f"{MOST} are allowed"):
        store.begin(ANN, None, 100)
    store.begin(BOB, None, 100)


def test_old_ones_go(store: UploadStore, clock: Clock) -> None:
    made = store.begin(ANN, None, 100)
    clock.ahead = TTL - 60
    assert store.sweep() == 0
    clock.ahead = TTL + 60

    assert store.sweep() == 1

    with pytest.raises(NotFoundError):
        store.find(made.id, ANN)


def test_bytes_that_a_crash_left_alone_go(
    store: UploadStore, clock: Clock, tmp_path: Path
) -> None:
    made = store.begin(ANN, None, 100)
    (described,) = tmp_path.rglob(f"{made.id}.json")
    described.unlink()
    assert store.sweep() == 0
    clock.ahead = TTL + 60

    assert store.sweep() == 1

    assert not [*tmp_path.rglob(made.id)]


def test_the_end_is_remembered(
    store: UploadStore, clock: Clock, tmp_path: Path
) -> None:
    """For its owner and the same request, for an hour; its bytes go at once."""
    made = store.begin(ANN, 3, 100)
    add(store, made.id, 0, b"abc")
    assert store.became(made.id, ANN, "npz") is None

    store.finish(made.id, ANN, "m-1", "npz")

    for owner in (ANN, ADMIN):
        assert store.became(made.id, owner, "npz") == "m-1"
    assert store.became(made.id, ANN, "values") is None
    assert store.became(made.id, BOB, "npz") is None
    assert store.became("../../etc/passwd", ANN, "npz") is None
    with pytest.raises(NotFoundError):
        store.find(made.id, ANN)
    assert [path.suffix for path in (tmp_path / "uploads").iterdir()] == [".json"]
    for _ in range(MOST):  # it counts no more
        store.begin(ANN, 3, 100)

    clock.ahead = ENDED_TTL + 1
    store.sweep()
    assert store.became(made.id, ANN, "npz") is None


def test_an_end_that_a_crash_cut_is_an_end(store: UploadStore) -> None:
    """What it became was written, its bytes are still there: they are swept later."""
    made = store.begin(ANN, 3, 100)
    about = {"owner": "ann", "became": "m-1", "request": "npz"}
    store._about(made.id).write_bytes(orjson.dumps(about))

    with pytest.raises(NotFoundError):
        add(store, made.id, 0, b"abc")
    assert store.became(made.id, ANN, "npz") == "m-1"


def test_a_long_upload_is_not_forgotten(store: UploadStore, clock: Clock) -> None:
    """A piece came lately, however long ago it began."""
    made = store.begin(ANN, 3, 100)
    long_ago = time.time() - 2 * TTL
    os.utime(store._about(made.id), (long_ago, long_ago))

    store.sweep()

    assert store.find(made.id, ANN).id == made.id
