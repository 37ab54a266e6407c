from __future__ import annotations

import pytest

from nnz_service.keys import OpenDoorError, check_bind, check_origins


class TestCheckBind:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    def test_loopback_needs_no_key(self, host: str) -> None:
        check_bind(host, guarded=False, insecure=False)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example", ""])  # noqa: S104 - to be refused
    def test_others_do(self, host: str) -> None:
        with pytest.raises(OpenDoorError, match=r"NNZ_API_KEY.*nnz keys create"):
            check_bind(host, guarded=False, insecure=False)
        check_bind(host, guarded=True, insecure=False)
        check_bind(host, guarded=False, insecure=True)


class TestCheckOrigins:
    @pytest.mark.parametrize(
        "origin",
        ["https://a.example", "http://localhost:3000", "http://[::1]:8080", "app://x"],
    )
    def test_exact_origins(self, origin: str) -> None:
        check_origins((origin,), guarded=False, insecure=False)

    @pytest.mark.parametrize(
        "origin",
        ["a.example", "https://a.example/", "https://A.example", "https://*.a", "null"],
    )
    def test_what_no_browser_sends(self, origin: str) -> None:
        """It would never match, and the operator would wonder why."""
        with pytest.raises(OpenDoorError, match="without a path"):
            check_origins((origin,), guarded=True, insecure=True)

    def test_every_page_needs_a_key(self) -> None:
        with pytest.raises(OpenDoorError, match="any web page"):
            check_origins(("*",), guarded=False, insecure=False)
        check_origins(("*",), guarded=True, insecure=False)
        check_origins(("*",), guarded=False, insecure=True)
