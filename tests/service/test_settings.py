from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from nnz_service.gateway import Limits, limits_of
from nnz_service.settings import GIB, MIB, Settings


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NNZ_{name.upper()}", raising=False)


class TestSettings:
    def test_defaults(self) -> None:
        settings = Settings()

        assert (settings.host, settings.port) == ("127.0.0.1", 8000)
        assert (settings.home, settings.key) == (Path("nnz-home"), None)
        assert settings.grpc_port is None

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NNZ_PORT", "0")
        monkeypatch.setenv("NNZ_API_KEY", "secret")

        settings = Settings()

        assert (settings.port, settings.key) == (0, "secret")
        assert "secret" not in repr(settings)

    def test_arguments_win(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NNZ_PORT", "1")

        assert Settings(port=2).port == 2

    def test_empty_key_is_no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NNZ_API_KEY", "")

        assert Settings().key is None

    @pytest.mark.parametrize(
        ("text", "origins"),
        [("", ()), (" , ", ()), ("*", ("*",)), ("https://a, b,", ("https://a", "b"))],
    )
    def test_origins(self, text: str, origins: tuple[str, ...]) -> None:
        assert Settings(cors_origins=text).origins == origins

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("port", 65536),
            ("grpc_port", -1),
            ("threads", 0),
            ("max_body", 0),
            ("request_timeout", 0),
            ("body_timeout", 0),
            ("log_level", "verbose"),
            ("log_level", ""),
        ],
    )
    def test_out_of_range(self, name: str, value: int) -> None:
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: value})

    def test_level_in_capital_letters(self) -> None:
        assert Settings(log_level="WARNING").log_level == "warning"

    def test_limits_are_those_of_the_settings(self) -> None:
        """Their defaults too."""
        asked = Settings(
            max_body=1, max_json=2, max_upload=3, request_timeout=4, body_timeout=5,
            max_inflight=6, max_inflight_bytes=7, job_queue=8, job_ttl=9,
        )  # fmt: skip

        assert limits_of(Settings()) == Limits()
        assert limits_of(asked) == Limits(1, 2, 3, 4, 5, 6, 7, 8, 9)

    def test_a_child_reads_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(
            home=Path("/x y"), models=Path("/m"), port=0, api_key="k", threads=3,
            database_url="postgresql://nnz:hidden@host/db", job_ttl=60.0, job_bytes=5,
            grpc_port=0,
            insecure=True, request_timeout=1.5, tls_cert=Path("/c"), audit_bytes=9999,
            cors_origins="https://a, https://b",
        )  # fmt: skip

        for name, value in settings.to_environment().items():
            monkeypatch.setenv(name, value)

        assert Settings() == settings
        assert Settings().database == "postgresql://nnz:hidden@host/db"
        assert "hidden" not in repr(settings)


class TestReadme:
    """The table of settings that operators read."""

    def test_names_all_of_them_with_their_defaults(self) -> None:
        text = (Path(__file__).parents[2] / "README.md").read_text()
        rows = re.findall(r"^\| `NNZ_([A-Z_]+)` \|(.*?)\| (.+) \|$", text, re.M)

        found = {name.lower(): default.strip() for name, default, _ in rows}

        assert len(found) == len(rows)
        assert found == {
            name: _shown(field.default) for name, field in Settings.model_fields.items()
        }


def _shown(default: object) -> str:
    """Write a default as the table does."""
    if default is None or default == "":
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
            if default >= unit and default % unit == 0:
                return f"{default // unit} {name}"
        return f"{default:.0f}"
    return f"`{default}`"
