"""What a process and a machine use, as /proc says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnz_service import usage


class TestProcess:
    def test_resident(self) -> None:
        """Memory that is written to counts, and little else, where nobody else runs."""
        code = (
            "from nnz_service.usage import resident_bytes as now; before = now();"
            "held = bytearray(b'1') * 40_000_000; print(now() - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert 36_000_000 < int(done.stdout) < 60_000_000

    def test_facts(self) -> None:
        facts = usage.process_facts()

        assert facts["pid"] == os.getpid()
        assert facts["resident_bytes"] > 1 << 20
        assert 0 < facts["uptime_seconds"] < 24 * 3600
        assert facts["version"]

    def test_start(self) -> None:
        """One that runs has a start, also with a strange name; one that ended none."""
        code = (
            "import sys; open('/proc/self/comm', 'w').write('a ) b');"
            "print(flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            mine = usage.start_of(os.getpid())
            assert mine is not None
            assert mine <= (usage.start_of(process.pid) or 0)

        assert usage.start_of(process.pid) is None


class TestMachine:
    def test_memory(self) -> None:
        total, used = usage.machine_memory()

        assert 0 < used < total

    @pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
    def test_a_container_may_have_less(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Where it has a bound, and that is the lower one."""
        total, _ = usage.machine_memory()
        monkeypatch.setattr(usage, "_CGROUP", tmp_path)
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)

        assert usage.memory_limit() == total
        for text, limit in (
            ("max\n", total),
            ("1048576\n", 1 << 20),
            ("9" * 20, total),
        ):
            file.write_text(text)
            assert usage.memory_limit() == limit

    def test_cpu(self) -> None:
        clock = usage.CpuClock()

        first, second = clock.utilization(), clock.utilization()

        assert 0 <= first <= 1
        assert 0 <= second <= 1
