from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from nnz_service.keys import AuditLog

BIG = 1 << 20


@pytest.fixture(autouse=True)
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged meanwhile."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


class TestWrite:
    def test_a_line(self, tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
        log = AuditLog(tmp_path, BIG, clock=lambda: 12.5)

        log.write(key="k-1", action="DELETE /v1/models/{name}", status=204, client=None)

        assert lines(tmp_path / "audit.jsonl") == [
            {
                "time": 12.5,
                "event": "audit",
                "key": "k-1",
                "action": "DELETE /v1/models/{name}",
                "status": 204,
                "client": None,
            }
        ]
        assert [line["event"] for line in told] == ["audit"]
        mode = stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode)
        assert mode == 0o600

    def test_a_line_has_less_than_four_kibibytes(self, tmp_path: Path) -> None:
        """Whatever a caller names: an append must not be torn."""
        AuditLog(tmp_path, BIG).write(
            resource="\x01" * 60_000, request="\x02" * 9999, key="k", other="\ud800"
        )

        content = (tmp_path / "audit.jsonl").read_bytes()
        assert len(content) < 4096
        assert lines(tmp_path / "audit.jsonl")[0]["key"] == "k"

    def test_rotation_keeps_one_file(self, tmp_path: Path) -> None:
        log = AuditLog(tmp_path, 4096)

        for number in range(200):
            log.write(number=number)

        now, before = (lines(tmp_path / f"audit.jsonl{e}") for e in ("", ".1"))
        numbers = [line["number"] for line in before + now]
        assert numbers == list(range(numbers[0], 200))
        assert (tmp_path / "audit.jsonl.1").stat().st_size < 4096 + 200
        assert len(list(tmp_path.iterdir())) == 2

    def test_refusals_push_nothing_out(self, tmp_path: Path) -> None:
        """Some are counted instead of written, and the next line says how many."""
        ticks = 0.0
        log = AuditLog(tmp_path, BIG, ticks=lambda: ticks)

        for _ in range(1000):
            log.write(refused=True, status=401)
        log.write(status=201)
        ticks = 1.0
        log.write(refused=True, status=401)

        found = lines(tmp_path / "audit.jsonl")
        assert [line["status"] for line in found] == [401] * 40 + [201, 401]
        assert found[40]["refusals_left_out"] == 960
        assert "refusals_left_out" not in found[41]

    def test_full_disk(
        self,
        tmp_path: Path,
        told: list[MutableMapping[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is said once a minute, and nothing fails."""

        def full(handle: int, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        now = [0.0]
        log = AuditLog(tmp_path, BIG, ticks=lambda: now[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for now[0] in (0.0, 1.0, 59.0, 60.0):
                log.write(status=201)

        faults = [line for line in told if line["event"] == "audit not written"]
        assert [line["reason"] for line in faults] == ["No space left on device"] * 2
        log.write(status=202)
        assert lines(tmp_path / "audit.jsonl")[0]["status"] == 202

    def test_home_is_gone(
        self, tmp_path: Path, told: list[MutableMapping[str, Any]]
    ) -> None:
        """The line goes to the log alone, which says why."""
        (tmp_path / "home").write_text("a file")

        AuditLog(tmp_path / "home", BIG).write(status=201)

        assert [(line["event"], line.get("status")) for line in told] == [
            ("audit", 201), ("audit not written", None),
        ]  # fmt: skip
        assert told[1]["reason"] == "File exists"
        assert (tmp_path / "home").read_text() == "a file"


@pytest.mark.slow
def test_processes_tear_no_line(tmp_path: Path) -> None:
    """Appends and rotations of several processes at once leave whole lines."""
    program = (
        "import sys, structlog; from pathlib import Path\n"
        "from nnz_service.keys import AuditLog\n"
        "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))\n"
        "log = AuditLog(Path(sys.argv[1]), 16384)\n"
        "for n in range(500): log.write(n=n, filler='x' * (n % 200))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen(command) for _ in range(4)]

    assert [writer.wait() for writer in writers] == [0] * 4
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 16384 + 4 * 4096
        assert all(line["event"] == "audit" for line in lines(path))
