"""Calls of every operation and job, right and wild, made of a seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import scipy.sparse

#: Where a call goes, its JSON part and the bytes behind it.
Call = tuple[str, dict[str, Any], bytes]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**53, 2**63,
    2**64 - 1, "", "1", "x" * 300, "\0", [], [0], [1, 2], [None, None, -1], [0, 2**62],
    [5, 2], [0, 1, 0], [0, 9, -(2**63)], [1.5, 2], [True, 2], [[1], [2]], {}, {"a": 1},
    "exact", "cg", "direct", "m-0123456789abcdef",
)  # fmt: skip
TYPES = {
    "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "UINT64": "<u8",
    "UINT8": "<u1", "INT8": "<i1", "FP16": "<f2", "BOOL": "?",
}  # fmt: skip
_NUMBERS = (
    0.0, 1.0, -1.0, 2.0, 3.5, -7.0, 1e300, -1e300, 1e-310, math.inf, -math.inf,
    math.nan,
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A matrix that is there."""

    id: str
    shape: tuple[int, int]
    nnz: int
    kind: str


def matrices() -> dict[str, scipy.sparse.csr_array]:
    """Return matrices of all sorts by name."""
    rng = np.random.default_rng(7)
    wide = (np.ones(3), (np.array([0, 1, 3]), np.array([5, 2**31, 2**40])))
    path = scipy.sparse.diags_array([-1.0, 2.5, -1], offsets=[-1, 0, 1], shape=(6, 6))
    return {
        "diagonal": scipy.sparse.csr_array(np.diag([1, 2, 4]).astype("f4")),
        "path": path.tocsr(),
        "wide": scipy.sparse.random_array((3, 5), density=0.5, rng=rng).tocsr(),
        "tall": scipy.sparse.random_array((6, 3), density=0.4, rng=rng).tocsr(),
        "complex": scipy.sparse.csr_array(
            np.array([[1, 2j, 0], [0, 1j, 3], [1, 0, 1]])
        ),
        "one": scipy.sparse.csr_array(np.array([[2.0]])),
        "empty": scipy.sparse.csr_array((0, 0)),
        "no rows": scipy.sparse.csr_array((0, 4)),
        "no entries": scipy.sparse.csr_array((3, 3)),
        "triangle": scipy.sparse.csr_array(np.tril(rng.random((6, 6)) + 1)),
        "singular": scipy.sparse.csr_array(np.ones((3, 3))),
        "not finite": scipy.sparse.csr_array(np.array([[np.nan, 1], [np.inf, 2]])),
        "beyond 32 bits": scipy.sparse.coo_array(wide, shape=(4, 2**41)).tocsr(),
    }


Make = Callable[[Random, Stored, Stored], tuple[dict[str, Any], dict[str, Any]]]


def _dense(name: str, *shape: Any) -> dict[str, list[Any]]:
    return {name: [*shape]}


def _vectors(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    k, n = rng.randint(0, 5), rng.randint(0, 5)
    inputs = {
        "u.indices": ([k], "INT64"), "u.values": ([k], "FP64"),
        "v.indices": ([n], "INT64"), "v.values": ([n], "FP64"),
    }  # fmt: skip
    return {"size": rng.choice((6, 100, 2**50))}, inputs


def _axpy(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    params, inputs = _vectors(rng, a, b)
    chosen = rng.choice(("keep", "drop_exact")), rng.choice(("sum", "error", "last"))
    more = {"r": -2.0, "zeros": chosen[0], "duplicates": chosen[1]}
    return params | more, inputs


def _spmv(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    turned = rng.random() < 0.3
    size = a.shape[0 if turned else 1]
    given = {"matrix": a.id, "transpose": turned} | _semiring(rng)
    return given, {"x": ([size, *_pair(a)], None)}


def _spmm(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    shape = [a.shape[1], rng.randint(0, 4), *_pair(a)]
    return {"matrix": a.id} | _semiring(rng), {"x": (shape, None)}


def _semiring(rng: Random) -> dict[str, str]:
    chosen = rng.choice(("plus_times", "min_plus", "or_and", "max_times"))
    return {"semiring": chosen} if rng.random() < 0.4 else {}


def _pair(a: Stored) -> list[int]:
    return [2] if a.kind == "c" else []


def _product(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    more: dict[str, Any] = {}
    if rng.random() < 0.4:
        more["semiring"] = rng.choice(("plus_times", "min_plus", "max_times", "or_and"))
    if rng.random() < 0.3:
        more["mask"] = rng.choice((a, b)).id
    return {"matrix": a.id, "other": rng.choice((a, b)).id} | more, {}


def _sum(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    return {"matrix": a.id, "other": a.id, "alpha": 2, "beta": -0.5}, {}


def _scale(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    return {"matrix": a.id}, {"rows": ([a.shape[0], *_pair(a)], None)}


def _part(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    if rng.random() < 0.5:
        return {"matrix": a.id, "rows": [None, None, -1], "columns": [0, 2]}, {}
    return {"matrix": a.id}, {"rows": ([rng.randint(0, 4)], "INT64")}


def _one(**more: Any) -> Make:
    def make(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
        chosen = {k: rng.choice(v) for k, v in more.items()}
        return {"matrix": a.id} | chosen, {}

    return make


def _sampled(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    k = rng.randint(0, 3)
    return {"matrix": a.id}, {
        "x": ([a.shape[0], k, *_pair(a)], None),
        "y": ([a.shape[1], k, *_pair(a)], None),
    }


def _triangle(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    params = {"matrix": a.id, "lower": rng.random() < 0.6, "unit_diagonal": False}
    return params, {"b": ([a.shape[0], *_pair(a)], None)}


def _solve(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    methods = ("cg", "bicgstab", "gmres", "minres", "lsqr", "direct")
    params = {
        "matrix": a.id, "method": rng.choice(methods), "rtol": 1e-6, "maxiter": 50,
        "restart": 5, "time_limit": 5,
        "preconditioner": rng.choice(("none", "none", "jacobi", "ilu0", "ic0")),
    }  # fmt: skip
    shape = [a.shape[0]] if rng.random() < 0.7 else [a.shape[0], rng.randint(1, 3)]
    inputs: dict[str, Any] = {"b": (shape, "FP64")}
    if rng.random() < 0.3:
        inputs["x0"] = ([a.shape[1], *shape[1:]], "FP64")
    return params, inputs


def _cg(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    return {"matrix": a.id, "maxiter": 20}, {"b": ([a.shape[0]], "FP64")}


def _lp(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    m, n = a.shape
    params = {
        "matrix": a.id, "method": "pdhg", "max_iterations": 200, "time_limit": 5,
        "maximize": rng.random() < 0.2, "eps_rel": 1e-4,
    }  # fmt: skip
    sizes = {"c": n, "lc": m, "uc": m, "lv": n, "uv": n, "x0": n, "y0": m}
    names = ["c", *(name for name in sizes if name != "c" and rng.random() < 0.3)]
    return params, {name: ([sizes[name]], "FP64") for name in names}


def _op(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    make = {"spgemm": _product, "add": _sum, "scale": _scale, "sddmm": _sampled}
    op = rng.choice([*make])
    params, inputs = make[op](rng, a, b)
    return params | {"op": op}, inputs


def _graph(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    names = ("pagerank", "bfs", "sssp", "components", "triangles")
    algorithm = rng.choice(names)
    source = {"source": rng.choice((0, 0, 1))} if algorithm in ("bfs", "sssp") else {}
    return {"matrix": a.id, "algorithm": algorithm} | source, {}


def _chain(rng: Random, a: Stored, b: Stored) -> tuple[Any, Any]:
    """Parameters are none; the steps are `_steps`."""
    return {}, {"x": ([a.shape[1], *_pair(a)], None)}


def _steps(rng: Random, a: Stored, b: Stored, names: list[str], faults: int) -> Any:
    """A transpose, a product and what becomes of it, with some faults."""
    steps: list[Any] = [
        {"as": "t", "op": "transpose", "matrix": a.id},
        {"as": "p", "op": "spgemm", "matrix": "t", "keep": True,
         "other": rng.choice((a.id, a.id, b.id))},
        {"op": rng.choice(("norm", "sums", "diagonal", "add")), "matrix": "p",
         "keep": True},
    ]  # fmt: skip
    if steps[-1]["op"] == "add":
        steps[-1]["other"] = rng.choice(("p", b.id))
    if names:
        steps.append({"op": "spmv", "matrix": a.id, "inputs": {"x": names[0]}})
    for _ in range(faults):
        step = rng.choice(steps)
        if isinstance(step, dict):
            key = rng.choice([*step, "inputs", "mask", "keep", "as", "semiring"])
            step[key] = rng.choice((*ODD, "p", "t", "x", b.id))
        if rng.random() < 0.1:
            steps[rng.randrange(len(steps))] = rng.choice(ODD)
    return steps


#: Every operation and every kind of job, and how a right call is made.
CALLS: dict[str, Make] = {
    "ops/spmv": _spmv,
    "ops/spmm": _spmm,
    "ops/axpy": _axpy,
    "ops/dot": _vectors,
    "ops/spgemm": _product,
    "ops/add": _sum,
    "ops/scale": _scale,
    "ops/submatrix": _part,
    "ops/transpose": _one(conjugate=(True, False)),
    "ops/sddmm": _sampled,
    "ops/triangular_solve": _triangle,
    "ops/norm": _one(kind=("1", "inf", "fro", "max")),
    "ops/sums": _one(axis=(0, 1)),
    "ops/diagonal": _one(),
    "ops": _chain,
    "jobs/op": _op,
    "jobs/factorize": _one(),
    "jobs/graph": _graph,
    "jobs/eigs": _one(k=(1, 2), which=("largest", "smallest", "magnitude")),
    "jobs/solve": _solve,
    "jobs/cg": _cg,
    "jobs/lp": _lp,
}


def call(rng: Random, stored: Mapping[str, Stored], name: str) -> Call:
    """Make a call of one of `CALLS`, with up to three faults.

    Args:
        rng: Decides all.
        stored: Matrices that are there.
        name: Of the call.
    """
    a, b = rng.choice([*stored.values()]), rng.choice([*stored.values()])
    params, wanted = CALLS[name](rng, a, b)
    faults = rng.choice((0, 0, 1, 1, 2, 3))
    inputs = {
        key: _tensor(rng, shape, datatype, wild=faults > 0 and rng.random() < 0.4)
        for key, (shape, datatype) in wanted.items()
    }
    for _ in range(faults if name != "ops" else faults // 2):
        _spoil(rng, params, inputs, stored)
    place, _, kind = name.partition("/")
    value: dict[str, Any] = {"parameters": params, "inputs": []}
    if name == "ops":
        value["steps"] = _steps(rng, a, b, [*inputs], faults)
    if place == "jobs":
        value["kind"] = kind
    tail = b""
    for key, (array, datatype) in inputs.items():
        entry = {"name": key, "shape": [*array.shape], "datatype": datatype}
        plain = array.dtype.kind in "iub" or np.isfinite(array).all()
        if plain and datatype != "FP16" and rng.random() < 0.3:
            entry["data"] = array.ravel().tolist()
        else:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        value["inputs"].append(entry)
    if rng.random() < 0.1 and place == "ops":
        value["parameters"]["preflight"] = rng.choice((True, "exact", *ODD))
    return (f"/v1/{name}" if place == "ops" else "/v1/jobs"), value, tail


def packed(made: Call) -> tuple[bytes, int]:
    """Return the body of a call, and the length of its JSON part."""
    text = json.dumps(made[1]).encode()
    return text + made[2], len(text)


def _tensor(
    rng: Random, shape: list[int], datatype: str | None, *, wild: bool
) -> tuple[np.ndarray, str]:
    kind = datatype or "FP64"
    # What the widest matrix wants cannot be sent.
    shape = [3 if size > 1000 else size for size in shape]
    if wild:
        at = rng.randrange(len(shape) + 1)
        change = rng.randrange(6)
        if change == 0:
            shape.insert(at, rng.choice((0, 1, 2)))
        elif change == 1 and shape:
            del shape[min(at, len(shape) - 1)]
        elif change == 2 and shape:
            shape[min(at, len(shape) - 1)] = rng.choice((0, 1, 2, 7))
        elif change == 3:
            shape.reverse()
        else:
            kind = rng.choice([*TYPES])
    dtype, count = np.dtype(TYPES[kind]), math.prod(shape)
    if dtype.kind in "iub":
        bound = 1 << (8 * dtype.itemsize - 2)
        choices = (
            [0, 1, 2, 3, 0, 1, 2, -1 * (dtype.kind == "i"), bound]
            if wild
            else [0, 1, 2]
        )
        values = np.array([rng.choice(choices) for _ in range(count)])
    else:
        choices = _NUMBERS if wild else _NUMBERS[:6]
        values = np.array([rng.choice(choices) for _ in range(count)], np.float64)
    with np.errstate(all="ignore"):
        return values.astype(dtype).reshape(shape), kind


def _spoil(
    rng: Random,
    params: dict[str, Any],
    inputs: dict[str, tuple[np.ndarray, str]],
    stored: Mapping[str, Stored],
) -> None:
    """Put one thing into another's place."""
    what = rng.randrange(6)
    names = [*params, "matrix", "other", "alpha", "rows", "columns", "name", "timeout"]
    if what <= 1:
        params[rng.choice(names)] = rng.choice(ODD)
    elif what == 2:
        params[rng.choice(names)] = rng.choice([*stored.values()]).id
    elif what == 3 and params:
        del params[rng.choice([*params])]
    elif what == 4 and inputs:
        del inputs[rng.choice([*inputs])]
    else:
        name = rng.choice(("x", "y", "b", "rows", "columns", "c", "lc", "uv", "x0"))
        shape = [rng.randint(0, 6) for _ in range(rng.randint(0, 3))]
        inputs[name] = _tensor(rng, shape, None, wild=True)
