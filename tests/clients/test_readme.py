"""Every piece of Python in the SDK's README runs as it stands, against a socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scipy.sparse as sp
from service.web.doubler import running

from nnz import Client
from nnz_service.local import open_local

pytestmark = pytest.mark.slow  # every matrix that is put starts a process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "clients" / "python" / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
#: Where the first snippet expects a server; the others take NNZ_URL.
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = open_local(home=tmp_path_factory.mktemp("home"), threads=1)
    with running(app) as address:
        with Client(f"http://{address}") as client:
            client.matrices.put(sp.eye_array(10, format="csr"))  # one lists them
        yield f"http://{address}"


def test_there_are_some() -> None:
    assert len(SNIPPETS) == 11
    assert TEXT.count("```python") == len(SNIPPETS)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_it_runs_and_says_something(
    server: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """And what a comment behind a print says is what is printed."""
    monkeypatch.setenv("NNZ_URL", server)
    monkeypatch.delenv("NNZ_API_KEY", raising=False)
    monkeypatch.chdir(ROOT)
    code = SNIPPETS[number].replace(HERE, server)

    program = compile(code, f"README.md, {number}", "exec")
    exec(program, {"__name__": "__main__"})  # noqa: S102 - our own snippets

    printed = capsys.readouterr().out
    assert printed
    for line in code.splitlines():
        if found := re.fullmatch(r" *print\(.*\)  # ([\[\d][^:]*|optimal.*)", line):
            assert found[1] in printed
