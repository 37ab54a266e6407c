"""A file on its whole way: sent, looked at, computed with and deleted again.

Who sends it is alone and keeps nothing, so that every answer is known beforehand.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import numpy as np
import orjson
import scipy.sparse as sp
from service.algebra.broken_files import CSR, MPS, look_at, spoil, whole_files
from service.web.test_wild import UNFORESEEN
from service.web.wild import CALLS, Stored, call, packed
from soak.duration import SEED
from soak.mutations import pieces

from nnz_kernels.convert import csr_to_scipy
from nnz_service.algebra.files import read_resident
from nnz_service.errors import ServiceError, TooLargeError

LENGTH = "Inference-Header-Content-Length"
#: What a caller may simply repeat.
_FAIR = frozenset({503, 504})
#: Columns up to which products are tried: x is sent.
_WIDE = 1000
_FILES = whole_files()


class Tenant:
    """Sends files one after the other, and leaves nothing behind.

    Args:
        url: Of the server.
        folder: For files of its own.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.http = httpx2.Client(base_url=url, timeout=60)
        self._path = folder / "file"
        self.seen: Counter[str] = Counter()
        self.slowest = 0.0

    def run(self, numbers: range) -> None:
        """Live through cases."""
        for number in numbers:
            rng = Random(f"{SEED}:{number}:life")  # noqa: S311 - no secret
            self._about: tuple[Any, ...] = (SEED, number)
            try:
                self._life(rng)
            except Exception as error:
                raise AssertionError(self._about) from error

    def _life(self, rng: Random) -> None:
        kind, content, fault = self._file(rng)
        self._about = *self._about, kind, content
        if isinstance(fault, TooLargeError):
            return  # a server of this machine may allow it, and it takes long
        if rng.random() < 0.5:
            answer = self._in_pieces(rng, kind, content)
        else:
            answer = self._sent(
                "POST", "/v1/matrices", content=content, headers=_headers(kind)
            )
        self._about = *self._about, str(fault), answer.text
        self.seen[f"{kind.partition(';')[0]} {answer.status_code}"] += 1
        if fault is not None:
            empty = {409} if not content else set()  # pieces of nothing are not all
            assert answer.status_code in {400, 413, 422} | empty
            return
        assert answer.status_code in (200, 201)
        self._use(rng, answer.json(), kind)

    def _file(self, rng: Random) -> tuple[str, bytes, ServiceError | None]:
        """Return a broken file; half of them are still of use."""
        tries = 20 if rng.random() < 0.5 else 1
        for _ in range(tries):
            kind, content = rng.choice(_FILES)
            content = spoil(rng, content)
            self._path.write_bytes(content)
            fault = look_at(self._path, kind)
            if fault is None:
                break
        return kind, content, fault

    def _in_pieces(self, rng: Random, kind: str, content: bytes) -> httpx2.Response:
        told = {"Upload-Length": str(len(content))} if rng.random() < 0.5 else {}
        begun = self._sent("POST", "/v1/uploads", headers=told)
        assert begun.status_code == 201, begun.text
        upload, at = f"/v1/uploads/{begun.json()['id']}", 0
        for piece in pieces(rng, content, 3):
            if rng.random() < 0.2:  # one that does not fit
                wrong = {"Upload-Offset": str(at + rng.choice((1, 7, 2**40)))}
                assert self._sent("PATCH", upload, piece, wrong).status_code == 409
            sent = self._sent("PATCH", upload, piece, {"Upload-Offset": str(at)})
            assert sent.status_code == 204, sent.text
            at += len(piece)
            assert sent.headers["Upload-Offset"] == str(at)
        query = f"/v1/matrices?upload={begun.json()['id']}"
        answer = self._sent("POST", query, headers=_headers(kind))
        left = self._sent("HEAD", upload).status_code
        assert left == (204 if answer.status_code >= 400 else 404)
        if left == 204:
            assert self._sent("DELETE", upload).status_code == 204
        return answer

    def _use(self, rng: Random, row: dict[str, Any], kind: str) -> None:
        matrix = read_resident(self._path.with_suffix(".resident"))
        where = f"/v1/matrices/{row['id']}"
        info = self._sent("GET", where).json()
        assert (info["shape"], info["nnz"]) == ([*matrix.shape], matrix.nnz), info
        picture = self._sent("GET", f"{where}/spy?size={rng.choice((16, 200, 2048))}")
        assert picture.content.startswith(b"\x89PNG"), picture.text
        a = csr_to_scipy(matrix)
        self._entries(where, a)
        if a.shape[1] <= _WIDE:
            self._product(row["id"], a)
        stored = {"it": Stored(row["id"], a.shape, a.nnz, a.dtype.kind)}
        ops = [name for name in CALLS if name.startswith("ops/")]
        self._call(rng, stored, rng.choice(ops))
        if kind == MPS:
            self._solve(rng, row["id"])
        assert self._sent("DELETE", where).status_code == 204
        assert self._sent("GET", where).status_code == 404

    def _entries(self, where: str, a: sp.csr_array) -> None:
        answer = self._sent("GET", f"{where}/content")
        names = {"indptr": a.indptr, "indices": a.indices, "data": a.data}
        at = int(answer.headers[LENGTH])
        for output in orjson.loads(answer.content[:at])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            wanted = names.pop(output["name"])
            assert answer.content[at : at + size] == wanted.tobytes(), output
            at += size
        assert not names

    def _product(self, name: str, a: sp.csr_array) -> None:
        pair = [2] if a.dtype.kind == "c" else []
        x = np.ones([a.shape[1], *pair])
        value = {
            "parameters": {"matrix": name, "binary_data_output": True},
            "inputs": [
                {"name": "x", "shape": [*x.shape], "datatype": "FP64",
                 "parameters": {"binary_data_size": x.nbytes}}
            ],
        }  # fmt: skip
        made = ("/v1/ops/spmv", value, x.tobytes())
        answer = self._asked(made)
        assert answer.status_code == 200, answer.text
        found = np.frombuffer(answer.content[int(answer.headers[LENGTH]) :], a.dtype)
        if np.isfinite(a.data).all():
            with np.errstate(all="ignore"):
                right = a @ (x if not pair else x @ [1, 1j]).astype(a.dtype)
                size = abs(a) @ np.full(a.shape[1], 2.0)
                close = abs(found - right) <= 1e-5 * size
            assert (close | ~np.isfinite(size)).all(), (found, right)

    def _call(self, rng: Random, stored: dict[str, Stored], name: str) -> None:
        made = call(rng, stored, name)
        answer = self._asked(made)
        self.seen[f"{name} {answer.status_code}"] += 1
        about = (made, answer.text[:500])
        assert answer.status_code < 500 or answer.status_code in _FAIR, about
        if answer.status_code >= 400:
            assert not UNFORESEEN.search(answer.json()["error"]), about

    def _solve(self, rng: Random, name: str) -> None:
        params = {
            "matrix": name, "time_limit": 2, "max_iterations": 500,
            "method": rng.choice(("pdhg", "pdhg", "highs", "auto")),
            "presolve": rng.random() < 0.2,
        }  # fmt: skip
        made = ("/v1/jobs", {"kind": "lp", "parameters": params, "inputs": []}, b"")
        answer = self._asked(made)
        self.seen[f"lp {answer.status_code}"] += 1
        assert answer.status_code == 202, answer.text
        job = self._sent("GET", f"/v1/jobs/{answer.json()['id']}?wait=60").json()
        status = (job.get("result") or {}).get("status")
        self.seen[f"lp {job['status']} {status}"] += 1
        assert job["status"] in ("succeeded", "failed"), job
        assert not UNFORESEEN.search(job["error"] or ""), job

    def clear(self) -> bool:
        """Delete jobs and matrices; returns whether there were any."""
        jobs = self._sent("GET", "/v1/jobs").json()["jobs"]
        held = self._sent("GET", "/v1/matrices").json()["matrices"]
        for kind, rows in (("jobs", jobs), ("matrices", held)):
            for row in rows:
                gone = self._sent("DELETE", f"/v1/{kind}/{row['id']}")
                assert gone.status_code == 204, gone.text
        return bool(jobs or held)

    def _asked(self, made: tuple[str, dict[str, Any], bytes]) -> httpx2.Response:
        content, length = packed(made)
        return self._sent("POST", made[0], content, {LENGTH: str(length)})

    def _sent(
        self,
        verb: str,
        path: str,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        began = time.monotonic()
        answer = self.http.request(verb, path, content=content, headers=headers)
        if "wait=" not in path:
            self.slowest = max(self.slowest, time.monotonic() - began)
        return answer


def _headers(kind: str) -> dict[str, str]:
    name, _, _ = kind.partition(";")
    told = {LENGTH: kind.removeprefix(CSR)} if kind.startswith(CSR) else {}
    return {"Content-Type": name} | told
