"""gRPC: `inference.GRPCInferenceService`, the Open Inference Protocol's other door."""

from nnz_service.grpc.server import Server

__all__ = ["Server"]
