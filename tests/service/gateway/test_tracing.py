"""Traces: what is sampled, what is written, and what cannot be asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.gateway import tracing
from nnz_service.gateway.tracing import Passage, Tracing
from nnz_service.shared_file import SharedFile

ON = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
PASSED = Passage(
    1_000, 2_000, 9_000, {"queue": 1e-6, "join": 5e-7, "compute": 2e-6, "more": 1}
)
STATIONS = [
    ("REQUEST_START", 1_000),
    ("QUEUE_START", 2_000),
    ("COMPUTE_START", 3_000),
    ("COMPUTE_INPUT_END", 3_500),
    ("COMPUTE_OUTPUT_START", 5_500),
    ("COMPUTE_END", 9_000),
]


def open_tracing(home: Path) -> Tracing:
    return Tracing(SharedFile(home / "run" / "tracing.json"), home / "traces")


@pytest.fixture
def traces(tmp_path: Path) -> Tracing:
    return open_tracing(tmp_path)


def read(home: Path, name: str = "trace.json") -> list[Any]:
    return list(json.loads((home / "traces" / name).read_text()))


class TestSettings:
    def test_off_at_first(self, traces: Tracing) -> None:
        assert traces.settings() == {
            "trace_file": "trace.json",
            "trace_level": ["OFF"],
            "trace_rate": "1000",
            "trace_count": "-1",
            "log_frequency": "0",
            "trace_mode": "triton",
        }
        assert not traces.active

    def test_layers(self, traces: Tracing) -> None:
        """A model's own settings win; cleared, it has those of all again."""
        traces.change("", {"trace_rate": "5", "trace_count": 7})
        traces.change("m", {"trace_rate": 2})

        assert traces.settings("m")["trace_rate"] == "2"
        assert traces.settings("m")["trace_count"] == "7"
        assert traces.settings("other")["trace_rate"] == "5"
        traces.change("m", {"trace_rate": None})
        traces.change("", {"trace_rate": None})
        assert traces.settings("m")["trace_rate"] == "1000"

    @pytest.mark.parametrize(
        "asked",
        [
            {"trace_level": "TIMESTAMPS"},
            {"trace_level": ["OFF", "TIMESTAMPS"]},
            {
                "trace_level": ["TIMESTAMPS"],
                "trace_rate": ["9"],
                "trace_mode": "triton",
            },
        ],
    )
    def test_forms_of_clients(self, traces: Tracing, asked: dict[str, Any]) -> None:
        """Clients send texts, numbers and lists of one."""
        traces.change("", asked)

        assert traces.settings()["trace_level"] == ["TIMESTAMPS"]
        assert traces.active

    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            ({"trace_levels": "OFF"}, ImpossibleError),
            ({"trace_level": ["TENSORS"]}, ImpossibleError),
            ({"trace_level": []}, ImpossibleError),
            ({"trace_level": [1]}, MalformedError),
            ({"trace_level": {}}, MalformedError),
            ({"trace_rate": "0"}, ImpossibleError),
            ({"trace_rate": "x"}, MalformedError),
            ({"trace_rate": 1.5}, MalformedError),
            ({"trace_count": "-2"}, ImpossibleError),
            ({"log_frequency": "50"}, ImpossibleError),
            ({"trace_mode": "opentelemetry"}, ImpossibleError),
            ({"trace_file": "/etc/x"}, ImpossibleError),
            ({"trace_file": "../x"}, ImpossibleError),
            ({"trace_file": ".."}, ImpossibleError),
            ({"trace_file": ".hidden"}, ImpossibleError),
            ({"trace_file": ""}, ImpossibleError),
            ({"trace_file": "a\0"}, ImpossibleError),
            ({"trace_file": "x" * 200}, ImpossibleError),
            ({"trace_file": 7}, ImpossibleError),
        ],
    )
    def test_refused(
        self, traces: Tracing, asked: dict[str, Any], error: type[Exception]
    ) -> None:
        """One wrong setting, and none is changed."""
        with pytest.raises(error):
            traces.change("", {"trace_count": "3", **asked})
        assert traces.settings()["trace_count"] == "-1"


class TestSampling:
    def test_rate(self, traces: Tracing) -> None:
        """Every third of all, every second of the model that says so."""
        traces.change("", {**ON, "trace_rate": "3"})
        traces.change("m", {"trace_rate": "2"})

        assert [traces.samples("a") for _ in range(6)] == [0, 0, 1, 0, 0, 1]
        assert [traces.samples("m") for _ in range(4)] == [0, 1, 0, 1]

    def test_only_one_model(self, traces: Tracing) -> None:
        traces.change("m", ON)

        assert traces.active
        assert traces.samples("m")
        assert not traces.samples("other")

    def test_another_process_follows(self, traces: Tracing, tmp_path: Path) -> None:
        other = open_tracing(tmp_path)
        traces.change("", ON)
        assert not other.active

        other.follow()

        assert other.active
        traces.change("", {"trace_level": None})
        other.follow()
        assert not other.active


class TestRecord:
    def test_form(self, traces: Tracing, tmp_path: Path) -> None:
        """A JSON array with two records a request, whole after each."""
        traces.change("", ON)

        for name in ("first", "second"):
            traces.record("m", "3", name, PASSED)
            assert len(read(tmp_path)) in (2, 4)

        who, when, *_ = read(tmp_path)
        assert who == {
            "id": 1, "model_name": "m", "model_version": 3, "request_id": "first"
        }  # fmt: skip
        assert when["id"] == 1
        stamps = [(one["name"], one["ns"]) for one in when["timestamps"]]
        assert stamps[:-1] == STATIONS
        assert stamps[-1][0] == "REQUEST_END"
        assert stamps[-1][1] >= stamps[-2][1]

    def test_never_backwards(self) -> None:
        """Whatever the worker's clock says, the stations are in order."""
        late = Passage(5, 10, 20, {"queue": 1.0, "join": 1.0, "compute": 1.0})

        times = [one["ns"] for one in late.timestamps(0)]

        assert times == sorted(times)

    def test_count(self, traces: Tracing, tmp_path: Path) -> None:
        """So many, then none, over all processes."""
        other = open_tracing(tmp_path)
        traces.change("", {**ON, "trace_count": "3"})
        for _ in range(3):
            traces.record("m", "1", "", PASSED)
            other.record("n", "1", "", PASSED)

        assert [one["id"] for one in read(tmp_path)] == [1, 1, 2, 2, 3, 3]
        assert traces.settings()["trace_count"] == "0"
        assert not traces.active
        assert not other.active

    def test_a_file_of_its_own(self, traces: Tracing, tmp_path: Path) -> None:
        traces.change("", ON)
        traces.change("m", {"trace_file": "m.json"})

        traces.record("m", "1", "", PASSED)
        traces.record("n", "1", "", PASSED)

        assert len(read(tmp_path, "m.json")) == len(read(tmp_path)) == 2

    @pytest.mark.parametrize("content", ["not a trace", "[]", "x"])
    def test_other_files_stay(
        self, traces: Tracing, tmp_path: Path, content: str
    ) -> None:
        """What was not written here is not written to, and no request fails for it."""
        traces.change("", ON)
        (tmp_path / "traces").mkdir()
        (tmp_path / "traces" / "trace.json").write_text(content)

        traces.record("m", "1", "", PASSED)

        assert (tmp_path / "traces" / "trace.json").read_text() == content

    def test_links_are_not_followed(self, traces: Tracing, tmp_path: Path) -> None:
        traces.change("", ON)
        (tmp_path / "traces").mkdir()
        (tmp_path / "elsewhere").write_text("")
        (tmp_path / "traces" / "trace.json").symlink_to(tmp_path / "elsewhere")

        traces.record("m", "1", "", PASSED)

        assert (tmp_path / "elsewhere").read_text() == ""

    def test_bounded(
        self, traces: Tracing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A trace that nobody ends does not fill the disk."""
        monkeypatch.setattr(tracing, "_MAX_FILE", 1000)
        traces.change("", ON)

        for _ in range(20):
            traces.record("m", "1", "", PASSED)

        assert len(read(tmp_path)) < 12


_RECORD = """
import sys
from pathlib import Path
from nnz_service.gateway.tracing import Passage, Tracing
from nnz_service.shared_file import SharedFile

home = Path(sys.argv[1])
tracing = Tracing(SharedFile(home / "run" / "tracing.json"), home / "traces")
for number in range(25):
    tracing.record("m", "1", str(number), Passage(1, 2, 3, {}))
"""


def test_processes_at_once(traces: Tracing, tmp_path: Path) -> None:
    """Three that write one file leave every record whole and every number once."""
    traces.change("", ON)
    command = [sys.executable, "-c", _RECORD, str(tmp_path)]
    racing = [subprocess.Popen(command) for _ in range(3)]

    assert [one.wait(120) for one in racing] == [0, 0, 0]
    assert sorted(one["id"] for one in read(tmp_path)[::2]) == [*range(1, 76)]
