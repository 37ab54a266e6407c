"""What a fault inside becomes."""

from __future__ import annotations

import errno

import pytest

from nnz_service.errors import StorageFullError
from nnz_service.gateway.faults import fault_of
from nnz_service.web.handlers import error_answer


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(number: int) -> None:
    fault = fault_of(OSError(number, "no room", "/secret/path"), "r-1")

    assert isinstance(fault, StorageFullError)
    assert error_answer(fault).status_code == 507
    assert "secret" not in str(fault)


def test_any_other_fault() -> None:
    fault = fault_of(OSError(errno.EIO, "broken", "/secret/path"), "r-1")

    assert error_answer(fault).status_code == 500
    assert "r-1" in str(fault)
    assert "secret" not in str(fault)
