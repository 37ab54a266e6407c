"""Models and matrices on disk, and the catalog that knows them."""

from nnz_service.repository.blobs import BlobStore, BlobWriter
from nnz_service.repository.catalog import Repository
from nnz_service.repository.owners import EVERYBODY, Owner
from nnz_service.repository.records import (
    Blob,
    MatrixRecord,
    ModelRecord,
    is_matrix_id,
    matrix_id,
)

__all__ = [
    "EVERYBODY",
    "Blob",
    "BlobStore",
    "BlobWriter",
    "MatrixRecord",
    "ModelRecord",
    "Owner",
    "Repository",
    "is_matrix_id",
    "matrix_id",
]
