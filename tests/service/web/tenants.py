"""A server over the real worker that several people share, and what they send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from service.web.wire import as_npz, poisson, send

from nnz_kernels.backends import Backend
from nnz_service.dataplane import Admission, InlineDataplane, Page
from nnz_service.gateway import Limits
from nnz_service.jobs import SqlStore
from nnz_service.keys import AuditLog, KeyFile, Keyring, Scope
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.web.guard import Guard
from nnz_service.worker import Host, Toolbox

NPZ = {"Content-Type": "application/x-npz"}
#: Of a matrix that nobody has put.
ABSENT = "m-00000000deadbeef"


class House:
    """A server over the real worker, with two tenants and an admin."""

    def __init__(self, home: Path, limits: Limits | None = None) -> None:
        self.home = home
        self._limits = limits or Limits()
        algebra = frozenset({Scope.INFER, Scope.ALGEBRA})
        file = KeyFile(home)
        self.secrets = {
            "ann": file.create("ann", algebra)[1],
            "bob": file.create("bob", algebra)[1],
            "admin": file.create("admin", frozenset({Scope.ADMIN}))[1],
        }
        self.repository = Repository(home)
        self.jobs = SqlStore(home / "catalog.sqlite")
        self.address = ""
        self.page = Page()
        self._size = 10

    def app(self) -> Any:
        toolbox = Toolbox(Backend.REFERENCE)
        host = Host(self.repository, self.jobs, toolbox, page=self.page)
        limits = self._limits
        bounds = limits.max_inflight, limits.max_inflight_bytes
        return create_app(
            limits=limits,
            dataplane=InlineDataplane(host),
            repository=self.repository,
            jobs=self.jobs,
            admission=Admission(*bounds, self.page),
            guard=Guard(Keyring(None, self.home), AuditLog(self.home, 1 << 20)),
        )

    def client(self, who: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.secrets[who]}"}
        base = f"http://{self.address}"
        return httpx2.Client(base_url=base, headers=headers, timeout=60)

    def fresh(self) -> Any:
        """A matrix that nobody has put yet."""
        self._size += 1
        return poisson(self._size).tocsr()


def put(http: httpx2.Client, matrix: Any, name: str | None = None) -> httpx2.Response:
    params = {} if name is None else {"name": name}
    answer = http.post(
        "/v1/matrices", content=as_npz(matrix), headers=NPZ, params=params
    )
    assert answer.status_code in (200, 201), answer.text
    return answer


def listed(http: httpx2.Client) -> dict[str, str | None]:
    rows = http.get("/v1/matrices").json()["matrices"]
    return {row["id"]: row["name"] for row in rows}


def spmv(http: httpx2.Client, matrix: str, size: int) -> httpx2.Response:
    return send(http, "/v1/ops/spmv", {"x": np.ones(size)}, {"matrix": matrix})


def put_values(http: httpx2.Client, matrix: str, values: Any) -> httpx2.Response:
    data = {"name": "data", "shape": [len(values)], "datatype": "FP64", "data": values}
    return http.put(f"/v1/matrices/{matrix}/values", json={"inputs": [data]})
