"""Errors that are planted in the text of a module, and the kernels that have them."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

from cuda_emulator.building import PTX
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.cuda.source import module_source

#: Where a function begins: what it is, and its name.
_FUNCTION = re.compile(
    r"^(__global__|__device__)[^;{]*?\b((?!__)\w+)\(\D", re.MULTILINE
)


@dataclass(frozen=True)
class Change:
    """An error that is planted.

    Args:
        module: Where.
        old: A text that is there once.
        new: What it becomes.
    """

    module: str
    old: str
    new: str

    def made(self) -> str:
        """Return the changed text of the module."""
        return self._whole.replace(self.old, self.new)

    def touches(self, kernel: Kernel) -> bool:
        """Whether it is in a kernel, or in what that may call."""
        is_here = kernel.module == self.module
        return is_here and (self._users is None or kernel.name in self._users)

    @functools.cached_property
    def _whole(self) -> str:
        whole = module_source(self.module, PTX)
        assert whole.count(self.old) == 1, f"{self.old!r} is not once in {self.module}"
        return whole

    @functools.cached_property
    def _users(self) -> set[str] | None:
        """Names of the function that it is in and of all that name it, and so on; None
        where it is in no function.
        """
        found = list(_FUNCTION.finditer(self._whole))
        edges = [*(one.start() for one in found), len(self._whole)]
        texts = [self._whole[a:b] for a, b in itertools.pairwise(edges)]
        at = self._whole.index(self.old)
        around = [i for i, edge in enumerate(edges) if edge <= at]
        if not around or _ends(self._whole[edges[around[-1]] : at]):
            return None
        names = {found[around[-1]][2]}
        # Kernels call no kernels, though words of comments may be names of some.
        while found[around[-1]][1] == "__device__":
            any_of = re.compile(rf"\b({'|'.join(names)})\b")
            more = {
                one[2]
                for one, text in zip(found, texts, strict=True)
                if any_of.search(text)
            }
            if more <= names:
                break
            names |= more
        return names


def _ends(text: str) -> bool:
    """Whether a function that begins here has ended at the end of the text."""
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(c, 0) for c in text))
    opened = next((i for i, d in enumerate(depth) if d), len(depth))
    return opened == len(depth) or 0 in depth[opened:]
