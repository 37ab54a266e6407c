"""The commands on matrices, systems and programs, against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from service.algebra.lp.programs import WYNDOR_MPS
from service.web.doubler import running

from nnz import Client
from nnz_service.cli._waiting import _Course
from nnz_service.local import open_local

A = sp.csr_array(np.array([[4.0, 1, 0], [1, 5, 2], [0, 2, 6]]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = open_local(home=tmp_path_factory.mktemp("home"), threads=1)
    with running(app) as address:
        yield f"http://{address}"


@pytest.fixture(autouse=True)
def _address(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNZ_URL", server)
    monkeypatch.delenv("NNZ_API_KEY", raising=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "a.npz"
    sp.save_npz(path, A)
    return path


@pytest.fixture(scope="module")
def a(server: str, file: Path) -> str:
    """Put once: each time a file is put a process reads it."""
    with Client(server) as client:
        return client.matrices.put(file).id


@pytest.fixture(scope="module")
def edges(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """0 -> 1 -> 2 with lengths 1 and 2, and 3 by itself."""
    path = tmp_path_factory.mktemp("edges") / "edges.mtx"
    head = "%%MatrixMarket matrix coordinate real general\n4 4 2\n"
    path.write_text(head + "1 2 1\n2 3 2\n")
    with Client(server) as client:
        return client.matrices.put(path).id


class TestMatrix:
    def test_residence(self, nnz: Any, a: str) -> None:
        assert nnz.json("matrix", "unload", a)["state"] != "READY"
        assert nnz.json("matrix", "load", a)["state"] == "READY"
        assert nnz.json("matrix", "pin", a)["pinned"] is True
        assert nnz.json("matrix", "unpin", a)["pinned"] is False
        assert nnz("matrix", "load", "m-0123456789abcdef").exit_code == 1

    def test_get(self, nnz: Any, a: str, tmp_path: Path) -> None:
        assert nnz("matrix", "get", a, "-o", tmp_path / "b.npz").exit_code == 0

        found = sp.load_npz(tmp_path / "b.npz")
        np.testing.assert_array_equal(found.toarray(), A.toarray())


class TestOp:
    def test_a_matrix(self, nnz: Any, a: str, tmp_path: Path) -> None:
        made = nnz.json("op", "add", a, "--other", a, "--set", "beta=-0.5", "--label",
                        "half")  # fmt: skip
        shown = nnz("op", "add", a, "--other", a, "--set", "beta=-0.5")

        assert made["name"] == "half"
        assert made["id"] in shown.output
        nnz("matrix", "get", made["id"], "-o", tmp_path / "b.npz")
        found = sp.load_npz(tmp_path / "b.npz").toarray()
        np.testing.assert_array_equal(found, A.toarray() / 2)

    def test_arrays(self, nnz: Any, a: str, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([1.0, 2, 3]))

        told = nnz.json("op", "norm", a, "--set", "kind=inf")
        nnz("op", "spmv", a, f"x={tmp_path / 'x.npy'}", "--save", tmp_path / "y.npz")

        assert told["outputs"][0]["data"] == [8.0]
        with np.load(tmp_path / "y.npz") as saved:
            np.testing.assert_array_equal(saved["y"], A @ [1.0, 2, 3])

    def test_semirings_and_masks(
        self, nnz: Any, a: str, file: Path, tmp_path: Path
    ) -> None:
        """Of files as of ids; the largest product of an entry, where A has one."""
        np.save(tmp_path / "x.npy", np.array([1.0, 2, 3]))

        made = nnz.json("op", "spgemm", a, "--other", file, "--mask", a,
                        "--semiring", "max_times")  # fmt: skip
        near = nnz.json("op", "spmv", a, f"x={tmp_path / 'x.npy'}", "--semiring",
                        "min_plus")  # fmt: skip

        nnz("matrix", "get", made["id"], "-o", tmp_path / "b.npz")
        found = sp.load_npz(tmp_path / "b.npz").toarray()
        assert found.tolist() == [[16, 5, 0], [5, 25, 12], [0, 12, 36]]
        assert near["outputs"][0]["data"] == [3, 2, 4]

    def test_preflight(self, nnz: Any, a: str) -> None:
        told = nnz.json("op", "spgemm", a, "--other", a, "--preflight", "--exact")
        shown = nnz("op", "spgemm", a, "--other", a, "--preflight")

        assert told["preflight"]["output_nnz"] == 9
        assert told["preflight"]["output_nnz_exact"] is True
        assert "flops             34" in shown.output

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["--set", "alpha"], 2, "is not NAME=VALUE"),
            (["x.npy"], 2, "is not NAME=FILE.npy"),
            (["--mask", "nothing"], 1, "'nothing' is neither the id of a matrix"),
            (["--set", "sort=1"], 1, "no parameter 'sort'"),
        ],
    )
    def test_wrong_words(
        self, nnz: Any, a: str, words: list[str], code: int, message: str
    ) -> None:
        result = nnz("op", "norm", a, *words)

        assert result.exit_code == code
        assert message in " ".join(result.stderr.replace("│", " ").split())


class TestSolve:
    def test_a_file(self, nnz: Any, tmp_path: Path) -> None:
        sp.save_npz(tmp_path / "a.npz", A)
        np.save(tmp_path / "b.npy", A @ np.array([1.0, -1, 2]))
        words = (
            "solve",
            tmp_path / "a.npz",
            "-b",
            tmp_path / "b.npy",
            "--rtol",
            "1e-12",
        )

        told = nnz.json(*words, "--save", tmp_path / "x.npy")
        shown = nnz(*words)

        assert told["status"] == "converged"
        assert told["relative_residual"] <= 1e-12
        np.testing.assert_allclose(np.load(tmp_path / "x.npy"), [1, -1, 2])
        assert shown.exit_code == 0
        assert "converged" in shown.output

    def test_a_limit_is_a_failure(self, nnz: Any, a: str, tmp_path: Path) -> None:
        np.save(tmp_path / "b.npy", np.ones(3))

        result = nnz("solve", a, "-b", tmp_path / "b.npy", "--maxiter", "1", "--rtol",
                     "1e-12", "--json")  # fmt: skip

        assert result.exit_code == 1
        assert '"iteration_limit"' in result.stdout

    def test_neither_a_file_nor_an_id(self, nnz: Any, tmp_path: Path) -> None:
        np.save(tmp_path / "b.npy", np.ones(3))

        result = nnz("solve", "nothing", "-b", tmp_path / "b.npy")

        assert result.exit_code == 1
        assert "'nothing' is neither the id of a matrix" in result.stderr


class TestLp:
    @pytest.mark.parametrize("method", ["pdhg", "highs"])
    def test_a_file(self, nnz: Any, tmp_path: Path, method: str) -> None:
        (tmp_path / "w.mps").write_text(WYNDOR_MPS)

        told = nnz.json(
            "lp", tmp_path / "w.mps", "--method", method, "--save", tmp_path / "s.npz"
        )

        assert (told["status"], told["method"]) == ("optimal", method)
        assert told["objective"] == pytest.approx(36, rel=1e-4)
        with np.load(tmp_path / "s.npz") as saved:
            np.testing.assert_allclose(saved["x"], [2, 6], rtol=1e-3)
        again = nnz.json("lp", told["matrix"], "--start", told["job"])
        assert (again["status"], again["method"]) == ("optimal", "pdhg")
        assert again["iterations"] <= 40

    def test_infeasible_is_an_answer(self, nnz: Any, tmp_path: Path) -> None:
        """And a limit is none."""
        wrong = WYNDOR_MPS.replace("hours one 4", "hours one -4")
        (tmp_path / "bad.mps").write_text(wrong)
        (tmp_path / "w.mps").write_text(WYNDOR_MPS)

        told = nnz.json("lp", tmp_path / "bad.mps", "--method", "highs")
        late = nnz(
            "lp", tmp_path / "w.mps", "--method", "pdhg", "--max-iterations", "1",
            "--no-presolve",
        )  # fmt: skip

        assert told["status"] == "infeasible"
        assert late.exit_code == 1
        assert "iteration_limit" in late.output

    def test_whole_numbers_are_relaxed(self, nnz: Any, tmp_path: Path) -> None:
        """What the program was read as is told."""
        marker = " M1 'MARKER' '{}'\n"
        whole = WYNDOR_MPS.replace("COLUMNS\n", f"COLUMNS\n{marker.format('INTORG')}")
        whole = whole.replace("RHS\n", f"{marker.format('INTEND')}RHS\n", 1)
        (tmp_path / "w.mps").write_text(whole)

        told = nnz.json("lp", tmp_path / "w.mps")
        shown = nnz("lp", tmp_path / "w.mps")

        assert told["notes"] == ["2 integer variables became continuous"]
        assert "2 integer variables became continuous" in shown.stdout


class TestGraph:
    @pytest.mark.parametrize(
        ("algorithm", "words", "told", "values"),
        [
            ("bfs", ["--source", 0], {"depth": 2, "reached": 3}, [0, 1, 2, -1]),
            ("sssp", ["--source", "1"], {"reached": 2}, [np.inf, 0, 2, np.inf]),
            ("components", [], {"components": 2, "top": [
                {"component": 0, "vertices": 3}, {"component": 1, "vertices": 1},
            ]}, [0, 0, 0, 1]),
            ("pagerank", ["--damping", 0, "--top", 1], {"top": [
                {"vertex": 0, "rank": 0.25},
            ]}, [0.25] * 4),
        ],
    )  # fmt: skip
    def test_a_number_a_vertex(
        self,
        nnz: Any,
        edges: str,
        tmp_path: Path,
        algorithm: str,
        words: Any,
        told: Any,
        values: Any,
    ) -> None:
        out = tmp_path / "out.npy"

        found = nnz.json("graph", algorithm, edges, *words, "-o", out)

        assert found["status"] == "converged"
        assert found | told == found
        np.testing.assert_array_equal(np.load(out), values)

    def test_a_table(self, nnz: Any, a: str, edges: str) -> None:
        ranks = nnz("graph", "pagerank", edges, "--top", "2").output.split("\n")
        count = nnz("graph", "triangles", a).output.split("\n")

        rows = [line.split() for line in ranks if line.strip()]
        assert [row[0] for row in rows[-2:]] == ["2", "1"]
        assert ["triangles", "0"] in [line.split() for line in count]

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["bfs"], 2, "bfs begins at a vertex: give --source"),
            (["triangles", "-o", "t.npy"], 2, "there is nothing to save"),
            (["walk"], 1, "there are pagerank, bfs"),
            (["pagerank", "--source", "1"], 1, "no parameter 'source'"),
            (["pagerank", "--maxiter", "1", "--tol", "0"], 1, "iteration_limit"),
        ],
    )
    def test_wrong_words(
        self, nnz: Any, edges: str, words: list[str], code: int, message: str
    ) -> None:
        result = nnz("graph", words[0], edges, *words[1:])

        assert result.exit_code == code
        assert message in " ".join(result.output.replace("│", " ").split())


class TestEigs:
    def test_pairs(self, nnz: Any, a: str, tmp_path: Path) -> None:
        out = tmp_path / "pairs.npz"

        told = nnz.json("eigs", a, "-k", "2", "--which", "smallest", "-o", out)
        shown = nnz("eigs", a, "-k", "2", "--which", "smallest")

        assert shown.stderr == ""  # no terminal, no bar

        wanted = np.linalg.eigvalsh(A.toarray())[:2]
        found = [pair["eigenvalue"] for pair in told["pairs"]]
        np.testing.assert_allclose(found, wanted)
        assert told["status"] == "converged"
        with np.load(out) as saved:
            x = saved["eigenvectors"]
            np.testing.assert_allclose(A @ x, x * wanted, atol=1e-6)
            assert saved["residuals"].tolist() == [p["residual"] for p in told["pairs"]]
        assert f"{wanted[0]:.4g}" in shown.output

    def test_a_limit_is_a_failure(self, nnz: Any, tmp_path: Path) -> None:
        sp.save_npz(tmp_path / "d.npz", sp.diags_array(np.arange(1.0, 99)))

        result = nnz("eigs", tmp_path / "d.npz", "-k", "1", "--tol", "0", "--maxiter",
                     "1")  # fmt: skip

        assert result.exit_code == 1
        assert "iteration_limit" in result.output


def test_the_bar_counts_digits() -> None:
    """From the first residual to the target; rows where rows are what is done."""
    course = _Course()

    told = [
        course.fraction({"residual": residual, "target": 1e-6})
        for residual in (1.0, 1e-3, 1e-6, 1e-9, 10.0)
    ]

    assert told == pytest.approx([0, 0.5, 1, 1, 0])
    assert course.fraction({"rows": 3, "of": 4}) == 0.75
    assert course.fraction({"of": 4, "residual": 1e-3, "target": 1e-6}) == 0.5
    assert _Course().fraction({"change": 1.0, "target": 1e-6}) == 0
    assert course.fraction({"iterations": 3}) is None
