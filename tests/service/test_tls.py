"""TLS: files that cannot work are refused at the start, the others speak https."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import structlog
from service.certificates import Pair, encrypted, self_signed, signed
from service.processes import Server, environment, until

from nnz import Client, ConnectError
from nnz_service import supervisor
from nnz_service.settings import Settings
from nnz_service.tls import TlsError, check_tls


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"))


class TestCheck:
    def test_none_is_fine(self) -> None:
        check_tls(None, None, None)

    def test_good(self, pair: Pair) -> None:
        check_tls(pair.cert, pair.key, None)
        check_tls(pair.cert, pair.key, pair.cert)

    @pytest.mark.parametrize("which", ["cert", "key", "ca"])
    def test_alone(self, pair: Pair, which: str) -> None:
        given = {"cert": pair.cert, "key": pair.key, "ca": pair.cert}
        files = [given[name] if name == which else None for name in given]

        with pytest.raises(TlsError, match="NNZ_TLS_CERT and NNZ_TLS_KEY"):
            check_tls(*files)

    def test_missing(self, pair: Pair, tmp_path: Path) -> None:
        absent = tmp_path / "absent.pem"
        for files in (
            (absent, pair.key, None),
            (pair.cert, absent, None),
            (pair.cert, pair.key, absent),
        ):
            with pytest.raises(TlsError, match=r"absent\.pem: No such file"):
                check_tls(*files)

    def test_a_folder(self, pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(TlsError, match="Is a directory"):
            check_tls(pair.cert, tmp_path, None)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_unreadable(self, pair: Pair, tmp_path: Path) -> None:
        closed = tmp_path / "closed.key"
        closed.touch(0)

        with pytest.raises(TlsError, match="Permission denied"):
            check_tls(pair.cert, closed, None)

    def test_of_another(self, pair: Pair, tmp_path: Path) -> None:
        other = self_signed(tmp_path, "other")

        with pytest.raises(TlsError, match=r"other\.key is not that of"):
            check_tls(pair.cert, other.key, None)

    def test_no_pem(self, pair: Pair, tmp_path: Path) -> None:
        (tmp_path / "no.pem").write_text("nothing")
        no = tmp_path / "no.pem"
        for files in ((no, pair.key, None), (pair.cert, no, None)):
            with pytest.raises(TlsError, match="no certificate and key in PEM"):
                check_tls(*files)
        with pytest.raises(TlsError, match="holds no certificate"):
            check_tls(pair.cert, pair.key, no)

    def test_passphrase(self, pair: Pair) -> None:
        """Nobody is there to type it."""
        with pytest.raises(TlsError, match="is encrypted"):
            check_tls(pair.cert, encrypted(pair), None)


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logs_as_before")
def test_the_supervisor_refuses_first(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before a process is started or a folder is made."""
    settings = Settings(
        home=tmp_path / "home", port=0, tls_cert=pair.cert, tls_key=tmp_path / "no"
    )

    assert supervisor.serve(settings) == 1

    told = capsys.readouterr().err
    assert (
        told
        == f"nnz: cannot read the key {tmp_path / 'no'}: No such file or directory\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestServing:
    def test_https(self, pair: Pair, tmp_path: Path) -> None:
        """URL, SDK and `nnz health` say and take https; strangers' are refused."""
        stranger = self_signed(tmp_path, "stranger")
        server = Server(tmp_path / "home", tls_cert=pair.cert, tls_key=pair.key)
        try:
            url = server.url
            assert url.startswith("https://127.0.0.1:")
            with Client(url, verify=pair.cert, retries=0) as client:
                until(client.server.ready, 600)
                assert client.models.list() == []
            for verify in (None, stranger.cert):
                with (
                    Client(url, verify=verify, retries=0) as client,
                    pytest.raises(ConnectError, match=r"(?i)certificate"),
                ):
                    client.models.list()
            with pytest.raises(httpx2.TransportError):
                httpx2.get(url.replace("https", "http") + "/v2/health/live")
            assert _health("--url", url, "--ca", str(pair.cert)) == 0
            assert _health("--url", url) == 1
            assert _health("--url", url, ca=pair.cert) == 0
            port = url.rpartition(":")[2]
            # As in a container: the same environment as the server's.
            assert _health(port=port, tls_cert=pair.cert) == 0
            assert _health(port=port, tls_cert=stranger.cert) == 1
        finally:
            server.close()

    def test_mutual(self, pair: Pair, tmp_path: Path) -> None:
        """With authorities named, who shows no certificate of theirs stays outside."""
        authority = self_signed(tmp_path, "authority")
        mine = signed(tmp_path, authority, "mine")
        server = Server(
            tmp_path / "home",
            tls_cert=pair.cert,
            tls_key=pair.key,
            tls_client_ca=authority.cert,
        )
        try:
            known = ssl.create_default_context(cafile=str(pair.cert))
            known.load_cert_chain(mine.cert, mine.key)
            with Client(server.url, verify=known, retries=0) as client:
                until(client.server.ready, 600)
            with (
                Client(server.url, verify=pair.cert, retries=0) as client,
                pytest.raises(ConnectError),
            ):
                client.models.list()
        finally:
            server.close()


def _health(*words: str, **settings: object) -> int:
    command = [Path(sys.executable).with_name("nnz"), "health", *words]
    done = subprocess.run(
        command, env=environment(**settings), capture_output=True, check=False
    )
    return done.returncode
