"""Python client of the nnz sparse compute service: pay only for the nonzeros.

>>> from nnz import Client
>>> client = Client("http://127.0.0.1:8000")
>>> A = client.matrices.put(scipy_matrix)  # doctest: +SKIP
>>> y = A @ x  # doctest: +SKIP
"""

from nnz._async_client import AsyncClient
from nnz._async_handles import AsyncJob, AsyncModel
from nnz._async_matrix import AsyncMatrix
from nnz._chain_jobs import AsyncChainJob, ChainJob
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
from nnz._expressions import Dense, Expression
from nnz._factors import AsyncFactors, Factors
from nnz._graphs import EigenResult, GraphResult
from nnz._handles import Job, Model
from nnz._matrix import Matrix
from nnz._models import (
    CgResult,
    JobInfo,
    MatrixInfo,
    ModelInfo,
    ServerInfo,
    SolveResult,
    SparseVector,
    TensorSpec,
)
from nnz._programs import LpResult
from nnz._retry import RetryPolicy

__all__ = [
    "AsyncChainJob",
    "AsyncClient",
    "AsyncFactors",
    "AsyncJob",
    "AsyncMatrix",
    "AsyncModel",
    "AuthenticationError",
    "BadRequestError",
    "CgResult",
    "ChainJob",
    "Client",
    "ConflictError",
    "ConnectError",
    "DeadlineError",
    "Dense",
    "EigenResult",
    "Expression",
    "Factors",
    "GraphResult",
    "ImpossibleError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobInfo",
    "LocalServerMissingError",
    "LpResult",
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
    "SolveResult",
    "SparseVector",
    "StatusError",
    "TensorSpec",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedMediaError",
]
