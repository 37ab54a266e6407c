"""The text of each module, with the headers it includes written into it.

CuPy's cache of compiled code knows the text of a module but not that of files which it
includes, so a changed header would go unseen.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "src"

#: What CuPy adds to the compiler's options itself, and we with it wherever we compile.
OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "-ftz=true")

_INCLUDE = re.compile(r'#include "(\w+\.cuh)"$')


@functools.cache
def module_source(name: str, ptx: Path = FOLDER / "ptx.cuh") -> str:
    """Return the whole text of a module, each header once.

    Args:
        name: The module.
        ptx: What is included as ``ptx.cuh``.
    """
    return _expanded(FOLDER / f"{name}.cu", set(), ptx)


def _expanded(path: Path, seen: set[str], ptx: Path) -> str:
    if path.name in seen:
        return ""
    seen.add(path.name)
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(path.read_text().splitlines(), 1):
        include = _INCLUDE.match(line)
        if include is not None:
            file = ptx if include[1] == "ptx.cuh" else FOLDER / include[1]
            # Messages of compilers and of tests name the file and its own line.
            lines += [_expanded(file, seen, ptx), f'#line {number + 1} "{path.name}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return "\n".join(lines) + "\n"
