"""Levels of the log, changed while a server runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from nnz_service import logs
from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.gateway.log_levels import LogLevels
from nnz_service.shared_file import SharedFile


@pytest.fixture(autouse=True)
def _info() -> Iterator[None]:
    """A process that set up logging at level info."""
    logs.configure("info", "web")
    yield
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logging.json"


@pytest.fixture
def levels(file: Path) -> LogLevels:
    return LogLevels(SharedFile(file))


def lines(capsys: pytest.CaptureFixture[str]) -> str:
    """Levels of which a line is written now."""
    for name in logs.LEVELS:
        getattr(logs.logger(), name)(f"a line of level {name}")
    text = capsys.readouterr().err
    return " ".join(name for name in logs.LEVELS if f"level {name}" in text)


class TestChange:
    def test_start(self, levels: LogLevels, capsys: pytest.CaptureFixture[str]) -> None:
        assert levels.settings() == {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "default",
        }
        assert lines(capsys) == "info warning error"

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({"log_verbose_level": 2}, "debug info warning error"),
            ({"log_info": False}, "warning error"),
            ({"log_error": False}, "info warning"),
            ({"log_info": False, "log_warning": False}, "error"),
            ({"log_warning": False, "log_verbose_level": 1}, "debug info error"),
            (dict.fromkeys(["log_info", "log_warning", "log_error"], False), ""),
            ({"log_file": "", "log_format": "default"}, "info warning error"),
        ],
    )
    def test_each_by_itself(
        self,
        levels: LogLevels,
        asked: dict[str, Any],
        expected: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Every level can be off while those around it are on."""
        held = levels.change(asked)

        assert {name: held[name] for name in asked} == asked
        assert lines(capsys) == expected

    def test_null_goes_back(
        self, levels: LogLevels, capsys: pytest.CaptureFixture[str]
    ) -> None:
        levels.change({"log_info": False, "log_verbose_level": 3})
        levels.change({"log_info": None, "log_verbose_level": None})

        assert levels.settings()["log_info"] is True
        assert lines(capsys) == "info warning error"

    def test_another_process_follows(
        self, levels: LogLevels, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What one process is asked for the others do at their next look."""
        other = LogLevels(SharedFile(file))
        other.change({"log_verbose_level": 1})
        logs.configure("info", "web")  # as if this were the first one's process

        levels.follow()

        assert lines(capsys) == "debug info warning error"

    @pytest.mark.parametrize(
        ("asked", "error", "reason"),
        [
            ({"log_level": 1}, ImpossibleError, "no setting 'log_level'"),
            ({"log_file": "/etc/passwd"}, ImpossibleError, "cannot be changed"),
            ({"log_format": "ISO8601"}, ImpossibleError, "cannot be changed"),
            ({"log_info": 1}, MalformedError, "true or false"),
            ({"log_verbose_level": True}, MalformedError, "0 to 10"),
            ({"log_verbose_level": -1}, MalformedError, "0 to 10"),
            ({"log_verbose_level": "1"}, MalformedError, "0 to 10"),
        ],
    )
    def test_refused(
        self,
        levels: LogLevels,
        asked: dict[str, Any],
        error: type[Exception],
        reason: str,
    ) -> None:
        """One wrong setting, and none is changed."""
        before = levels.settings()

        with pytest.raises(error, match=reason):
            levels.change({"log_warning": False, **asked})
        assert levels.settings() == before

    def test_somebody_elses_log(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Inside a program that has its own logging, that is left alone."""
        monkeypatch.setattr(logs, "_chosen", None)

        with pytest.raises(ImpossibleError, match="belongs to the program"):
            LogLevels(SharedFile(file)).change({"log_info": False})
