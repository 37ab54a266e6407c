from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from nnz_service.errors import ImpossibleError, NotFoundError
from nnz_service.keys import KeyFile, KeyFileError, Quota, Scope
from nnz_service.keys.caller import ROWS
from nnz_service.keys.key import digest, id_in

INFER = frozenset({Scope.INFER})


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "home", clock=lambda: 1000.0)


class TestCreate:
    def test_what_is_kept(self, file: KeyFile) -> None:
        """Everything but the secret, which has the promised form."""
        quota = Quota(inflight=3, rate=2.5, work=30.0, stored=1 << 30)

        key, secret = file.create("alice", INFER, expires=60.0, quota=quota)

        assert file.read() == {key.id: key}
        assert id_in(secret) == key.id
        assert key.sha256 == digest(secret)
        assert (key.created, key.expires, key.quota) == (1000.0, 1060.0, quota)
        content = file.path.read_text()
        assert secret not in content
        assert secret[-43:] not in content
        assert "sha256" not in key.to_json()
        assert key.sha256 not in repr(key)

    def test_a_file_from_before_bytes_were_bounded(self, file: KeyFile) -> None:
        key, _ = file.create("alice", INFER)
        content = json.loads(file.path.read_text())
        del content["keys"][0]["quota"]["stored"]
        file.path.write_text(json.dumps(content))

        assert file.read() == {key.id: key}

    def test_only_the_owner_may_read(self, file: KeyFile) -> None:
        before = os.umask(0)
        try:
            file.create("alice", INFER)
        finally:
            os.umask(before)

        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert [entry.name for entry in file.path.parent.iterdir()] == ["keys.json"]

    def test_secrets_differ(self, file: KeyFile) -> None:
        secrets = {file.create("a", INFER)[1] for _ in range(20)}

        assert len(secrets) == 20
        assert len(file.read()) == 20

    def test_rows_are_shared_as_late_as_possible(self, file: KeyFile) -> None:
        keys = {}
        for _ in range(ROWS + 9):
            key, _secret = file.create("a", INFER)
            keys[key.id] = key.row

        assert min(keys.values()) == 1
        assert max(Counter(keys.values()).values()) == 2
        assert sum(n == 2 for n in Counter(keys.values()).values()) == 10
        assert {key.id: key.row for key in file.read().values()} == keys

    @pytest.mark.parametrize(
        ("name", "scopes", "expires", "quota"),
        [
            ("", INFER, None, Quota()),
            ("a" * 129, INFER, None, Quota()),
            ("a\nb", INFER, None, Quota()),
            ("a", frozenset(), None, Quota()),
            ("a", INFER, 0.0, Quota()),
            ("a", INFER, None, Quota(rate=0.0)),
            ("a", INFER, None, Quota(inflight=-1)),
            ("a", INFER, None, Quota(work=float("nan"))),
        ],
    )
    def test_refused(
        self,
        file: KeyFile,
        name: str,
        scopes: frozenset[Scope],
        expires: float | None,
        quota: Quota,
    ) -> None:
        with pytest.raises(ImpossibleError):
            file.create(name, scopes, expires=expires, quota=quota)
        assert not file.path.exists()


class TestRevoke:
    def test_the_record_stays(self, file: KeyFile) -> None:
        key, _ = file.create("alice", INFER)

        file.revoke(key.id)

        assert file.read()[key.id].disabled
        assert not file.read()[key.id].usable(0.0)

    def test_unknown(self, file: KeyFile) -> None:
        with pytest.raises(NotFoundError, match="k-00000000"):
            file.revoke("k-00000000")


class TestRead:
    def test_no_file_is_no_keys(self, file: KeyFile) -> None:
        assert file.read() == {}
        assert file.stamp() is None

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'{"version": 2, "keys": []}',
            b'{"version": 1}',
            b'{"version": 1, "keys": [{}]}',
            b'{"version": 1, "keys": [7]}',
        ],
    )
    def test_damaged(self, file: KeyFile, content: bytes) -> None:
        file.path.parent.mkdir()
        file.path.write_bytes(content)

        with pytest.raises(KeyFileError, match="no file of keys"):
            file.read()
        with pytest.raises(KeyFileError):
            file.create("alice", INFER)
        assert file.path.read_bytes() == content

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("id", "k-1"),
            ("sha256", "secret"),
            ("scopes", ["root"]),
            ("row", 0),
            ("row", ROWS),
            ("disabled", "no"),
            ("quota", None),
            ("quota", {"inflight": None, "rate": -1, "work": None}),
            ("created", "now"),
        ],
    )
    def test_wrong_field(self, file: KeyFile, field: str, value: object) -> None:
        """A record that was edited by hand never opens more than was meant."""
        file.create("alice", INFER)
        document = orjson.loads(file.path.read_bytes())
        document["keys"][0][field] = value
        file.path.write_bytes(orjson.dumps(document))

        with pytest.raises(KeyFileError):
            file.read()


@pytest.mark.slow
def test_processes_lose_no_key(tmp_path: Path) -> None:
    """Several commands at once: each key is there, the file is never torn."""
    program = (
        "import sys; from pathlib import Path; from nnz_service.keys import *\n"
        "for n in range(20): KeyFile(Path(sys.argv[1])).create('x', {Scope.INFER})"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    writers = [subprocess.Popen(command) for _ in range(4)]
    while any(writer.poll() is None for writer in writers):
        KeyFile(tmp_path).read()

    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(KeyFile(tmp_path).read()) == 80
