"""What a matrix file may ask for, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from nnz_service.errors import TooLargeError

#: Bytes of one stored entry and of one row pointer, at their widest.
_ENTRY_BYTES, _ROW_BYTES = 24, 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that a matrix may take in memory, and its file once decompressed."""

    matrix_bytes: int = 8 * 2**30
    file_bytes: int = 32 * 2**30

    def check_declared(self, rows: int, columns: int, entries: int) -> None:
        """Raise TooLargeError when the declared sizes cannot be held."""
        wanted = (rows + 1) * _ROW_BYTES + entries * _ENTRY_BYTES
        if wanted > self.matrix_bytes:
            raise TooLargeError(
                f"a matrix of shape {[rows, columns]} with {entries} entries takes "
                f"{wanted} bytes, but at most {self.matrix_bytes} are allowed"
            )

    def check_file(self, size: int) -> None:
        """Raise TooLargeError when the decompressed file is too long."""
        if size > self.file_bytes:
            raise TooLargeError(
                f"the file takes more than {self.file_bytes} bytes once decompressed"
            )
