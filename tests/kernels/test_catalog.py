from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnz_kernels import cpu
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.cpu import catalog
from nnz_kernels.formats import Csr, Ragged, SparseVector

WARM = """
import json
from nnz_kernels.cpu import catalog
seen = []
count = catalog.warm(lambda done, total, name: seen.append((done, total, name)))
stats = catalog.stats()
missed = [e.name for e in catalog.entries() if e.function.stats.cache_misses.total()]
print(json.dumps([count, len(seen), stats.hits, catalog.compiled_count(), missed]))
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    """All that the first process compiled, the second finds in the cache."""
    count, reports, hits, misses, missed = warm(tmp_path)
    assert missed
    assert misses >= count - hits > 0
    assert reports == count + 1

    count, reports, hits, misses, missed = warm(tmp_path)
    assert (misses, missed) == (0, [])
    assert hits == count
    assert reports == count + 1


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_no_call_has_types_outside_the_catalog(dtype: Any, index: Any) -> None:
    """What Python calls was compiled ahead; nothing compiles at request time."""
    for threads in (1, 2):
        use_everything(dtype, index, threads)

    for entry in catalog.entries():
        unknown = set(entry.function.signatures) - set(entry.signatures)
        assert not unknown, entry.name


def test_every_entry_is_cached() -> None:
    """No entry forgot ``cache=True``, and none stands in the list twice."""
    entries = catalog.entries()

    assert len({id(entry.function) for entry in entries}) == len(entries)
    for entry in entries:
        assert type(entry.function._cache).__name__ == "FunctionCache", entry.name
        assert len(set(entry.signatures)) == len(entry.signatures) > 0
