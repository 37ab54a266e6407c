"""Fail when a file or a function has grown past the house limits; print the longest.

A file stops at 400 lines and a function at 60: past that a reader loses the thread.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FILE_LIMIT, FUNCTION_LIMIT = 400, 60
SUFFIXES = {".py", ".cu", ".cuh"}


def tracked() -> list[Path]:
    """Return the source files that git knows, plus new ones it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed arguments
    paths = [Path(line) for line in out.stdout.splitlines()]
    return [p for p in paths if p.suffix in SUFFIXES and p.exists()]


def functions(path: Path) -> list[tuple[int, str]]:
    """Return (lines, ``path:name``) of every function in a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def report(title: str, rows: list[tuple[int, str]], limit: int) -> bool:
    """Print the five longest rows; return whether all are within the limit."""
    rows.sort(reverse=True)
    middle = rows[len(rows) // 2][0] if rows else 0
    print(f"{title}: {len(rows)}, median {middle} lines, limit {limit}")
    for lines, name in rows[:5]:
        print(f"  {lines:4d}  {name}" + ("  TOO LONG" if lines > limit else ""))
    return not rows or rows[0][0] <= limit


def main() -> int:
    """Check the tree below the current directory."""
    paths = tracked()
    files = [(len(p.read_text(encoding="utf-8").splitlines()), str(p)) for p in paths]
    found = [row for p in paths if p.suffix == ".py" for row in functions(p)]
    within = [
        report("files", files, FILE_LIMIT),
        report("functions", found, FUNCTION_LIMIT),
    ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
