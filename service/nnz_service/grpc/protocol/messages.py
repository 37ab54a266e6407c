"""Every message of the protocol, by its published name; `messages.pyi` has their types.

They live in a pool of their own: a process may hold a client with other definitions
of the same names, and no code that was generated expires with a release of protobuf.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FILES = files(__package__).joinpath("descriptors.binpb").read_bytes()
_POOL = DescriptorPool()
for _file in FileDescriptorSet.FromString(_FILES).file:
    _POOL.AddSerializedFile(_file.SerializeToString())

DESCRIPTOR = _POOL.FindFileByName("grpc_service.proto")

globals().update(
    {
        name: GetMessageClass(message)
        for name, message in DESCRIPTOR.message_types_by_name.items()
    }
)
