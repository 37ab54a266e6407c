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

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


@functools.cache
def module_source(name: str) -> str:
    """Return the whole text of a module, each header once."""
    seen: set[str] = set()
    return _expanded(f"{name}.cu", seen)


def _expanded(file: str, seen: set[str]) -> str:
    if file in seen:
        return ""
    seen.add(file)
    text = (FOLDER / file).read_text().replace("#pragma once\n", "")
    marked = f'#line 1 "{file}"\n{text}'
    return _INCLUDE.sub(lambda found: _expanded(found[1], seen) + "\n", marked)
