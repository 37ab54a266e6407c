"""What a process and a machine use, as /proc says."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from nnz_service import usage


class TestProcess:
    def test_resident(self) -> None:
        """Memory that is written to counts, and little else."""
        before = usage.resident_bytes()
        held = np.ones(5_000_000)

        grown = usage.resident_bytes() - before

        assert held.nbytes * 0.9 < grown < held.nbytes * 1.5

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

    def test_cpu(self) -> None:
        clock = usage.CpuClock()

        first, second = clock.utilization(), clock.utilization()

        assert 0 <= first <= 1
        assert 0 <= second <= 1
