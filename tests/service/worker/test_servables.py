from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from service.worker.servables import SOON, load_doubler

from nnz_service.errors import (
    ConflictError,
    NotFoundError,
    ServiceError,
    UnavailableError,
)
from nnz_service.servable import Servable
from nnz_service.worker.servables import Entry, Registry, State, metadata


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry(lambda kind, path: load_doubler(path))
    yield made
    made.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good"
    path.write_text("8")
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad"
    path.write_text("broken inside")
    return path


def loaded(registry: Registry, path: Path, version: str = "1") -> Entry:
    entry = registry.load("model", "net", version, path)
    entry.loaded.result(SOON)
    return entry


class TestWaiting:
    def test_what_nobody_waits_for_is_not_loaded(self, good: Path) -> None:
        """Unless it has begun, or somebody wants to have it resident."""
        begun, go_on = threading.Event(), threading.Event()
        seen: list[str] = []

        def load(kind: str, path: Path) -> Servable:
            seen.append(path.name)
            begun.set()
            assert go_on.wait(SOON)
            return load_doubler(good)

        registry = Registry(load)
        entries = [
            registry.load("matrix", name, "1", good.with_name(name), passing=passing)
            for name, passing in (("a", True), ("b", True), ("c", False), ("d", True))
        ]
        entries.append(registry.load("matrix", "d", "1", good.with_name("d")))
        assert begun.wait(SOON)
        for entry in entries[:4]:
            assert registry.join(entry)
            registry.leave(entry)
        assert not registry.join(entries[1])
        with pytest.raises(NotFoundError):
            registry.find("b")

        go_on.set()

        for entry in (entries[0], *entries[2:]):
            entry.loaded.result(SOON)
            assert entry.state is State.READY
        assert seen == ["a", "c", "d"]
        registry.close()

    def test_two_wait(self, good: Path) -> None:
        """When one leaves, it is loaded for the other."""
        begun, go_on = threading.Event(), threading.Event()

        def load(kind: str, path: Path) -> Servable:
            begun.set()
            assert go_on.wait(SOON)
            return load_doubler(good)

        registry = Registry(load)
        registry.load("matrix", "first", "1", good)
        assert begun.wait(SOON)
        entry = registry.load("matrix", "m", "1", good, passing=True)
        for _ in range(2):
            assert registry.join(entry)
        registry.leave(entry)

        go_on.set()

        entry.loaded.result(SOON)
        registry.leave(entry)
        assert entry.state is State.READY
        registry.close()


class TestLoad:
    def test_ready(self, registry: Registry, good: Path) -> None:
        entry = loaded(registry, good)

        assert entry.to_json() == {
            "name": "net", "version": "1", "kind": "model", "state": "READY",
            "reason": "",
        }  # fmt: skip
        described = metadata(entry, ["1"])
        assert described["inputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
        ]
        assert described["max_batch_size"] == 8

    def test_failure_is_listed_with_its_reason(
        self, registry: Registry, bad: Path
    ) -> None:
        with pytest.raises(ServiceError, match=r"loading 'net' failed.*broken inside"):
            loaded(registry, bad)

        (entry,) = registry.index()
        assert (entry.state, entry.reason) == (State.UNAVAILABLE, "broken inside")
        with pytest.raises(UnavailableError, match="UNAVAILABLE: broken inside"):
            _ = entry.ready

    def test_failed_one_can_be_tried_again(
        self, registry: Registry, bad: Path, good: Path
    ) -> None:
        registry.load("model", "net", "1", bad).loaded.exception(SOON)

        assert loaded(registry, good).ready

    def test_another_file_takes_the_place(
        self, registry: Registry, good: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.write_text("16")
        first = loaded(registry, good)

        second = loaded(registry, other)

        assert registry.find("net", "1") is second is not first
        assert second.ready.max_batch == 16

    def test_second_load_joins_the_first(self, tmp_path: Path) -> None:
        gate, calls = threading.Event(), []

        def load(kind: str, path: Path) -> Servable:
            calls.append(path)
            assert gate.wait(SOON)
            return load_doubler(path)

        (tmp_path / "m").write_text("1")
        registry = Registry(load)
        one = registry.load("model", "net", "1", tmp_path / "m")
        two = registry.load("model", "net", "1", tmp_path / "m")
        assert registry.find("net").state is State.LOADING
        with pytest.raises(UnavailableError, match="LOADING"):
            _ = registry.find("net").ready
        gate.set()

        assert one is two
        one.loaded.result(SOON)
        assert len(calls) == 1
        registry.close()


class TestFind:
    def test_newest_that_is_ready(
        self, registry: Registry, good: Path, bad: Path
    ) -> None:
        loaded(registry, good, "2")
        loaded(registry, good, "10")
        registry.load("model", "net", "11", bad).loaded.exception(SOON)

        assert registry.find("net").version == "10"
        assert registry.find("net", "2").version == "2"
        assert registry.find("net", "11").state is State.UNAVAILABLE
        assert [entry.version for entry in registry.index()] == ["2", "10", "11"]

    @pytest.mark.parametrize("version", [None, "7"])
    def test_absent(self, registry: Registry, version: str | None) -> None:
        with pytest.raises(NotFoundError, match="no model or matrix 'net'"):
            registry.find("net", version)


class TestUnload:
    def test_one_and_all(self, registry: Registry, good: Path) -> None:
        for version in "123":
            loaded(registry, good, version)

        assert registry.unload("net", "2") == 1
        assert [entry.version for entry in registry.index()] == ["1", "3"]
        assert registry.unload("net") == 2
        assert registry.unload("net") == 0

    @pytest.mark.parametrize("how", ["unloaded", "replaced"])
    def test_memory_is_free_at_once(
        self, registry: Registry, good: Path, tmp_path: Path, how: str
    ) -> None:
        """Nobody waits for the garbage collector, which may not come for hours."""
        other = tmp_path / "other"
        other.write_text("16")
        gone = weakref.ref(loaded(registry, good).ready)
        gc.disable()
        try:
            if how == "unloaded":
                registry.unload("net")
            else:
                loaded(registry, other)
            assert gone() is None
        finally:
            gc.enable()

    def test_refused_ones_are_listed(self, registry: Registry) -> None:
        registry.refuse("model", "net", "1", "no such op")

        assert registry.find("net").reason == "no such op"


class Sized:
    """A matrix that takes as many bytes as its file says."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


class Budgeted:
    """A registry whose matrices hold 100 bytes together."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(lambda _, path: cast(Any, Sized(int(path.stem))), 100)
        self._folder = folder

    def hold(self, *names: str, pinned: bool = False, nbytes: int = 40) -> list[str]:
        """Load matrices and use them; returns which are resident then."""
        for name in names:
            path = self._folder / f"{nbytes}.{name}"
            entry = self.registry.load("matrix", name, "1", path, pinned=pinned)
            entry.loaded.result(SOON)
            self.registry.find(name)
            # What a load does last has happened when the next one begins.
            self.registry._pool.submit(lambda: None).result(SOON)
        return [row["name"] for row in self.registry.residents()["matrices"]]


class TestBudget:
    @pytest.fixture
    def few(self, tmp_path: Path) -> Iterator[Budgeted]:
        made = Budgeted(tmp_path)
        yield made
        made.registry.close()

    def test_the_oldest_use_goes_first(self, few: Budgeted) -> None:
        assert few.hold("a", "b") == ["b", "a"]
        few.registry.find("a")

        assert few.hold("c") == ["c", "a"]
        assert few.hold("d", nbytes=90) == ["d"]
        assert few.registry.residents()["bytes"] == 90

    def test_what_is_larger_than_all_stays_alone(self, few: Budgeted) -> None:
        assert few.hold("a", "b") == ["b", "a"]
        assert few.hold("large", nbytes=1000) == ["large"]
        assert few.hold("a") == ["a"]

    def test_pinned_ones_stay(self, few: Budgeted) -> None:
        few.hold("a", pinned=True)
        few.hold("b")
        few.registry.pin("b", True)

        assert few.hold("c") == ["c", "b", "a"]
        assert few.hold("d") == ["d", "b", "a"]
        with pytest.raises(ConflictError, match=r"d takes 40 .* pinned matrices 80;"):
            few.registry.pin("d", True)
        few.registry.pin("a", False)
        assert few.hold("c") == ["c", "b"]

    def test_models_do_not_count(self, few: Budgeted, tmp_path: Path) -> None:
        entry = few.registry.load("model", "net", "1", tmp_path / "1000.net")
        entry.loaded.result(SOON)

        assert few.hold("a", "b") == ["b", "a"]
        assert few.registry.find("net").state is State.READY
