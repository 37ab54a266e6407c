"""Calls about matrices that are nearly right: each refusal says what would be."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix, send

MATRIX = scipy.sparse.csr_array(np.array([[4.0, 1, 0], [1, 4, 1], [0, 1, 4]]))
B = np.ones(3)


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, MATRIX)


@pytest.mark.parametrize(
    ("verb", "path", "code", "says"),
    [
        ("GET", "/v1/matrices/{a}/spy?size=15", 400, "greater than or equal to 16"),
        ("GET", "/v1/matrices/{a}/spy?size=2049", 400, "less than or equal to 2048"),
        ("GET", "/v1/matrices/{a}/spy?size=x", 400, "size"),
        ("GET", "/v1/matrices/m-0/spy", 404, "there is no matrix 'm-0'"),
        ("POST", "/v1/matrices/{a}0/load", 404, "there is no matrix"),
        ("POST", "/v1/matrices/M-0123456789ABCDEF/unload", 404, "there is no matrix"),
        ("POST", "/v1/matrices/m-0123456789abcdef/pin", 404, "there is no matrix"),
        ("POST", "/v1/matrices/fuzzed/unpin", 404, "there is no matrix 'fuzzed'"),
        ("GET", "/v1/matrices/{a}/pin", 405, "POST"),
        ("POST", "/v1/matrices/{a}/values", 405, "PUT"),
        ("PUT", "/v1/matrices/{a}/values?upload=u-0", 404, "no upload 'u-0'"),
        ("PUT", "/v1/matrices/{a}/values", 400, "the body is empty"),
        ("POST", "/v1/matrices", 415, "Content-Type '' is not that of a matrix"),
        ("PATCH", "/v1/uploads/u-0", 400, "Upload-Offset is missing"),
        ("HEAD", "/v1/uploads/..", 404, ""),
    ],
)
def test_looks_and_places(
    real: httpx2.Client, a: str, verb: str, path: str, code: int, says: str
) -> None:
    answer = real.request(verb, path.format(a=a))

    assert answer.status_code == code, answer.text
    assert says in answer.text


@pytest.mark.parametrize(
    ("kind", "inputs", "params", "code", "says"),
    [
        ("solve", {"b": B[:2]}, {}, 422, "b has shape [2]; the matrix needs [3]"),
        ("solve", {"b": B, "x0": B[:2]}, {}, 422, "x0 has shape [2]"),
        ("solve", {"x0": B}, {}, 422, "takes the inputs b"),
        ("solve", {"b": B * np.nan}, {}, 422, "the first at 0"),
        ("solve", {"b": np.ones((3, 257))}, {}, 422, "must be 1 to 256"),
        ("solve", {"b": B}, {"method": "cgs"}, 422, "method is 'cgs'"),
        ("solve", {"b": B}, {"method": ["cg"]}, 422, "method is ['cg']"),
        ("solve", {"b": B}, {"restart": 1001}, 422, "from 1 to 1000"),
        ("solve", {"b": B}, {"maxiter": 0}, 422, "maxiter is 0"),
        ("solve", {"b": B}, {"maxiter": 1.0}, 400, "a whole number"),
        ("solve", {"b": B}, {"rtol": "tight"}, 400, "rtol is 'tight'"),
        ("solve", {"b": B}, {"rtol": -1}, 422, "rtol is -1"),
        ("solve", {"b": B}, {"tolerance": 1}, 400, "no parameter 'tolerance'"),
        ("solve", {"b": B}, {"preconditioner": "ilu0"}, 422, "preconditioner of cg"),
        ("cg", {"b": B}, {"method": "gmres"}, 400, "cg has no parameter 'method'"),
        ("cgs", {"b": B}, {}, 422, "there is no kind of job 'cgs'"),
        ("lp", {"c": B, "lc": B, "uc": -B}, {}, 422, "lc[0] is 1.0, but uc[0] is -1.0"),
        ("lp", {"c": B[:2]}, {}, 422, "c has shape [2]"),
        ("lp", {"c": B, "lv": B * np.nan}, {}, 422, "lv holds a NaN at 0"),
        ("lp", {"c": B, "lc": B * np.inf}, {}, 422, "lc[0] is inf; it must be below"),
        ("lp", {"c": B, "uv": -B * 1e20}, {}, 422, "uv[0] is -1e+20; it must be above"),
        ("lp", {"c": B, "b": B}, {}, 422, "lp has no input 'b'"),
        ("lp", {"c": B}, {"method": "simplex"}, 422, "method is 'simplex'"),
        ("lp", {"c": B}, {"eps_rel": 1}, 422, "from 0 to below 1"),
        ("lp", {"c": B}, {"max_iterations": 1.5}, 422, "a whole number"),
        ("lp", {"c": B}, {"maximize": 1}, 400, "true or false"),
    ],
)
def test_jobs(
    real: httpx2.Client,
    a: str,
    kind: str,
    inputs: dict[str, Any],
    params: dict[str, Any],
    code: int,
    says: str,
) -> None:
    answer = send(real, "/v1/jobs", inputs, {"matrix": a} | params, kind=kind)

    assert answer.status_code == code, answer.text
    assert says in answer.json()["error"]
