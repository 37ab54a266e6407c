"""LU factors of large matrices, which a process of its own makes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from service.processes import alive, children, until

from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.krylov import lu, lu_child, lu_process
from nnz_service.algebra.krylov.errand import Errand, Unwanted
from nnz_service.algebra.krylov.method import Ended
from nnz_service.algebra.operator import MatrixOperator

#: Bytes for factors that are small.
ROOM = 1 << 28


def operator(a: scipy.sparse.sparray) -> MatrixOperator:
    return MatrixOperator(csr_from_scipy(a.tocsr()), "reference", threads=1)


def test_the_triangles_solve() -> None:
    """Rows are exchanged: the diagonal is empty. One vector and a block."""
    rng = np.random.default_rng(3)
    a = scipy.sparse.random_array((23, 23), density=0.2, rng=rng).tolil()
    a[np.arange(23), (np.arange(23) + 5) % 23] = 3.0
    a.setdiag(0)
    dense = a.toarray()

    found = lu.factorize(operator(a.tocsr()), ROOM)

    for block in (rng.random((23, 1)), rng.random((23, 3))):
        np.testing.assert_allclose(dense @ found.apply(block), block, atol=1e-12)
    assert found.entries >= np.count_nonzero(dense)
    assert found.nbytes > 12 * found.entries


def test_a_singular_matrix_is_said_to_be_one() -> None:
    a = scipy.sparse.csr_array(np.ones((3, 3)))

    with pytest.raises(Ended, match=r"SuperLU: .*singular") as caught:
        lu.factorize(operator(a), ROOM)
    assert caught.value.status == "singular"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-9, "of 5 rows with 5 entries take more than 1000000 bytes"),
        (-24, "take more than 1000000 bytes or an hour"),
        (-11, "SuperLU ended with -11"),
    ],
)
def test_an_end_by_a_signal_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    """Whether the system ended it for what it took, or it crashed."""

    monkeypatch.setattr(lu_process, "_run", lambda *_: code)

    with pytest.raises(Ended, match=says) as caught:
        lu.factorize(operator(scipy.sparse.eye_array(5)), 1_000_000)
    assert caught.value.status == "breakdown"


def test_too_much_memory_is_refused_with_numbers() -> None:
    """A grid whose factors take some 20 MB, in 4."""
    line = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(120, 120))
    grid = scipy.sparse.kronsum(line, line)

    with pytest.raises(Ended, match="14400 rows with 71520 entries take more than"):
        lu.factorize(operator(grid), 4 << 20)


#: Half full factors of 6000 rows: many seconds of computing.
_LONG = """
import sys
import numpy as np, scipy.sparse
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.krylov.lu import factorize
from nnz_service.algebra.operator import MatrixOperator

rng = np.random.default_rng(1)
a = scipy.sparse.random_array((6000, 6000), density=1e-3, rng=rng)
a = csr_from_scipy((a + 9 * scipy.sparse.eye_array(6000)).tocsr())
long = MatrixOperator(a, "reference", threads=1)
"""


def is_bounded(pid: int) -> bool:
    """Whether a process has come as far as to what it computes."""
    return resource.prlimit(pid, resource.RLIMIT_CPU)[0] == lu_child._SECONDS


class TestEnd:
    """Of the process, when nobody waits for what it makes."""

    pytestmark = pytest.mark.slow

    @pytest.fixture
    def long(self) -> MatrixOperator:
        found: dict[str, MatrixOperator] = {}
        exec(_LONG, found)  # noqa: S102 - what the other test runs in a process
        return found["long"]

    def test_within_a_second_and_the_turn_is_free(self, long: MatrixOperator) -> None:
        over = threading.Event()
        raised: list[BaseException] = []

        def make() -> None:
            try:
                lu.factorize(long, errand=Errand(lambda: not over.is_set()))
            except Ended as error:
                raised.append(error)

        works = [threading.Thread(target=make) for _ in range(2)]
        for work in works:
            work.start()
        pid = until(lambda: children(os.getpid()).get(lu_process._CHILD))
        assert len(children(os.getpid())) == 1  # one has the turn, the other waits

        over.set()
        began = time.monotonic()
        for work in works:
            work.join()

        assert time.monotonic() - began < 1
        assert not alive(pid)
        assert not lu_process._TURN.locked()
        assert [type(error) for error in raised] == [Unwanted, Unwanted]

    def test_with_the_worker_that_is_killed(self) -> None:
        worker = subprocess.Popen([sys.executable, "-c", f"{_LONG}\nfactorize(long)"])
        try:
            pid = until(lambda: children(worker.pid).get(lu_process._CHILD))
            until(lambda: is_bounded(pid))  # Python takes its time to start
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            until(lambda: not alive(pid), 1.0)
        finally:
            worker.kill()
            worker.wait()

    def test_when_the_worker_had_ended_before_it_could_ask(
        self, tmp_path: Path
    ) -> None:
        """The kernel tells only of ends to come."""
        command = [sys.executable, "-m", lu_process._CHILD, str(tmp_path), "1", "1"]

        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
