"""The server inside this process, through the SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from service.processes import until

from nnz import Client, NotFoundError
from nnz_service.local import open_local


def poisson(n: int) -> sp.csr_array:
    return sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()


def test_matrix_and_job() -> None:
    before = set(threading.enumerate())
    matrix = poisson(50)
    with Client.local(threads=1) as client:
        handle = client.matrices.put(matrix)

        np.testing.assert_allclose(handle @ np.ones(50), matrix @ np.ones(50))
        solved = client.jobs.cg(handle, np.ones(50), rtol=1e-10).result(60)

        np.testing.assert_allclose(matrix @ solved.x, np.ones(50), atol=1e-8)
    until(lambda: set(threading.enumerate()) <= before)


_WAITED = """
import numpy as np
import scipy.sparse as sp
from nnz import Client

with Client.anywhere(threads=1) as client:
    print(client.url)
    job = client.jobs.cg(client.matrices.put(sp.eye_array(9, format="csr")), np.ones(9))
    print(job.result(60).status)
"""


def test_a_program_that_waited_for_a_job_ends_in_silence() -> None:
    """And without NNZ_URL `anywhere` is here."""
    kept = {name: value for name, value in os.environ.items() if name != "NNZ_URL"}
    done = subprocess.run(
        [sys.executable, "-c", _WAITED],
        env=kept, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip

    assert done.stdout.split() == ["http://nnz.local", "converged"]
    assert done.stderr == ""


def test_anywhere_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NNZ_URL", "http://127.0.0.1:9")

    with Client.anywhere(threads=1) as client:
        assert client.url == "http://127.0.0.1:9"


def test_home_is_kept(tmp_path: Path) -> None:
    with Client.local(home=tmp_path / "home") as client:
        known = client.matrices.put(poisson(5)).id

    with Client.local(home=tmp_path / "home") as client:
        handle = client.matrices.get(known)
        assert (handle @ np.ones(5)).tolist() == [1, 0, 0, 0, 1]
        with pytest.raises(NotFoundError):
            client.matrices.get("m-0000000000000000")


async def test_temporary_home_goes() -> None:
    app = open_local()
    home = app._home
    assert home.exists()

    app._clean_up()

    assert not home.exists()
