"""The SDK against ``nnz serve``: real processes, real sockets, real restarts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import scipy.sparse as sp

import nnz
from nnz import AsyncClient, Client, RetryPolicy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SDK = ROOT / "clients" / "python"
DIGITS = ROOT / "deploy" / "demo" / "digits_sparse.onnx"
KEY = "a key for this test"
#: Seconds; a first start compiles every kernel.
START_LIMIT = 240.0
#: Outlasts the restart of a process.
PATIENT = RetryPolicy(retries=60, first=0.5, longest=2.0)


@dataclass
class Served:
    url: str
    process: subprocess.Popen[bytes]

    def children(self) -> dict[str, int]:
        """Process ids of the web process and the worker."""
        pid = self.process.pid
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        words = {int(p): Path(f"/proc/{p}/cmdline").read_bytes() for p in pids}
        return {
            name: p
            for p, line in words.items()
            for name in ("web", "worker")
            if f"{name}_main".encode() in line
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("serve") / "home"
    log = home.with_name("log")
    command = [Path(sys.executable).with_name("nnz"), "serve", "--port", "0"]
    environment = {
        **os.environ,
        "NNZ_HOME": str(home),
        "NNZ_API_KEY": KEY,
        "NNZ_THREADS": "1",
    }
    environment.pop("NNZ_URL", None)
    # Shared with other runs, so that only the first one waits for the compiler.
    cache = Path(platformdirs.user_cache_dir("nnz")) / "numba"
    environment.setdefault("NUMBA_CACHE_DIR", str(cache))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Served(_wait(process, home, log), process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()


def _wait(process: subprocess.Popen[bytes], home: Path, log: Path) -> str:
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until and process.poll() is None:
        try:
            url = str(json.loads((home / "run" / "server.json").read_text())["url"])
        except (OSError, ValueError):
            url = ""
        if url:
            with Client(url) as client:
                if client.server.ready():
                    return url
        time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


def test_the_key_is_needed(served: Served) -> None:
    with Client(served.url) as client:
        assert client.server.ready()
        with pytest.raises(nnz.AuthenticationError):
            client.server.metadata()
    with Client(served.url, api_key=KEY) as client:
        assert client.server.metadata().name == "nnz"


def test_a_model_from_disk_and_back(served: Served) -> None:
    with Client(served.url, api_key=KEY) as client:
        model = client.models.put("digits", DIGITS)
        out = model.infer(np.zeros((3, 1, 16, 16), np.float32))

    (array,) = out.values()
    assert array.shape == (3, 10)


def test_large_operands_travel_whole(served: Served) -> None:
    n = 1_500_000  # 12 MB each way
    x = np.random.default_rng(0).random(n)

    with Client(served.url, api_key=KEY) as client:
        matrix = client.matrices.put(sp.eye_array(n, format="csr") * 2.0)
        np.testing.assert_array_equal(matrix @ x, 2 * x)


async def test_many_at_once(served: Served) -> None:
    matrix = sp.random_array((300, 200), density=0.1, rng=np.random.default_rng(1))
    vectors = np.random.default_rng(2).random((64, 200))

    async with AsyncClient(served.url, api_key=KEY) as client:
        remote = await client.matrices.put(matrix)
        products = await asyncio.gather(*(remote.matvec(v) for v in vectors))

    np.testing.assert_allclose(products, vectors @ matrix.T.toarray(), rtol=1e-10)


def test_an_upload_that_is_too_large_is_refused_early(served: Served) -> None:
    x = np.zeros((1, 1, 4096, 4096 * 2), np.float32)  # 128 MiB, above the limit

    with (
        Client(served.url, api_key=KEY) as client,
        pytest.raises(nnz.TooLargeError),
    ):
        client.infer("digits", {"x": x})


@pytest.mark.parametrize("victim", ["worker", "web"])
def test_the_end_of_a_process_is_hidden_by_retries(served: Served, victim: str) -> None:
    matrix = sp.diags_array([1.0, 2.0, 3.0])

    with Client(served.url, api_key=KEY, retries=PATIENT) as client:
        remote = client.matrices.put(matrix)
        before = served.children()
        os.kill(before[victim], signal.SIGKILL)
        products = [remote @ np.ones(3) for _ in range(20)]

    assert all(product.tolist() == [1, 2, 3] for product in products)
    assert served.children()[victim] != before[victim]


def test_a_job_outlives_the_worker(served: Served) -> None:
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20_000, 20_000))
    b = np.ones(20_000)

    with Client(served.url, api_key=KEY, retries=PATIENT) as client:
        remote = client.matrices.put(line)
        job = client.jobs.cg(remote, b, rtol=1e-6, maxiter=40_000)
        os.kill(served.children()["worker"], signal.SIGKILL)
        result = job.result(timeout=120)

    assert result.converged
    assert np.linalg.norm(b - line @ result.x) <= 1e-6 * np.linalg.norm(b)


def run(served: Served, *words: str | Path) -> str:
    environment = {**os.environ, "NNZ_URL": served.url, "NNZ_API_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run(served: Served) -> None:
    inferred = run(served, SDK / "examples" / "infer.py", DIGITS, "4")
    solved = run(served, SDK / "examples" / "solve.py", "20")

    assert "float32 (4, 10)" in inferred
    residuals = re.findall(r"relative residual (\S+)", solved)
    assert [float(residual) <= 1.01e-8 for residual in residuals] == [True, True]
    assert "job of nnz: converged" in solved
