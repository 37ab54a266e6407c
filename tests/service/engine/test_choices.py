"""A file of choices never stands in the way of a load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnz_service.engine.choices import MOST, Choices

#: Opens the file, says so, and saves one entry when told to.
OTHER = """
import sys
from pathlib import Path
from nnz_service.engine.choices import Choices
choices = Choices(Path(sys.argv[1]), "cpu")
print("open", flush=True)
sys.stdin.readline()
choices.put(sys.argv[2], [sys.argv[2]])
choices.save()
"""


def held(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "cpu.json").read_text())
    return found


def test_entries_last(tmp_path: Path) -> None:
    first = Choices(tmp_path / "deep" / "er", "cpu")
    assert first.get("a") is None

    first.put("a", [1, None, "x"])
    assert first.get("a") == [1, None, "x"]
    first.save()

    again = Choices(tmp_path / "deep" / "er", "cpu")
    assert again.get("a") == first.get("a") == [1, None, "x"]
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["cpu.json"]


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    choices = Choices(tmp_path, "cpu")
    choices.put("a", 1)
    choices.save()
    written = (tmp_path / "cpu.json").stat()

    choices.save()
    Choices(tmp_path, "cpu").save()
    Choices(tmp_path, "other").save()

    assert [path.name for path in tmp_path.iterdir()] == ["cpu.json"]
    assert (tmp_path / "cpu.json").stat().st_mtime_ns == written.st_mtime_ns


def test_another_machine_has_another_file(tmp_path: Path) -> None:
    one, other = Choices(tmp_path, "cpu"), Choices(tmp_path, "cpu2")
    one.put("a", 1)
    one.save()
    other.put("b", 2)
    other.save()

    assert Choices(tmp_path, "cpu2").get("a") is None
    assert Choices(tmp_path, "cpu2").get("b") == 2


def test_without_a_folder_entries_are_kept_for_the_load() -> None:
    choices = Choices(None, "cpu")
    choices.put("a", 1)

    choices.save()

    assert choices.get("a") == 1
    assert Choices(None, "cpu").get("a") is None


def test_a_new_entry_replaces_an_old_one(tmp_path: Path) -> None:
    for value in (1, 2):
        choices = Choices(tmp_path, "cpu")
        choices.put("a", value)
        assert choices.get("a") == value
        choices.save()

    assert held(tmp_path) == {"a": 2}


def test_two_that_write_at_once_keep_both(tmp_path: Path) -> None:
    """The file is read again before it is written."""
    one, other = Choices(tmp_path, "cpu"), Choices(tmp_path, "cpu")
    one.put("a", 1)
    other.put("b", 2)

    one.save()
    other.save()

    assert held(tmp_path) == {"a": 1, "b": 2}
    assert other.get("a") == 1


def test_two_processes_keep_both(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"

    for process in processes:
        process.communicate("\n", timeout=60)

    assert held(tmp_path) == {"a": ["a"], "b": ["b"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b'{"a": [',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cpu.json").write_bytes(content)

    choices = Choices(tmp_path, "cpu")
    assert choices.get("a") is None
    choices.put("a", 1)
    choices.save()

    assert held(tmp_path) == {"a": 1}


def test_what_cannot_be_read_or_replaced_is_no_error(tmp_path: Path) -> None:
    """A folder has the file's name."""
    (tmp_path / "cpu.json").mkdir()
    (tmp_path / "cpu.json" / "x").touch()

    choices = Choices(tmp_path, "cpu")
    choices.put("a", 1)
    choices.save()

    assert choices.get("a") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.json"]


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()

    choices = Choices(tmp_path / "taken" / "choices", "cpu")
    choices.put("a", 1)
    choices.save()

    assert choices.get("a") == 1


def test_read_only_folder(tmp_path: Path) -> None:
    choices = Choices(tmp_path, "cpu")
    choices.put("a", 1)
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere")
        choices.save()
    finally:
        tmp_path.chmod(0o700)

    assert choices.get("a") == 1
    assert not list(tmp_path.iterdir())


def test_the_oldest_entries_go(tmp_path: Path) -> None:
    first = Choices(tmp_path, "cpu")
    for number in range(MOST):
        first.put(str(number), number)
    first.save()
    second = Choices(tmp_path, "cpu")
    second.put("new", 1)

    second.save()

    found = held(tmp_path)
    assert len(found) == MOST
    assert "0" not in found
    assert {"1", "new"} <= set(found)
