from __future__ import annotations

import inspect
from typing import Any

import pytest

from nnz_kernels.api import Kernels
from nnz_kernels.backends import Backend, load

#: Public methods of the table, the parent Protocols' included.
OPS = sorted(
    name
    for name, member in inspect.getmembers(Kernels, inspect.isfunction)
    if not name.startswith("_")
)


@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.CPU])
@pytest.mark.parametrize("op", OPS)
def test_twin_has_the_signature_of_the_table(backend: Backend, op: str) -> None:
    """Same parameters, same kinds, same defaults; names of positional ones are free."""
    wanted = inspect.signature(getattr(Kernels, op)).parameters.values()
    wanted = [p for p in wanted if p.name != "self"]

    got = list(inspect.signature(getattr(load(backend), op)).parameters.values())

    assert [(p.kind, p.default) for p in got] == [(p.kind, p.default) for p in wanted]
    keywords = [p.name for p in wanted if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in got if p.kind is p.KEYWORD_ONLY] == keywords


def test_the_table_is_not_empty() -> None:
    """The reflection above has found the ops."""
    assert {"axpy", "dot", "spmv", "spmm_t", "prepare_conv", "softmax"} <= set(OPS)


@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.CPU])
def test_families(backend: Backend) -> None:
    """A back-end names the families that it has."""
    kernels: Kernels[Any] = load(backend)

    assert {"vectors", "products"} <= set(kernels.FAMILIES)
