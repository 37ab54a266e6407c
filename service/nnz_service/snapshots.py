"""The metrics of several processes as one: each writes its own down, any adds up all.

A counter must never go back, whichever process answers a scrape and whichever ended
meanwhile. So who is scraped writes down first what it has, and what ended processes
counted is added to a file of its own before their files go. (prometheus_client's way,
files mapped into memory, kills a process by SIGBUS when the disk is full.)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import orjson
from prometheus_client.metrics_core import Metric

from nnz_service.shared_file import locked, replace
from nnz_service.usage import start_of

_ENDED = "ended.json"

#: Name and labels of a sample.
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Snapshots:
    """Where the processes of one server tell each other their metrics; one a process.

    Args:
        folder: The same for all of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        pid = os.getpid()
        self._mine = folder / f"{pid}-{start_of(pid)}.json"
        self._written = b""

    def save(self, families: Iterable[Metric]) -> None:
        """Write down what this process has, if it changed; blocks for a moment."""
        with self._held():
            self._save(families)

    def exchange(self, families: Iterable[Metric]) -> list[Metric]:
        """Write down what this process has; return the sums over all processes.

        Values of processes that ended stay in counters and histograms, not in gauges.
        """
        with self._held():
            self._save(families)
            living: list[Metric] = []
            gone = []
            for path in sorted(self._folder.glob("*-*.json")):
                if _lives(path):
                    living += _load(path)
                else:
                    gone.append(path)
            ended = self._bury(gone)
        return add([*ended, *living])

    def _held(self) -> AbstractContextManager[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return locked(self._folder / "lock")

    def _save(self, families: Iterable[Metric]) -> None:
        content = _dump(families)
        if content != self._written:
            replace(self._mine, content)
            self._written = content

    def _bury(self, gone: Sequence[Path]) -> list[Metric]:
        """Keep the counts of processes that ended in one file; returns them all."""
        path = self._folder / _ENDED
        ended = _load(path) if path.exists() else []
        if gone:
            found = [family for one in gone for family in _load(one)]
            ended = add([*ended, *(one for one in found if one.type != "gauge")])
            replace(path, _dump(ended))
            for one in gone:
                one.unlink()
        return ended


def add(families: Iterable[Metric]) -> list[Metric]:
    """Return one family a name, whose samples are sums."""
    sums: dict[str, tuple[Metric, dict[_Key, float]]] = {}
    for family in families:
        if family.name not in sums:
            first = Metric(family.name, family.documentation, family.type)
            sums[family.name] = first, {}
        totals = sums[family.name][1]
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            totals[key] = totals.get(key, 0.0) + sample.value
    for family, totals in sums.values():
        for (name, labels), value in totals.items():
            family.add_sample(name, dict(labels), value)
    return [family for family, _ in sums.values()]


def _lives(path: Path) -> bool:
    pid, _, start = path.stem.partition("-")
    return str(start_of(int(pid))) == start


def _dump(families: Iterable[Metric]) -> bytes:
    return orjson.dumps(
        [
            [
                family.name,
                family.documentation,
                family.type,
                [[s.name, s.labels, s.value] for s in family.samples],
            ]
            for family in families
        ]
    )


def _load(path: Path) -> list[Metric]:
    found = []
    for name, documentation, kind, samples in orjson.loads(path.read_bytes()):
        family = Metric(name, documentation, kind)
        for sample in samples:
            family.add_sample(*sample)
        found.append(family)
    return found
