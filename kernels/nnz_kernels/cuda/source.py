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
def module_source(name: str) -> str:
    """Return the whole text of a module, each header once."""
    seen: set[str] = set()
    return _expanded(f"{name}.cu", seen)


def _expanded(file: str, seen: set[str]) -> str:
    if file in seen:
        return ""
    seen.add(file)
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((FOLDER / file).read_text().splitlines(), 1):
        include = _INCLUDE.match(line)
        if include is not None:
            # Messages of compilers and of tests name the file and its own line.
            lines += [_expanded(include[1], seen), f'#line {number + 1} "{file}"']
        else:
            lines.append("" if line == "#pragma once" else line)
    return "\n".join(lines) + "\n"
