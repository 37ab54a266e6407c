"""Metrics of several processes as one: nothing is lost, nothing goes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nnz_service.metrics import Metrics, render
from nnz_service.usage import start_of

_PROCESS = """
import sys
from pathlib import Path
from nnz_service.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
for line in sys.stdin:
    for _ in range(int(line)):
        metrics.requests.labels("/v2", "GET", "", "200").inc()
        metrics.seconds.labels("/v2", "GET").observe(0.003)
    metrics.inflight.set(1)
    metrics.save()
    print(flush=True)
"""


class Process:
    """Another web process, which counts and saves when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def count(self, requests: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{requests}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def others(folder: Path) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        found = [Process(folder) for _ in range(2)]
        for one in found:
            stack.enter_context(one.process)
            stack.callback(one.process.kill)
        yield found


def value(metrics: Metrics, name: str) -> float:
    """The sum of a sample over its labels, as a scrape would see it."""
    return sum(
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name
    )


class TestTogether:
    def test_sums(self, folder: Path, others: list[Process]) -> None:
        """Any process answers for all: counters, buckets and gauges add up."""
        mine = Metrics(folder)
        mine.requests.labels("/v2", "GET", "", "200").inc(3)
        for one in others:
            one.count(5)

        assert value(mine, "nnz_http_requests_total") == 13
        assert value(mine, "nnz_http_request_seconds_count") == 10
        assert value(mine, "nnz_http_requests_inflight") == 2
        text = render(mine.collect()).decode()
        assert 'code="200",method="GET",route="/v2",servable=""} 13.0' in text

    def test_one_that_is_killed(self, folder: Path, others: list[Process]) -> None:
        """What it counted stays for ever, what it held goes with it."""
        mine = Metrics(folder)
        for one in others:
            one.count(5)
        assert value(mine, "nnz_http_requests_total") == 10

        others[0].kill()

        for _ in range(3):
            assert value(mine, "nnz_http_requests_total") == 10
            assert value(mine, "nnz_http_request_seconds_count") == 10
            assert value(mine, "nnz_http_requests_inflight") == 1
        others[1].kill()
        assert value(Metrics(folder), "nnz_http_requests_total") == 10
        # One file for all that ended, one of this process.
        assert len([*folder.glob("*.json")]) == 2

    def test_never_back(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Scrapes that hit one process after the other see counters only grow."""
        first, second = Metrics(folder), Metrics(folder)
        # Two of one process would share a file; let the second's be that of our parent.
        parent = os.getppid()
        other = folder / f"{parent}-{start_of(parent)}.json"
        monkeypatch.setattr(second._snapshots, "_mine", other)
        seen = []
        for turn in range(6):
            first.requests.labels("/v2", "GET", "", "200").inc(turn)
            second.requests.labels("/v2", "GET", "", "200").inc()
            scraped = (first, second)[turn % 2]
            seen.append(value(scraped, "nnz_http_requests_total"))

        assert seen == sorted(seen)


class TestAlone:
    def test_writes_nothing(self, folder: Path) -> None:
        metrics = Metrics()
        metrics.requests.labels("/v2", "GET", "", "200").inc()
        metrics.save()

        assert value(metrics, "nnz_http_requests_total") == 1
        assert not folder.exists()

    def test_applications_do_not_mix(self) -> None:
        """Two in one process count for themselves."""
        first, second = Metrics(), Metrics()
        first.refused.inc()

        assert value(first, "nnz_admission_refusals_total") == 1
        assert value(second, "nnz_admission_refusals_total") == 0


class TestFailed:
    @pytest.mark.parametrize(
        ("status", "reason"),
        [(429, "REJECTED"), (504, "REJECTED"), (499, "CANCELED"), (500, "BACKEND"),
         (400, "OTHER"), (503, "OTHER")],
    )  # fmt: skip
    def test_reason(self, status: int, reason: str) -> None:
        metrics = Metrics()
        metrics.failed("m", "1", status)

        text = render(metrics.collect()).decode()
        assert (
            f'nnz_servable_failures_total{{reason="{reason}",servable="m",version="1"}}'
            " 1.0" in text
        )

    def test_names_that_callers_invent(self) -> None:
        """Nobody fills the memory with names, and who may not call counts nowhere."""
        metrics = Metrics()
        for number in range(6000):
            metrics.failed(f"m{number}", "", 400)
        for status in (401, 403, 404, 405):
            metrics.failed("secret", "", status)

        text = render(metrics.collect()).decode()
        assert text.count("nnz_servable_failures_total{") == 4096
        assert "secret" not in text
