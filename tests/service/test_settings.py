from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from nnz_service.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NNZ_{name.upper()}", raising=False)


class TestSettings:
    def test_defaults(self) -> None:
        settings = Settings()

        assert (settings.host, settings.port) == ("127.0.0.1", 8000)
        assert (settings.home, settings.key) == (Path("nnz-home"), None)

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
        ("name", "value"),
        [("port", 65536), ("threads", 0), ("max_body", 0), ("request_timeout", 0)],
    )
    def test_out_of_range(self, name: str, value: int) -> None:
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: value})  # type: ignore[arg-type]

    def test_a_child_reads_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(
            home=Path("/x y"), models=Path("/m"), port=0, api_key="k", threads=3,
            insecure=True, request_timeout=1.5, access_log=True, shared_memory=False,
            otel_endpoint="http://collector:4318",
        )  # fmt: skip

        for name, value in settings.to_environment().items():
            monkeypatch.setenv(name, value)

        assert Settings() == settings
