from __future__ import annotations

import pytest

from nnz_service.errors import UnauthorizedError
from nnz_service.keys import OpenDoorError, check_bind, check_key


class TestCheckKey:
    @pytest.mark.parametrize("sent", [None, "", "k"])
    def test_no_key_lets_everybody_in(self, sent: str | None) -> None:
        check_key(sent, None)

    def test_right_key(self) -> None:
        check_key("schlüssel", "schlüssel")

    @pytest.mark.parametrize("sent", ["", "k", "key ", "KEY", "kéy"])
    def test_wrong_key(self, sent: str) -> None:
        with pytest.raises(UnauthorizedError, match="not known"):
            check_key(sent, "key")

    def test_no_key_sent(self) -> None:
        with pytest.raises(UnauthorizedError, match="Bearer"):
            check_key(None, "key")


class TestCheckBind:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    def test_loopback_needs_no_key(self, host: str) -> None:
        check_bind(host, None, insecure=False)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example", ""])  # noqa: S104 - to be refused
    def test_others_do(self, host: str) -> None:
        with pytest.raises(OpenDoorError, match="NNZ_API_KEY"):
            check_bind(host, None, insecure=False)
        check_bind(host, "key", insecure=False)
        check_bind(host, None, insecure=True)
