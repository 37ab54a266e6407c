"""What masked products cost, before they run."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from nnz_kernels.backends import Backend, load_sparse
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra import sparse_ops
from nnz_service.algebra.operands import Operands


def operands(places: int) -> Operands:
    """A full product of 60 rows, of which a few places are wanted."""
    full = csr_from_scipy(scipy.sparse.csr_array(np.ones((60, 60))))
    at = (np.ones(places), (np.arange(places) % 60, np.arange(places) // 60))
    mask = csr_from_scipy(scipy.sparse.csr_array(at, shape=(60, 60)))
    return Operands(full, full, kernels=load_sparse(Backend.CPU), threads=1, mask=mask)


def test_few_entries_cost_their_dots() -> None:
    """And not the 216000 products of all of them."""
    cost = sparse_ops.estimate("spgemm", operands(2))

    assert (cost.nnz, cost.exact) == (2, False)
    assert cost.flops == 2 * (3600 + 2 * 60)


def test_many_entries_cost_the_product() -> None:
    cost = sparse_ops.estimate("spgemm", operands(3600))

    assert cost.flops == 2 * 60**3
    assert cost.nnz == 3600
