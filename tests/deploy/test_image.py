"""The image holds what the server and the SDK need, in the versions that are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A package, its version, perhaps where it is wanted, and its hashes.
PIN = re.compile(
    r"^([\w.-]+)==([\w.]+)(?: ; [^\\\n]+)?((?: *\\\n +--hash=sha256:[0-9a-f]{64})+)",
    re.MULTILINE,
)
NAME = re.compile(r"[A-Za-z0-9._-]+")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    """Version by package of a file of the image; each has hashes."""
    text = (ROOT / "deploy" / "image" / name).read_text()
    found = {canonical(pin[1]): pin[2] for pin in PIN.finditer(text)}
    assert len(found) == len(re.findall(r"^\w\S*==", text, re.MULTILINE))
    return found


def needed(project: str) -> set[str]:
    about = tomllib.loads((ROOT / project).read_text())["project"]
    return {canonical(NAME.findall(one)[0]) for one in about["dependencies"]}


def test_every_dependency_is_there() -> None:
    wanted = needed("pyproject.toml") | needed("clients/python/pyproject.toml")

    assert wanted - pins("requirements.txt").keys() <= {"nnz"}  # which is ours


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cuda.txt"])
def test_versions_are_those_that_are_tested(name: str) -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    tested = {
        canonical(line.split("==")[0]): line.split("==")[1].split()[0]
        for line in lines
        if "==" in line and not line.startswith("#")
    }

    found = pins(name)

    assert {key: tested.get(key, version) for key, version in found.items()} == found
