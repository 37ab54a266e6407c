"""Python client of the nnz sparse compute service: pay only for the nonzeros.

>>> from nnz import Client
>>> client = Client("http://127.0.0.1:8000")
>>> A = client.matrices.put(scipy_matrix)  # doctest: +SKIP
>>> y = A @ x  # doctest: +SKIP
"""

from nnz._async_client import AsyncClient
from nnz._async_handles import AsyncJob, AsyncMatrix, AsyncModel
from nnz._client import Client
from nnz._errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ConnectError,
    DeadlineError,
    ImpossibleError,
    JobCancelledError,
    JobFailedError,
    LocalServerMissingError,
    NnzError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RequestTimeoutError,
    ServerError,
    StatusError,
    TooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from nnz._handles import Job, Matrix, Model
from nnz._models import (
    CgResult,
    JobInfo,
    MatrixInfo,
    ModelInfo,
    ServerInfo,
    SparseVector,
    TensorSpec,
)
from nnz._retry import RetryPolicy

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncMatrix",
    "AsyncModel",
    "AuthenticationError",
    "BadRequestError",
    "CgResult",
    "Client",
    "ConflictError",
    "ConnectError",
    "DeadlineError",
    "ImpossibleError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobInfo",
    "LocalServerMissingError",
    "Matrix",
    "MatrixInfo",
    "Model",
    "ModelInfo",
    "NnzError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "RequestTimeoutError",
    "RetryPolicy",
    "ServerError",
    "ServerInfo",
    "SparseVector",
    "StatusError",
    "TensorSpec",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedMediaError",
]
