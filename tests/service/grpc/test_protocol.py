"""The messages are those of the published protocol, beside any client's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2

from nnz_service.grpc import protocol
from nnz_service.grpc.calls import CALLS
from nnz_service.grpc.protocol import messages as m

FOLDER = Path(str(files(protocol)))
FILES = FileDescriptorSet.FromString((FOLDER / "descriptors.binpb").read_bytes()).file


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Compiled code leaves them out, for they follow from the names."""
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file


class TestDefinitions:
    @pytest.mark.parametrize("module", [service_pb2, model_config_pb2])
    def test_are_the_clients(self, module) -> None:
        """tritonclient has the same ones, to the byte."""
        (ours,) = (file for file in FILES if file.name == module.DESCRIPTOR.name)

        serialized = without_json_names(ours).SerializeToString(deterministic=True)

        assert serialized == module.DESCRIPTOR.serialized_pb

    def test_are_those_of_the_proto_files(self, tmp_path: Path) -> None:
        """`make proto` would write the very same files."""
        protoc = pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools")

        code = protoc.main(
            [
                "protoc", f"-I{FOLDER}", f"--pyi_out={tmp_path}", "--include_imports",
                f"--descriptor_set_out={tmp_path / 'set'}", "grpc_service.proto",
            ]
        )  # fmt: skip

        assert code == 0
        assert (tmp_path / "set").read_bytes() == (
            FOLDER / "descriptors.binpb"
        ).read_bytes()
        assert (tmp_path / "grpc_service_pb2.pyi").read_text() == (
            FOLDER / "messages.pyi"
        ).read_text()

    def test_are_in_a_pool_of_their_own(self) -> None:
        """A client with other definitions of these names may be in the process."""
        assert m.ModelInferRequest is not service_pb2.ModelInferRequest
        assert m.DESCRIPTOR.pool is not service_pb2.DESCRIPTOR.pool


def test_every_call_is_answered() -> None:
    service = m.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    answered = {*CALLS, "ModelInfer", "ModelStreamInfer"}

    assert answered == {method.name for method in service.methods}
