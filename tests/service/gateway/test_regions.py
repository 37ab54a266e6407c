"""Lent memory: whatever a client does to its object, the server gets an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnz_service.errors import (
    ConflictError,
    ImpossibleError,
    MalformedError,
    NotFoundError,
    NotOfferedError,
    RegisteredError,
    ServiceError,
)
from nnz_service.gateway.regions import Place, Regions
from nnz_service.shared_file import SharedFile

Make = Callable[..., Regions]


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder in the place of /dev/shm, with the object `lent` of 100 bytes."""
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "lent").write_bytes(bytes(range(100)))
    return folder


@pytest.fixture
def make(tmp_path: Path, objects: Path) -> Make:
    """Regions as each process of a server opens them."""

    def open_regions(*, enabled: bool = True) -> Regions:
        file = SharedFile(tmp_path / "run" / "regions.json")
        return Regions(file, enabled=enabled, objects=objects)

    return open_regions


@pytest.fixture
def regions(make: Make) -> Regions:
    """With the region `r`: bytes 10 to 59 of `lent`."""
    found = make()
    found.register("r", "/lent", 10, 50)
    return found


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


class TestRegister:
    def test_every_process_sees_it(self, regions: Regions, make: Make) -> None:
        other = make()

        assert [one.to_json() for one in other.status()] == [
            {"name": "r", "key": "/lent", "offset": 10, "byte_size": 50}
        ]
        other.unregister("r")
        assert regions.status() == []

    def test_twice(self, regions: Regions) -> None:
        """The protocol wants 400, and what is there stays."""
        with pytest.raises(RegisteredError, match="unregister") as caught:
            regions.register("r", "lent", 0, 1)

        assert caught.value.status == 400
        assert regions.status("r")[0].byte_size == 50

    @pytest.mark.parametrize(
        "key", ["", "/", "..", ".", "a/b", "/a/b", "../lent", "//lent", "a\0b",
                "a" * 256, 7, None, ["lent"]],
    )  # fmt: skip
    def test_key_is_one_name(self, regions: Regions, key: object) -> None:
        with pytest.raises(MalformedError, match="key"):
            regions.register("s", key, 0, 1)

    @pytest.mark.parametrize(
        ("offset", "size"),
        [(-1, 1), (0, 0), (0, None), ("0", 1), (True, 1), (0, 1.5), (2**70, 1)],
    )
    def test_sizes_are_numbers(
        self, regions: Regions, offset: object, size: object
    ) -> None:
        with pytest.raises(MalformedError, match="number of bytes"):
            regions.register("s", "lent", offset, size)

    @pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (2**61, 2**61)])
    def test_longer_than_the_object(
        self, regions: Regions, offset: int, size: int
    ) -> None:
        with pytest.raises(ImpossibleError, match="has 100 bytes"):
            regions.register("s", "lent", offset, size)

    def test_no_object(self, regions: Regions) -> None:
        with pytest.raises(ImpossibleError, match="No such file"):
            regions.register("s", "absent", 0, 1)

    def test_links_are_not_followed(self, regions: Regions, objects: Path) -> None:
        (objects / "link").symlink_to("/etc/hostname")

        with pytest.raises(ImpossibleError, match="cannot be opened"):
            regions.register("s", "link", 0, 1)

    def test_only_files(self, regions: Regions, objects: Path) -> None:
        """A pipe that nobody reads is refused at once, not waited for."""
        os.mkfifo(objects / "pipe")
        (objects / "folder").mkdir()

        for key in ("pipe", "folder"):
            with pytest.raises(ImpossibleError):
                regions.register("s", key, 0, 1)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_of_another_user(self, regions: Regions, objects: Path) -> None:
        """Root could open it, and yet does not for its callers."""
        os.chown(objects / "lent", 12345, -1)

        with pytest.raises(ImpossibleError, match="user 12345"):
            regions.register("s", "lent", 0, 1)

    def test_not_too_many(self, regions: Regions) -> None:
        for number in range(1, 1024):
            regions.register(f"n{number}", "lent", 0, 1)

        with pytest.raises(ImpossibleError, match="1024 regions already"):
            regions.register("one more", "lent", 0, 1)

    def test_unregister_what_is_not_there(self, regions: Regions) -> None:
        """As with the protocol's own server, nothing happens."""
        regions.unregister("absent")
        regions.unregister()
        regions.unregister()

        assert regions.status() == []
        with pytest.raises(NotFoundError, match="'r'"):
            regions.status("r")


class TestReadAndWrite:
    def test_inside(self, regions: Regions, objects: Path) -> None:
        assert regions.read(Place("r", 5, 3)).tolist() == [15, 16, 17]
        assert regions.read(Place("r", 50, 0)).tolist() == []

        regions.write(Place("r", 48, 2), np.array([7, 8], np.uint8))

        assert (objects / "lent").read_bytes()[57:61] == bytes([57, 7, 8, 60])

    def test_what_was_read_is_a_copy(self, regions: Regions, objects: Path) -> None:
        read = regions.read(Place("r", 0, 4))
        with (objects / "lent").open("r+b") as file:
            file.write(bytes(100))

        assert read.tolist() == [10, 11, 12, 13]

    @pytest.mark.parametrize("place", [(0, 51), (50, 1), (2**62, 2**62)])
    def test_outside(self, regions: Regions, place: tuple[int, int]) -> None:
        with pytest.raises(ImpossibleError, match="has 50 bytes"):
            regions.read(Place("r", *place))

    def test_too_short_for_the_output(self, regions: Regions) -> None:
        with pytest.raises(ImpossibleError, match=r"3 bytes .* 2 bytes"):
            regions.write(Place("r", 0, 2), np.zeros(3, np.uint8))

    @pytest.mark.parametrize("size", [0, 11, 59])
    def test_truncated(self, regions: Regions, objects: Path, size: int) -> None:
        """A mapping would kill the process; this is an error, and it stays short."""
        os.truncate(objects / "lent", size)

        with pytest.raises(ConflictError, match="truncated"):
            regions.read(Place("r", 0, 50))
        with pytest.raises(ConflictError, match="truncated"):
            regions.write(Place("r", 0, 50), np.zeros(50, np.uint8))
        assert (objects / "lent").stat().st_size == size

    def test_removed(self, regions: Regions, objects: Path) -> None:
        (objects / "lent").unlink()

        with pytest.raises(ConflictError, match="register the region again"):
            regions.read(Place("r", 0, 1))

    def test_another_in_its_place(self, regions: Regions, objects: Path) -> None:
        """Neither read nor overwritten: somebody else's may have the name now."""
        (objects / "new").write_bytes(bytes(100))
        (objects / "new").rename(objects / "lent")

        for use in (
            lambda: regions.read(Place("r", 0, 1)),
            lambda: regions.write(Place("r", 0, 1), np.ones(1, np.uint8)),
        ):
            with pytest.raises(ConflictError, match="another"):
                use()

    def test_registered_again(
        self, regions: Regions, make: Make, objects: Path
    ) -> None:
        """Who used the old object uses the new one from then on."""
        other = make()
        assert other.read(Place("r", 0, 1)).tolist() == [10]
        (objects / "new").write_bytes(b"new!")

        regions.unregister("r")
        regions.register("r", "new", 0, 4)

        assert other.read(Place("r", 0, 4)).tobytes() == b"new!"

    def test_nothing_stays_open(self, regions: Regions) -> None:
        before = open_files()
        for _ in range(10):
            regions.read(Place("r", 0, 50))
            regions.write(Place("r", 0, 1), np.zeros(1, np.uint8))

        assert open_files() == before


class TestOff:
    def test_nothing_is_lent(self, regions: Regions, make: Make) -> None:
        off = make(enabled=False)

        for use in (
            lambda: off.register("s", "lent", 0, 1),
            lambda: off.unregister(),
            lambda: off.read(Place("r", 0, 1)),
            lambda: off.write(Place("r", 0, 1), np.zeros(1, np.uint8)),
        ):
            with pytest.raises(NotOfferedError, match="NNZ_SHARED_MEMORY") as caught:
                use()
            assert caught.value.status == 501


_REGISTER = """
import sys
from pathlib import Path
from nnz_service.gateway.regions import Regions
from nnz_service.shared_file import SharedFile

home, first = Path(sys.argv[1]), int(sys.argv[2])
regions = Regions(SharedFile(home / "regions.json"), enabled=True, objects=home)
for number in range(first, first + 40):
    regions.register(f"r{number}", "lent", 0, 1)
"""


def test_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Every registration of three processes that race is there in the end."""
    (tmp_path / "lent").write_bytes(b"x")
    command = [sys.executable, "-c", _REGISTER, str(tmp_path)]
    racing = [subprocess.Popen([*command, str(n * 100)]) for n in range(3)]

    assert [one.wait(120) for one in racing] == [0, 0, 0]
    regions = Regions(
        SharedFile(tmp_path / "regions.json"), enabled=True, objects=tmp_path
    )
    assert len(regions.status()) == 120


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "regions.json").write_text("{")
    regions = Regions(SharedFile(tmp_path / "regions.json"), enabled=True)

    with pytest.raises(ServiceError, match="json is damaged"):
        regions.status()
