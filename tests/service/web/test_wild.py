"""Every operation and job under wild parameters: no fault is the server's."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import httpx2
import pytest
from service.web.wild import CALLS, Stored, call, matrices, packed
from service.web.wire import put_matrix

# Any bytes may be a signalling NaN, at which numpy warns and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")

#: Calls of each kind.
CASES = 45
#: What an error that nobody foresaw looks like.
UNFORESEEN = re.compile(r"\b[A-Z]\w+(Error|Exception|Warning): ")


@pytest.fixture(scope="module")
def stored(real: httpx2.Client) -> dict[str, Stored]:
    found = {}
    for name, matrix in matrices().items():
        key = put_matrix(real, matrix)
        found[name] = Stored(key, matrix.shape, matrix.nnz, matrix.dtype.kind)
    return found


@pytest.mark.parametrize("name", [*CALLS])
def test_no_call_is_the_servers_fault(
    real: httpx2.Client, stored: dict[str, Stored], name: str
) -> None:
    """Each is done or refused with a reason, and some of each are done."""
    seen: Counter[int] = Counter()
    for number in range(CASES):
        made = call(Random(f"{name}:{number}"), stored, name)  # noqa: S311 - no secret
        content, length = packed(made)
        headers = {"Inference-Header-Content-Length": str(length)}

        answer = real.post(made[0], content=content, headers=headers)

        seen[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in (503, 504), (
            number, made, answer.text,
        )  # fmt: skip
        if answer.status_code >= 400:
            assert not UNFORESEEN.search(answer.json()["error"]), (number, made)
    assert seen[200] + seen[201] + seen[202] > CASES // 20, seen
    assert seen[422] > 0, seen


def test_no_job_fails_for_no_reason(
    real: httpx2.Client, stored: dict[str, Stored]
) -> None:
    """What was taken on ends, or fails with a reason that is the caller's."""
    for row in real.get("/v1/jobs?limit=1000").json()["jobs"]:
        job = real.get(f"/v1/jobs/{row['id']}?wait=60").json()
        assert job["status"] in ("succeeded", "failed"), job
        assert not UNFORESEEN.search(job["error"] or ""), job
