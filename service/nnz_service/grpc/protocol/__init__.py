"""The published protocol: its definitions, and the messages made of them.

`grpc_service.proto` and `model_config.proto` are Triton's, under its licence; `make
proto` writes `messages.pyi` and `descriptors.binpb` from them.
"""
