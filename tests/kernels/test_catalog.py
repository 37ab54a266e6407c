from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from kernels.sparse_cases import matrix, numbers

from nnz_kernels import cpu
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.cpu import catalog, factors, sparse
from nnz_kernels.formats import Csr, Ragged, SparseVector

WARM = """
import json
from nnz_kernels.cpu import catalog
seen = []
warmed = catalog.warm(lambda done, total, name: seen.append(done))
stats = catalog.stats()
assert seen == sorted(seen) and seen[-1] == warmed.variants
print(json.dumps([warmed.variants, stats.hits, warmed.compiled]))
"""


def warm(folder: Path) -> list[Any]:
    out = subprocess.run(
        [sys.executable, "-c", WARM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    result: list[Any] = json.loads(out.stdout)
    return result


def is_complete(folder: Path) -> bool:
    code = "from nnz_kernels.cpu import catalog; print(catalog.is_complete())"
    out = subprocess.check_output(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        text=True,
    )
    return out.strip() == "True"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    """What one process and its helpers compiled, the next finds in the cache.

    It starts from what this machine has compiled already, for the sake of time, less
    a sixtieth of it.
    """
    here = Path(numba.config.CACHE_DIR)
    if here.exists():
        shutil.copytree(here, tmp_path / here.name)
    for file in [*sorted(tmp_path.rglob("*.nbi"))[::60], *tmp_path.rglob("complete-*")]:
        file.unlink()

    assert not is_complete(tmp_path)
    count, hits, compiled = warm(tmp_path)
    assert is_complete(tmp_path)
    assert 0 < compiled <= count
    assert hits < count

    count, hits, compiled = warm(tmp_path)
    assert (hits, compiled) == (count, 0)


def use_everything(dtype: Any, index: Any, threads: int) -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((300, 200)).astype(dtype)
    a = csr_from_dense(dense)
    a = Csr(a.indptr.astype(index), a.indices.astype(index), a.data, a.shape)
    x, y = dense[0].copy(), dense[:, 0].copy()
    cpu.spmv(a, x, threads=threads)
    cpu.spmv_t(a, y, threads=threads)
    cpu.spmm(a, np.ascontiguousarray(dense[:200, :50]), threads=threads)
    cpu.spmm_t(a, dense[:, :50], threads=threads)
    rows = Ragged(a.indptr, a.indices, a.data, 200)
    u = SparseVector(a.indices[:200], a.data[:200], 200)
    cpu.axpy(u, 2, u, zeros="drop_exact")
    cpu.dot(u, u)
    cpu.scatter(u)
    cpu.gather(x, u.indices)
    cpu.combine(u, np.ones(300), rows)
    cpu.axpy_many(rows, np.ones(300), rows, threads=threads)
    cpu.dot_many(rows, rows, threads=threads)
    use_factors(index)


def use_factors(index: Any) -> None:
    lower = csr_from_dense(np.array([[2.0, 0], [1, 2]]))
    a = Csr(lower.indptr.astype(index), lower.indices.astype(index), lower.data, (2, 2))
    factors.ilu0(a)
    factors.ic0(a)
    strict = csr_from_dense(np.array([[0.0, 0], [1, 0]]))
    strict = Csr(strict.indptr.astype(index), strict.indices.astype(index),
                 strict.data, (2, 2))  # fmt: skip
    for width in (1, 3):
        factors.solve_triangle(strict, np.ones(2), np.ones((2, width)), upper=False)


def use_sparse(dtype: Any, index: Any, threads: int) -> None:
    a = matrix((80, 80), dtype, index, 0.5)
    x, how = numbers((80, 9), dtype), {"threads": threads}
    sparse.planned_product(sparse.plan_product(a, a, **how), a, a, **how)
    sparse.spgemm(a, a, **how)
    sparse.semiring_product(a, a, "or_and", a, **how)
    sparse.semiring_spmv(a, x[:80, 0].copy(), "or_and", **how)
    sparse.product_size(a, a)
    sparse.add(2, a, 3, a, **how)
    sparse.transpose(a, **how)
    sparse.sddmm(a, x, x, **how)
    sparse.triangular_solve(a, x, unit_diagonal=True, **how)
    for multiply in (cpu.spmv, cpu.spmv_t):
        multiply(a, x[:, 0].copy(), **how)
    for multiply in (cpu.spmm, cpu.spmm_t):
        multiply(a, x, **how)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_no_call_has_types_outside_the_catalog(dtype: Any, index: Any) -> None:
    """What Python calls was compiled ahead; nothing compiles at request time."""
    for threads in (1, 2):
        if index == np.int32 or dtype == np.float64:  # the rest is rare, and the same
            use_sparse(dtype, index, threads)
        if dtype != np.complex128:
            use_everything(dtype, index, threads)

    for entry in catalog.entries():
        known = {*entry.signatures, *entry.rare}
        unknown = set(entry.function.signatures) - known
        assert not unknown, entry.name


def test_every_entry_is_cached() -> None:
    """No entry forgot ``cache=True``, and none stands in the list twice."""
    entries = catalog.entries()

    assert len({id(entry.function) for entry in entries}) == len(entries)
    for entry in entries:
        assert type(entry.function._cache).__name__ == "FunctionCache", entry.name
        variants = *entry.signatures, *entry.rare
        assert len(set(variants)) == len(variants) > 0
