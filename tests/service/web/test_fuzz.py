"""Whatever arrives, the answer is a 2xx or a 4xx with a reason, never a 5xx."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.web.near_misses import NEAR, PARAMETERS, REAL, SIZES, Spec
from service.web.wire import linear, put_matrix

# Any bytes may be a signalling NaN, at which numpy warns and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

LENGTH = "Inference-Header-Content-Length"
PATHS = (
    "/v2/models/double/infer",
    "/v1/ops/spmv",
    "/v1/ops/axpy",
    "/v1/jobs",
    "/v2/repository/index",
    "/v2/repository/models/double/load",
    "/v2/logging",
    "/v2/trace/setting",
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def bodies(
    draw: st.DrawFn, specs: list[Spec], parameters: dict[str, Any]
) -> tuple[Any, bytes]:
    """A right request with up to two faults: the JSON value and the binary tail.

    The bytes of binary tensors are any bytes: NaN, indices out of range.
    """
    tail = b""
    inputs: list[Any] = []
    for name, datatype, shape in specs:
        entry: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        count = math.prod(shape)
        if draw(st.booleans()):
            size = count * SIZES[datatype]
            entry["parameters"] = {"binary_data_size": size}
            tail += draw(st.binary(min_size=size, max_size=size))
        else:
            entry["data"] = draw(
                st.lists(st.integers(-1, 4), min_size=count, max_size=count)
            )
        inputs.append(entry)
    value: Any = {
        "inputs": inputs, "kind": "cg", "ready": True, "parameters": dict(parameters)
    }  # fmt: skip
    for _ in range(draw(st.integers(0, 2))):
        _spoil(draw, value)
    return (value if draw(st.integers(0, 20)) else draw(anything)), tail


def _spoil(draw: st.DrawFn, value: dict[str, Any]) -> None:
    """Replace one member."""
    where = draw(st.sampled_from(["input", "input", "input", "outputs", "top", "key"]))
    if where == "input" and value["inputs"] and isinstance(value["inputs"], list):
        entry = value["inputs"][0]
        key = draw(st.sampled_from(sorted(NEAR)))
        entry[key] = draw(st.sampled_from(NEAR[key]) | anything)
    elif where == "outputs":
        wanted = {"name": "y", "parameters": {"binary_data": draw(anything)}}
        value["outputs"] = draw(st.just([{"name": "y"}]) | st.just([wanted]) | anything)
    elif where == "key":
        key = draw(st.sampled_from(PARAMETERS))
        if isinstance(value["parameters"], dict):
            value["parameters"][key] = draw(anything)
    else:
        key = draw(st.sampled_from(["id", "parameters", "kind", "ready", "outputs"]))
        value[key] = draw(anything)


@pytest.fixture(scope="module")
def http(server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{server}", timeout=30) as client:
        yield client


def post(
    http: httpx2.Client, path: str, body: tuple[Any, bytes], shift: int | None
) -> httpx2.Response:
    """Send JSON and tail under a header length that is off by `shift`."""
    text = json.dumps(body[0]).encode()
    headers = {} if shift is None else {LENGTH: str(len(text) + shift)}
    return http.post(path, content=text + body[1], headers=headers)


def check(answer: httpx2.Response, path: str) -> None:
    assert answer.status_code < 500, (path, answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.json()["error"]


#: How far the header length is off; None sends none.
SHIFTS = st.sampled_from([0] * 8 + [None, -1, 1, 10**9])

settings.register_profile(
    "http",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestBodies:
    @given(
        path=st.sampled_from((*PATHS[:1] * 4, *PATHS)),
        body=st.integers(0, 3).flatmap(lambda n: bodies([("x", "FP32", [n, 3])], {})),
        shift=SHIFTS,
    )
    @settings(settings.get_profile("http"), max_examples=200)
    def test_structured(
        self,
        http: httpx2.Client,
        path: str,
        body: tuple[Any, bytes],
        shift: int | None,
    ) -> None:
        """JSON that is nearly right, a tail, and a header length that may lie."""
        check(post(http, path, body, shift), path)

    @given(
        path=st.sampled_from(PATHS),
        content=st.binary(max_size=64),
        length=st.none() | st.integers(-2, 70).map(str),
        encoding=st.sampled_from([None, "gzip", "deflate", "br", "identity"]),
    )
    @settings(settings.get_profile("http"), max_examples=200)
    def test_bytes(
        self,
        http: httpx2.Client,
        path: str,
        content: bytes,
        length: str | None,
        encoding: str | None,
    ) -> None:
        """Any bytes under any header length and encoding."""
        given = {LENGTH: length, "Content-Encoding": encoding}
        headers = {name: value for name, value in given.items() if value is not None}

        check(http.post(path, content=content, headers=headers), path)

    @given(
        verb=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
        parts=st.lists(
            st.sampled_from(
                ["v1", "v2", "models", "matrices", "jobs", "ops", "double", "stats",
                 "versions", "1", "infer", "config", "%00", "..", "%2e%2e", "é", ""]
            ),
            max_size=6,
        ),
        query=st.sampled_from(["", "?wait=1e400", "?limit=0", "?version=%00", "?%ff"]),
    )  # fmt: skip
    @settings(settings.get_profile("http"), max_examples=200)
    def test_paths(
        self, http: httpx2.Client, verb: str, parts: list[str], query: str
    ) -> None:
        """Any verb on any path."""
        path = "/" + "/".join(parts) + query
        answer = http.request(verb, f"{str(http.base_url).rstrip('/')}{path}")

        assert answer.status_code < 500, (verb, path, answer.text)


@pytest.fixture(scope="module")
def matrix(real_server: str) -> str:
    """Id of the resident matrix; the model is there then too."""
    with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as client:
        assert client.put("/v1/models/fuzzed", content=linear()).status_code == 201
        return put_matrix(client, scipy.sparse.csr_array(np.eye(3, dtype="f4")))


class TestRealWorker:
    @given(data=st.data(), call=st.sampled_from(REAL), shift=SHIFTS)
    @settings(settings.get_profile("http"), max_examples=250)
    def test_structured(
        self,
        real: httpx2.Client,
        matrix: str,
        data: st.DataObject,
        call: tuple[str, list[Spec], dict[str, Any]],
        shift: int | None,
    ) -> None:
        """Nothing that the codec lets through makes the worker fail."""
        path, specs, parameters = call
        path = path.format(matrix=matrix)
        parameters = {**parameters}
        if "matrix" in parameters:
            parameters["matrix"] = matrix
        body = data.draw(bodies(specs, parameters))

        check(post(real, path, body, shift), path)
