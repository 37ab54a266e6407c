from __future__ import annotations

import inspect
import re
import subprocess
import sys

import nnz
from nnz import _errors, _graphs, _jobs
from nnz_service.algebra import eigenpairs
from nnz_service.solving import METHODS


def test_import_is_light() -> None:
    """A program that imports nnz pays for httpx2 and numpy alone."""
    heavy = ["scipy", "fastapi", "numba", "pydantic", "onnx", "nnz_service"]
    code = f"import sys, nnz; print([m for m in {heavy} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_exports_are_complete_and_sorted() -> None:
    public = {
        name
        for name, member in vars(nnz).items()
        if not name.startswith("_") and not inspect.ismodule(member)
    }

    assert nnz.__all__ == sorted(nnz.__all__)
    assert set(nnz.__all__) == public


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    drawn = set(re.findall(r"\w+Error", _errors.__doc__ or ""))
    real = {
        name
        for name, member in vars(_errors).items()
        if inspect.isclass(member) and issubclass(member, nnz.NnzError)
    }

    assert real == drawn - {"TypeError", "ValueError"}
    assert real <= set(nnz.__all__)


def about(documented: object, name: str) -> str:
    """What a docstring says of an argument."""
    text = inspect.getdoc(documented) or ""
    found = re.search(rf"^ +{name}: (.*?)(?=^ +\w+: |\n\n|\Z)", text, re.S | re.M)
    assert found, name
    return " ".join(found[1].split())


def test_docstrings_say_what_the_server_has() -> None:
    words = about(_jobs.Jobs.cg, "preconditioner").rstrip(".").replace(" or", ",")
    assert tuple(words.replace("`", "").split(", ")) == METHODS["cg"]
    graph, eigen = (
        about(kind, "status") for kind in (_graphs.GraphResult, _graphs.EigenResult)
    )
    for status in ("converged", "iteration_limit", "time_limit", "unbounded"):
        assert status in graph
    for status in ("converged", *eigenpairs._ENDS):
        assert status in eigen
    violation = about(nnz.LpResult, "max_primal_violation")
    assert violation == "The largest violation of a row or a variable."
