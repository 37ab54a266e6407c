"""Memory that is written in pieces, sealed, and sent without a copy."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from nnz_service.dataplane import slab, wire
from nnz_service.dataplane.slab import ALIGN, Slab, offset_in, sealed_under

CONTENT = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)


def written(content: np.ndarray = CONTENT, start: int = 0) -> slab.Sealed:
    made = Slab(start)
    for at in range(0, content.size, 7_001):
        made.write(content[at : at + 7_001].tobytes())
    return made.seal()


def descriptors() -> int:
    gc.collect()  # what others left behind
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_holds_what_was_written() -> None:
    memory = written(start=5)

    assert memory[:5] == bytes(5)
    assert memory[5:] == CONTENT.tobytes()


def test_nobody_can_change_it() -> None:
    memory = written()

    with pytest.raises(PermissionError):
        os.pwrite(memory.fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, 1)


def test_short_writes_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:999], at))

    assert written()[:] == CONTENT.tobytes()


def test_goes_with_its_last_view() -> None:
    before = descriptors()
    view = np.frombuffer(written(), np.uint8)[10:20]
    assert view.tobytes() == CONTENT[10:20].tobytes()
    assert descriptors() > before

    del view

    assert descriptors() == before


def test_what_is_not_sealed_is_closed() -> None:
    before = descriptors()
    made = Slab()
    made.write(b"abc")

    made.close()
    made.close()

    assert descriptors() == before


def views(start: int = 0) -> dict[str, np.ndarray]:
    """Two tensors behind each other."""
    memory = memoryview(written(start=start))[start:]
    first = np.frombuffer(memory[:51_200], np.float32).reshape(64, 200)
    return {"a": first, "b": np.frombuffer(memory[51_200:96_000], np.float64)}


def test_tensors_in_it_are_sent_where_they_are() -> None:
    tensors = views(start=ALIGN)
    under = sealed_under(tensors)
    assert under is not None
    assert offset_in(under, tensors["b"]) == ALIGN + 51_200

    datagram, fd = wire.pack({"n": 1}, tensors)

    assert fd is not None
    assert Path(f"/proc/self/fd/{fd}").stat().st_ino == os.fstat(under.fd).st_ino
    fields, received = wire.unpack(datagram, fd)
    os.close(fd)
    assert fields == {"n": 1}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(received[name], tensor)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, "c": np.zeros(9)},
        lambda t: {**t, "c": t["a"].T},
        lambda t: {**t, "c": t["b"][3:]},
        lambda t: {"a": t["a"], "b": views()["b"]},
        lambda t: {"a": t["a"].copy(), "b": t["b"].copy()},
    ],
    ids=["one elsewhere", "not in C order", "unaligned", "of two files", "copies"],
)
def test_others_are_copied(change) -> None:
    tensors = change(views())
    assert sealed_under(tensors) is None

    datagram, fd = wire.pack({}, tensors)

    assert fd is not None
    _, received = wire.unpack(datagram, fd)
    os.close(fd)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(received[name], tensor)


def test_table_too_long_for_a_datagram_is_copied() -> None:
    long = {"x" * 40_000: views()["a"]}

    datagram, fd = wire.pack({}, long)

    assert fd is not None
    _, received = wire.unpack(datagram, fd)
    os.close(fd)
    np.testing.assert_array_equal(received["x" * 40_000], views()["a"])
