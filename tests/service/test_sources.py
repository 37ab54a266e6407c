"""What the sources never do: turn bytes that came from outside into code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("kernels", "service", "clients")
    for path in (ROOT / folder).rglob("*.py")
)
_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal",
            "shelve"}  # fmt: skip
_CALLS = {"eval", "exec", "compile", "__import__"}
_YAML = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}


def faults(tree: ast.AST) -> Iterator[str]:
    """Say what in a file unpickles, evaluates or executes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.partition(".")[0] in _MODULES:
                yield f"line {node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    called = node.func
    if isinstance(called, ast.Name) and called.id in _CALLS:
        yield f"line {node.lineno}: calls {called.id}"
    if ast.unparse(called) in _YAML:
        yield f"line {node.lineno}: calls {ast.unparse(called)}"
    for word in node.keywords:
        refused = isinstance(word.value, ast.Constant) and word.value.value is False
        if word.arg == "allow_pickle" and not refused:
            yield f"line {node.lineno}: allows pickles"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "eval(text)",
        "exec(text)",
        "yaml.load(f)",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert list(faults(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["re.compile(x)", "np.load(f, allow_pickle=False)", "kernel.compile()"]
)
def test_the_search_passes(text: str) -> None:
    assert not list(faults(ast.parse(text)))
