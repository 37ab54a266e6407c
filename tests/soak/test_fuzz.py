"""Broken bytes, wild calls and broken files by the thousand: none leaves a trace.

One server takes them all. A case is made from the seed and its number alone; both are
named when one fails.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import httpx2
import pytest
import scipy.sparse as sp
from service.processes import Server, resident, until
from service.web.test_wild import UNFORESEEN
from service.web.wild import CALLS, Stored, matrices
from service.web.wire import linear
from soak.byte_lane import DIAGONAL, ByteLane
from soak.call_lane import CallLane
from soak.conftest import Serve, idle
from soak.duration import CASES, LIVES, SEED
from soak.file_lives import Tenant
from soak.load import callers
from soak.mutations import OPERATORS
from soak.raw import BOUND

from nnz_kernels.convert import canonical, csr_from_scipy
from nnz_service.algebra.files import write_resident
from nnz_service.repository import Repository
from nnz_service.servable import entry_type

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + CASES / 20)]

#: Connections at once.
LANES = 4
SLOTS = 16
#: Of all cases: broken bytes, and as many wild calls.
SHARE = CASES // 4
#: Cases from which on every kind of refusal is among them.
_MANY = 2000
#: Bytes by which a process may grow, with broken bytes and with calls.
_BYTES_GROWTH, _CALLS_GROWTH = 64 << 20, 256 << 20
_KINDS = "supervisor", "web", "worker"


class Lane(Protocol):
    """Sends cases one after the other."""

    slowest: float

    def run(self, numbers: range) -> None:
        """Send those of these numbers."""
        ...


def stored(home: Path, a: Mapping[str, sp.csr_array]) -> dict[str, Stored]:
    """Put matrices into a home in which no server runs."""
    repository, found = Repository(home), {}
    for name, one in a.items():
        matrix = canonical(csr_from_scipy(one))
        path = repository.blobs.staged()
        write_resident(matrix, path)
        info = {
            "shape": matrix.shape,
            "nnz": matrix.nnz,
            "dtype": entry_type(matrix.data.dtype),
            "index_dtype": entry_type(matrix.indices.dtype),
        }
        record, _ = repository.put_matrix(repository.blobs.adopt(path), info)
        found[name] = Stored(record.id, one.shape, one.nnz, one.dtype.kind)
    repository.close()
    return found


def test_hostile_callers(
    tmp_path: Path, folder: Path, serve: Serve, a: sp.csr_array
) -> None:
    """Each case ends in time, never in a 5xx, in the same processes; nothing stays."""
    more = {"a": a, "fuzzed": sp.diags_array(DIAGONAL).tocsr()}
    there = stored(tmp_path / "home", matrices() | more)
    server = serve(max_inflight=SLOTS, job_keep=100_000)
    pids = _pids(server)
    broken_bytes(server, there.pop("fuzzed").id, a, there.pop("a").id)
    wild_calls(server, there)
    files(server, folder)
    assert pids == _pids(server)


def broken_bytes(server: Server, fuzzed: str, a: sp.csr_array, other: str) -> None:
    """Send broken requests on raw sockets; every slot is free in the end."""
    model = httpx2.put(f"{server.url}/v1/models/fuzzed", content=linear(), timeout=60)
    assert model.status_code == 201
    lanes = [ByteLane(server.url, fuzzed) for _ in range(LANES)]
    growth = grown(server, lanes)

    seen = sum((lane.seen for lane in lanes), Counter())
    print(f"bytes: {_told(lanes, SHARE)}, grown by {growth}, {dict(seen)}")
    until(lambda: idle(server))
    with callers(server.url, a, other, number=SLOTS) as counts:
        time.sleep(1.0)
    assert counts.faultless()
    assert counts.codes[429] == 0  # each of the slots is free
    assert seen.keys() >= {operator.__name__ for operator in OPERATORS}
    assert seen.keys() >= {200, 400, 413, 415, 422, 431} or SHARE < _MANY
    assert max(growth) < _BYTES_GROWTH


def wild_calls(server: Server, there: dict[str, Stored]) -> None:
    """Call operations and submit jobs; those end too, and for a reason."""
    lanes = [CallLane(server.url, there) for _ in range(LANES)]
    growth = grown(server, lanes)
    for lane in lanes:
        lane.close()

    until(lambda: _ended(server.url), 600)
    seen = sum((lane.seen for lane in lanes), Counter())
    codes: Counter[int] = Counter()
    for (_, status), count in seen.items():
        codes[status] += count
    print(f"calls: {_told(lanes, SHARE)}, grown by {growth}, {dict(codes)}")
    until(lambda: idle(server))
    for name in CALLS:
        done = sum(seen[name, status] for status in (200, 201, 202))
        assert done > 0 or SHARE < _MANY, name
    assert max(growth) < _CALLS_GROWTH


def files(server: Server, folder: Path) -> None:
    """Send broken files on their whole way; all that is there is deleted with them."""
    tenant, began = Tenant(server.url, folder), time.monotonic()
    tenant.run(range(LIVES))
    while tenant.clear():
        pass
    tenant.http.close()
    rate = LIVES / (time.monotonic() - began)
    print(f"files: {LIVES} lives, {rate:.1f}/s, slowest {tenant.slowest:.2f} s, "
          f"{dict(tenant.seen)}")  # fmt: skip
    assert tenant.slowest < BOUND
    assert httpx2.delete(f"{server.url}/v1/models/fuzzed").status_code == 204
    blobs = server.home / "blobs"
    until(lambda: not [path for path in blobs.rglob("*") if path.is_file()])
    # What the last ones became is known for an hour; nothing else is there.
    assert {path.suffix for path in (server.home / "uploads").glob("*")} <= {".json"}


def grown(server: Server, lanes: Sequence[Lane]) -> list[int]:
    """Run all lanes; return by how many bytes processes grew after the first cases."""
    run(lanes, range(warm := min(SHARE // 4, 1000)))
    before = [resident(pid) for pid in _pids(server)]
    run(lanes, range(warm, SHARE))
    assert max(lane.slowest for lane in lanes) < BOUND
    return [resident(p) - b for p, b in zip(_pids(server), before, strict=True)]


def run(lanes: Sequence[Lane], numbers: range) -> None:
    """Give every lane its share."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        shares = [numbers[at :: len(lanes)] for at in range(len(lanes))]
        list(pool.map(lambda lane, share: lane.run(share), lanes, shares))


def _pids(server: Server) -> list[int]:
    return [server.process.pid, *(server.child(kind) for kind in _KINDS[1:])]


def _told(lanes: Sequence[Lane], cases: int) -> str:
    slowest = max(lane.slowest for lane in lanes)
    return f"seed {SEED}, {cases} cases, slowest {slowest:.2f} s"


def _ended(url: str) -> bool:
    """Whether no job is under way; those that ended did so for a reason."""
    for status in ("queued", "running"):
        if httpx2.get(f"{url}/v1/jobs?limit=1&status={status}").json()["jobs"]:
            return False
    failed = httpx2.get(f"{url}/v1/jobs?limit=1000&status=failed").json()["jobs"]
    for job in failed:
        assert not UNFORESEEN.search(job["error"]), job
    return True
