from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

import pytest

from nnz_service.cli import _machine

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can pin a process here"
)


def mask() -> set[int]:
    return set(os.sched_getaffinity(0))


@linux
class TestPinned:
    def test_one_thread_by_default(self) -> None:
        """
        One core inside, all that there were afterwards.
        """
        before = mask()

        with _machine.pinned(1, None) as pinned:
            inside = mask()

        assert pinned
        assert len(inside) == 1
        assert mask() == before

    def test_restored_after_an_error(self) -> None:
        """
        What ends the measurement leaves the process with its cores.
        """
        before = mask()

        with pytest.raises(ZeroDivisionError), _machine.pinned(1, True):
            1 / 0  # noqa: B018 - an error is what is wanted

        assert mask() == before

    @pytest.mark.parametrize(("threads", "wanted"), [(1, False), (2, None)])
    def test_not_pinned(self, threads: int, wanted: bool | None) -> None:
        """
        Several threads are left alone, and one if that is wanted.
        """
        before = mask()

        with _machine.pinned(threads, wanted) as pinned:
            assert not pinned
            assert mask() == before

    def test_a_core_a_thread(self) -> None:
        """
        Pinning several threads keeps as many cores, or all if there are fewer.
        """
        with _machine.pinned(2, True) as pinned:
            assert pinned
            inside = mask()

        assert len(inside) == min(2, _machine.cores())


class TestDescribe:
    def test_what_a_record_needs(self) -> None:
        """
        A date with its zone, the vector width in bits and the versions asked for.
        """
        found = _machine.describe(["onnxruntime"])

        assert datetime.datetime.fromisoformat(found["date"]).tzinfo is not None
        assert found["vector_bits"] % 128 == 0
        assert found["processor"]
        assert set(found["versions"]) == {
            "nnz", "python", "numba", "numpy", "onnxruntime",
        }  # fmt: skip


class TestProcessor:
    def test_as_linux_names_it(self, tmp_path: Path) -> None:
        """
        The first model name counts; what follows the colon is the name.
        """
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("processor\t: 0\nmodel name\t: A: 9\nmodel name\t: B\n")

        assert _machine.processor(cpuinfo) == "A: 9"

    def test_without_one(self, tmp_path: Path) -> None:
        """
        Where there is no such file, something is said still.
        """
        assert _machine.processor(tmp_path / "none")
