"""Changes and refusals are lines in `audit.jsonl`, in the fields of the other door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import Line, line, refusal, request_of

from nnz_service.grpc.account import host_of
from nnz_service.grpc.protocol import messages as m
from nnz_service.keys import AuditLog, Keyring, Scope
from nnz_service.keys.file import KeyFile

REQUEST = request_of(x=np.ones((2, 3), np.float32))
LOG_INFO = m.LogSettingsRequest.SettingValue(bool_param=True)
RATE = m.TraceSettingRequest.SettingValue(value=["5"])


class House:
    """A server with two keys besides its own, and what it has written down."""

    def __init__(self, home: Path, call: Line, secrets: dict[str, str]) -> None:
        self._path = home / "audit.jsonl"
        self._call = call
        self._secrets = secrets
        self.seen = 0

    def ask(self, who: str | None, name: str, message: Message) -> StatusCode:
        metadata = [("x-request-id", "r-7")]
        if who is not None:
            metadata.append(("authorization", f"Bearer {self._secrets.get(who, who)}"))
        try:
            self._call(name, message, metadata=metadata)
        except grpc.RpcError as error:
            code: StatusCode = error.code()
            return code
        return StatusCode.OK

    def stream(self, who: str, *sent: Message) -> list[m.ModelStreamInferResponse]:
        key = ("authorization", f"Bearer {self._secrets.get(who, who)}")
        written = [message.SerializeToString() for message in sent]
        answers = self._call.stream(written, metadata=[("x-request-id", "r-7"), key])
        return [m.ModelStreamInferResponse.FromString(one) for one in answers]

    def lines(self) -> list[dict[str, Any]]:
        """What was written since this was asked last."""
        if not self._path.exists():
            return []
        found = self._path.read_bytes().splitlines()
        new, self.seen = found[self.seen :], len(found)
        return [orjson.loads(line) for line in new]


@pytest.fixture(scope="module")
def _house(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("keys")
    file = KeyFile(home)
    secrets = {
        "infer": file.create("i", frozenset({Scope.INFER}))[1],
        "algebra": file.create("a", frozenset({Scope.ALGEBRA}))[1],
    }
    keyring, audit = Keyring("sesame", home), AuditLog(home, 1 << 20)
    with serve(key=keyring, audit=audit) as found, line(found.address) as call:
        yield House(home, call, secrets)


@pytest.fixture
def house(_house: House) -> House:
    _house.lines()
    return _house


@pytest.mark.parametrize(
    ("who", "name", "message", "resource", "status"),
    [
        ("sesame", "RepositoryModelLoad",
         m.RepositoryModelLoadRequest(model_name="net"), "net", 404),
        ("sesame", "RepositoryModelUnload",
         m.RepositoryModelUnloadRequest(model_name="net"), "net", 404),
        ("sesame", "LogSettings",
         m.LogSettingsRequest(settings={"log_info": LOG_INFO}), "", 200),
        ("sesame", "TraceSetting",
         m.TraceSettingRequest(settings={"trace_rate": RATE}), "", 200),
        ("sesame", "SystemSharedMemoryRegister",
         m.SystemSharedMemoryRegisterRequest(name="r", key="k"), "r", 501),
        ("sesame", "SystemSharedMemoryUnregister",
         m.SystemSharedMemoryUnregisterRequest(name="r"), "r", 501),
        ("infer", "RepositoryModelUnload",
         m.RepositoryModelUnloadRequest(model_name="net"), "", 403),
        ("algebra", "ModelInfer", REQUEST, "double", 403),
        ("wrong", "ModelInfer", REQUEST, "", 401),
        (None, "ServerMetadata", m.ServerMetadataRequest(), "", 401),
    ],
)  # fmt: skip
def test_a_line_for_each_change_and_refusal(
    house: House, who: str | None, name: str, message: Message, resource: str,
    status: int,
) -> None:  # fmt: skip
    """It is there before the caller is told."""
    house.ask(who, name, message)

    (line,) = house.lines()
    assert isinstance(line.pop("time"), float)
    key = line.pop("key")
    known = {"sesame": "env", "wrong": "", None: ""}
    assert key.startswith("k-") if who not in known else key == known[who]
    assert line == {
        "event": "audit",
        "action": name,
        "resource": resource,
        "status": status,
        "request": "r-7",
        "client": "127.0.0.1",
    }


def test_a_request_of_a_stream(house: House) -> None:
    """A stream that is let in may still ask for what is closed to it."""
    (answer,) = house.stream("algebra", REQUEST)

    (line,) = house.lines()
    assert "needs the scope infer" in answer.error_message
    assert (line["action"], line["status"]) == ("ModelStreamInfer", 403)
    assert line["resource"] == "double"
    assert line["key"].startswith("k-")


def test_a_stream_that_is_refused(house: House) -> None:
    refusal(lambda: house.stream("wrong"))

    (line,) = house.lines()
    assert (line["action"], line["status"]) == ("ModelStreamInfer", 401)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ServerLive", m.ServerLiveRequest()),
        ("ModelInfer", REQUEST),
        ("LogSettings", m.LogSettingsRequest()),
        ("TraceSetting", m.TraceSettingRequest()),
        ("RepositoryIndex", m.RepositoryIndexRequest()),
        ("SystemSharedMemoryStatus", m.SystemSharedMemoryStatusRequest()),
    ],
)
def test_nothing_for_the_rest(house: House, name: str, message: Message) -> None:
    house.ask("sesame", name, message)

    assert house.lines() == []


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[fe80::1%25eth0]:4711", "fe80::1%eth0"),
        ("unix:/run/nnz", None),
    ],
)
def test_addresses(peer: str, client: str | None) -> None:
    assert host_of(peer) == client
