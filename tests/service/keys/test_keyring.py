from __future__ import annotations

import contextlib
import hmac
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from nnz_service.errors import ForbiddenError, UnauthorizedError
from nnz_service.keys import ANYBODY, Caller, KeyFile, Keyring, Quota, Scope, authorise

INFER = frozenset({Scope.INFER})


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def file(tmp_path: Path, time: Time) -> KeyFile:
    return KeyFile(tmp_path, clock=time)


@pytest.fixture
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged meanwhile."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


def ring(file: KeyFile, time: Time, environment: str | None = None) -> Keyring:
    return Keyring(environment, file.path.parent, clock=time, ticks=time)


class TestCaller:
    def test_without_keys_everybody(self, file: KeyFile, time: Time) -> None:
        keyring = ring(file, time)

        assert keyring.caller(None) is ANYBODY
        assert keyring.caller("anything") is ANYBODY
        assert not keyring.usable

    def test_key_of_the_environment(self, file: KeyFile, time: Time) -> None:
        keyring = ring(file, time, "schlüssel")

        assert keyring.caller("schlüssel") == Caller("env")
        assert keyring.caller("schlüssel").admin

    @pytest.mark.parametrize("sent", ["", "k", "key ", "KEY", "kéy"])
    def test_wrong_key(self, file: KeyFile, time: Time, sent: str) -> None:
        with pytest.raises(UnauthorizedError, match="not known"):
            ring(file, time, "key").caller(sent)

    def test_no_key_sent(self, file: KeyFile, time: Time) -> None:
        with pytest.raises(UnauthorizedError, match="Bearer"):
            ring(file, time, "key").caller(None)

    def test_key_of_the_file(self, file: KeyFile, time: Time) -> None:
        quota = Quota(rate=2.0)
        key, secret = file.create("alice", INFER, quota=quota)

        caller = ring(file, time, "key").caller(secret)

        assert caller == Caller(key.id, INFER, quota, key.row)
        assert not caller.admin

    def test_unknown_expired_and_revoked_sound_alike(
        self, file: KeyFile, time: Time
    ) -> None:
        _, expired = file.create("old", INFER, expires=10.0)
        revoked, secret = file.create("bad", INFER)
        file.revoke(revoked.id)
        time.now += 10.0
        unknown = secret[:-1] + ("A" if secret[-1] != "A" else "B")
        nobody = "nnz_k-00000000_" + "A" * 43

        heard = set()
        for sent in (expired, secret, unknown, nobody, "garbage"):
            with pytest.raises(UnauthorizedError) as caught:
                ring(file, time).caller(sent)
            heard.add(str(caught.value))

        assert heard == {"this API key is not known here"}

    def test_expires_at_its_time(self, file: KeyFile, time: Time) -> None:
        key, secret = file.create("a", INFER, expires=10.0)
        keyring = ring(file, time)
        time.now += 9.999
        assert keyring.caller(secret).id == key.id

        time.now += 0.001

        with pytest.raises(UnauthorizedError):
            keyring.caller(secret)

    def test_unknown_ids_are_compared_too(
        self, file: KeyFile, time: Time, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many comparisons of as many bytes, whether the id is known or not."""
        _, secret = file.create("a", INFER)
        sizes: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def counted(a: str, b: str) -> bool:
            sizes.append((len(a), len(b)))
            return compare(a, b)

        monkeypatch.setattr(hmac, "compare_digest", counted)
        keyring = ring(file, time)
        counts = []
        for sent in (secret, secret[:-2] + "AA", "nnz_k-00000000_" + "A" * 43, "x"):
            sizes.clear()
            with contextlib.suppress(UnauthorizedError):
                keyring.caller(sent)
            counts.append(tuple(sizes))

        assert set(counts) == {((64, 64), (64, 64))}


class TestReload:
    def test_first_key_closes_the_door(self, file: KeyFile, time: Time) -> None:
        """A server that runs without keys asks for them from the first one on."""
        keyring = ring(file, time)
        assert keyring.caller(None) is ANYBODY

        key, secret = file.create("a", INFER)

        assert keyring.caller(None) is ANYBODY  # looks once a second at most
        time.now += 1.0
        with pytest.raises(UnauthorizedError):
            keyring.caller(None)
        assert keyring.caller(secret).id == key.id
        file.revoke(key.id)
        time.now += 1.0
        for sent in (secret, None):
            with pytest.raises(UnauthorizedError):
                keyring.caller(sent)

    def test_broken_file_keeps_the_keys(
        self, file: KeyFile, time: Time, told: list[MutableMapping[str, Any]]
    ) -> None:
        key, secret = file.create("a", INFER)
        keyring = ring(file, time)
        keyring.caller(secret)
        good = file.path.read_bytes()
        told.clear()

        file.path.write_bytes(good[:-30])
        for _ in range(3):
            time.now += 1.0
            assert keyring.caller(secret).id == key.id

        assert [line["event"] for line in told] == ["keys not read"]
        file.path.write_bytes(good)
        file.revoke(key.id)
        time.now += 1.0
        with pytest.raises(UnauthorizedError):
            keyring.caller(secret)

    def test_lost_file_opens_nothing(self, file: KeyFile, time: Time) -> None:
        key, secret = file.create("a", INFER)
        keyring = ring(file, time)
        keyring.caller(secret)

        file.path.unlink()
        time.now += 1.0

        assert keyring.caller(secret).id == key.id
        with pytest.raises(UnauthorizedError):
            keyring.caller(None)

    def test_broken_from_the_start_lets_nobody_in(
        self, file: KeyFile, time: Time
    ) -> None:
        file.path.write_bytes(b"{")

        keyring = ring(file, time)

        assert keyring.required
        assert not keyring.usable
        assert ring(file, time, "key").caller("key").admin

    def test_only_revoked_keys_let_nobody_in(self, file: KeyFile, time: Time) -> None:
        key, _ = file.create("a", INFER)
        file.revoke(key.id)

        keyring = ring(file, time)

        assert (keyring.required, keyring.usable) == (True, False)

    def test_what_could_not_be_read_is_tried_again(
        self, file: KeyFile, time: Time, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mode that was wrong changes no time of the file when it is set right."""
        _, secret = file.create("a", INFER)
        keyring = ring(file, time)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", _no_permission)
            with pytest.raises(UnauthorizedError):
                keyring.caller(secret)
        time.now += 1.0

        assert keyring.caller(secret).scopes == INFER


def _no_permission(_: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


class TestAuthorise:
    def test_one_of_the_scopes_is_enough(self) -> None:
        caller = Caller("k", frozenset({Scope.INFER}))

        authorise(caller, frozenset(), "GET /v2")
        authorise(caller, frozenset({Scope.INFER, Scope.ALGEBRA}), "GET /x")
        with pytest.raises(ForbiddenError, match="PUT /y: it needs the scope algebra"):
            authorise(caller, frozenset({Scope.ALGEBRA}), "PUT /y")

    def test_admin_may_everything(self) -> None:
        for scope in Scope:
            authorise(Caller("k", frozenset({Scope.ADMIN})), frozenset({scope}), "x")
