"""Whatever the served description allows, and much that it does not, is answered as
the description says: codes, media types, headers, bodies.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
import requests
import schemathesis
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi import checks
from service.web.wire import linear, put_matrix, send
from soak.duration import CASES

from nnz_service.web.routers import ROUTERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + CASES / 100)]

#: A piece of a file is bytes like any other.
schemathesis.serializer.alias("application/partial-upload", "application/octet-stream")

OPERATIONS = sorted(
    (verb, route.path)
    for router in ROUTERS
    for route in router.routes
    if route.include_in_schema
    for verb in route.methods
)
#: Requests for each operation.
EXAMPLES = max(20, CASES // 500)
#: Answers of the server's own faults that are no faults of its code.
_FAIR = frozenset({501, 503, 504})
#: Seconds for an answer; the longest poll that is generated ends at once, since the
#: job that exists has ended.
_BOUND = 30.0


@pytest.fixture(scope="module")
def schema(real_server: str) -> BaseSchema:
    """What `real_server` says of itself."""
    return schemathesis.openapi.from_url(f"http://{real_server}/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.fixture(scope="module")
def uploads(real: httpx2.Client) -> list[str]:
    """Ids of uploads that were begun; the last is the one to use."""
    begun = real.post("/v1/uploads")
    assert begun.status_code == 201, begun.text
    return [begun.json()["id"]]


@pytest.fixture
def there(real: httpx2.Client, uploads: list[str]) -> dict[str, str]:
    """Names of things that are there and ready, whatever was asked before."""
    if real.post("/v1/models/there/load").status_code != 200:
        assert real.put("/v1/models/there", content=linear()).status_code == 201
    stored = real.get("/v1/matrices").json()["matrices"]
    diagonal = scipy.sparse.csr_array(np.eye(3))
    matrix = stored[0]["id"] if stored else put_matrix(real, diagonal)
    assert real.post(f"/v2/repository/models/{matrix}/load").status_code == 200
    asked = {"matrix": matrix, "maxiter": 5}
    submitted = send(real, "/v1/jobs", {"b": np.ones(3)}, asked, kind="cg")
    job = submitted.json()["id"]
    assert real.get(f"/v1/jobs/{job}?wait=30").json()["status"] == "succeeded"
    if real.head(f"/v1/uploads/{uploads[-1]}").status_code == 404:
        begun = real.post("/v1/uploads")  # refused when strangers have begun too many
        uploads += [begun.json()["id"]] if begun.is_success else []
    return {
        "name": "there", "version": "1", "matrix_id": matrix, "job_id": job,
        "op": "spmv", "upload_id": uploads[-1],
    }  # fmt: skip


def no_fault(_: CheckContext, response: Response, case: Case) -> None:
    """The server has no fault of its own."""
    code = response.status_code
    assert code < 500 or code in _FAIR, f"{case.operation.label}: {response.text}"


CHECKS = [
    no_fault,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.mark.parametrize(("verb", "path"), OPERATIONS)
def test_every_answer(
    verb: str,
    path: str,
    schema: BaseSchema,
    session: requests.Session,
    there: dict[str, str],
) -> None:
    """Of every operation, on things that are there and on any others."""
    operation = schema[path][verb.lower()]
    real = {name: value for name, value in there.items() if f"{{{name}}}" in path}
    cases = [
        operation.as_strategy(mode, path_parameters=names)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for names in (real, None)
    ]

    @given(case=st.one_of(cases))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Case) -> None:
        response = case.call(session=session, timeout=_BOUND)
        case.validate_response(response, checks=CHECKS)

    check()
