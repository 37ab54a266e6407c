"""The two clients have the same names and arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import nnz
from nnz import _async_jobs, _async_resources, _jobs, _resources

PAIRS = [
    pytest.param(nnz.Client, nnz.AsyncClient, id="Client"),
    pytest.param(nnz.Model, nnz.AsyncModel, id="Model"),
    pytest.param(nnz.Matrix, nnz.AsyncMatrix, id="Matrix"),
    pytest.param(nnz.Job, nnz.AsyncJob, id="Job"),
    pytest.param(nnz.Factors, nnz.AsyncFactors, id="Factors"),
    pytest.param(_jobs.Jobs, _async_jobs.AsyncJobs, id="Jobs"),
    *(
        pytest.param(
            getattr(_resources, name),
            getattr(_async_resources, f"Async{name}"),
            id=name,
        )
        for name in ("Server", "Models", "Matrices", "Ops")
    ),
]
#: scipy's operators block, so that the asynchronous matrix cannot be one.
ONLY_BLOCKING = {"as_linear_operator"}
OPERATORS = {
    "__add__", "__getitem__", "__init__", "__matmul__", "__mul__", "__neg__",
    "__repr__", "__rmatmul__", "__rmul__", "__sub__", "__truediv__",
}  # fmt: skip
#: Views and expressions: nothing is sent.
AT_ONCE = {"__init__", "__repr__", "conj", "lazy"}
#: What is beside the handle decides: an expression gives one at once.
EITHER = {"__add__", "__matmul__", "__sub__"}


def members(kind: type[Any]) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(kind).items()
        if not name.startswith("_") or name in OPERATORS
    }


def signature(member: Any) -> list[tuple[Any, ...]]:
    if isinstance(member, property):
        member = member.fget
    if isinstance(member, classmethod):
        member = member.__func__
    found = inspect.signature(member)
    return [
        (p.name, p.kind, p.default, str(p.annotation).replace("Async", ""))
        for p in found.parameters.values()
    ]


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_same_names_and_signatures(
    blocking: type[Any], asynchronous: type[Any]
) -> None:
    one, other = members(blocking), members(asynchronous)

    assert set(one) - ONLY_BLOCKING == set(other)
    for name, member in other.items():
        if not callable(member) and not isinstance(member, property | classmethod):
            continue
        assert signature(member) == signature(one[name]), name


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_what_talks_to_the_server_is_awaited(
    blocking: type[Any], asynchronous: type[Any]
) -> None:
    for name, member in members(asynchronous).items():
        if not inspect.isfunction(member) or name in AT_ONCE | EITHER:
            continue
        awaited = inspect.iscoroutinefunction(member)
        assert awaited or inspect.isasyncgenfunction(member), name
        assert not inspect.iscoroutinefunction(members(blocking)[name]), name
