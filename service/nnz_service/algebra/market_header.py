"""What stands before the entries of a Matrix Market file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnz_service.algebra.text_lines import wrong

LAYOUTS = ("coordinate", "array")
#: Numbers of an entry in each field.
FIELDS = {"real": 1, "double": 1, "integer": 1, "complex": 2, "pattern": 0}
SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")

_BANNER = (
    "%%MatrixMarket matrix {coordinate|array} {real|integer|complex|pattern} {symmetry}"
)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the entries."""

    layout: str
    field: str
    symmetry: str
    rows: int
    columns: int
    #: Lines of entries that follow.
    entries: int
    #: Line of the sizes, counted from 1.
    line: int
    #: Least and greatest value that a ``%%GraphBLAS type`` line allows.
    bounds: tuple[float, float]

    @property
    def numbers(self) -> int:
        """Numbers of an entry beside its place."""
        return FIELDS[self.field]

    @property
    def expanded(self) -> int:
        """Entries of the matrix at most, once halves are mirrored."""
        return self.entries * (1 if self.symmetry == "general" else 2)

    @property
    def words(self) -> tuple[str, ...]:
        """What a line of an entry holds."""
        place = ("row", "column") if self.layout == "coordinate" else ()
        values = ("real", "imaginary") if self.numbers == 2 else ("value",)
        return place + values[: self.numbers]


def read_header(lines: Iterator[tuple[int, str]]) -> Header:
    """Read as far as the sizes.

    Raises:
        InvalidMatrixError: Which line is wrong, and what would be right.
    """
    number, banner = next(lines, (1, ""))
    layout, field, symmetry = _banner(banner)
    bounds = (-math.inf, math.inf)
    for number, line in lines:
        if line.lower().startswith("%%graphblas"):
            bounds = _bounds(number, line, field, symmetry)
        elif line and not line.startswith("%"):
            rows, columns, entries = _sizes(number, line, layout, symmetry)
            if symmetry != "general" and rows != columns:
                raise wrong(number, f"{symmetry} {rows} x {columns}", "square")
            return Header(
                layout, field, symmetry, rows, columns, entries, number, bounds
            )
    raise wrong(number + 1, "the file ends", f"the sizes: {_WANTED[layout]}")


def _banner(line: str) -> tuple[str, str, str]:
    words = line.lower().split()
    if len(words) != 5 or words[0] != "%%matrixmarket" or words[1] != "matrix":
        raise wrong(1, f"the banner is {line[:80]!r}", _BANNER)
    layout, field, symmetry = words[2:]
    for what, word, known in (
        ("format", layout, LAYOUTS),
        ("field", field, tuple(FIELDS)),
        ("symmetry", symmetry, SYMMETRIES),
    ):
        if word not in known:
            raise wrong(1, f"the {what} is {word!r}", f"one of {', '.join(known)}")
    if field == "pattern" and layout == "array":
        raise wrong(1, "an array of the field 'pattern' holds nothing", "'coordinate'")
    if field == "pattern" and symmetry == "skew-symmetric":
        raise wrong(1, "a skew-symmetric pattern has no signs", "real or integer")
    if symmetry == "hermitian" and field != "complex":
        raise wrong(1, f"the field of a hermitian matrix is {field!r}", "'complex'")
    return layout, field, symmetry


def _bounds(number: int, line: str, field: str, symmetry: str) -> tuple[float, float]:
    """Return the range of the type that a ``%%GraphBLAS type`` line names."""
    words = line.lower().split()
    kind = " ".join(words[2:]) if words[1:2] == ["type"] else "double"
    if "complex" in kind and field != "complex":
        raise wrong(number, f"the type is {kind!r}", "a real type")
    if kind == "bool":
        return 0, 1
    match = re.fullmatch(r"(u?)int(8|16|32|64)(_t)?", kind)
    if match is None:
        return -math.inf, math.inf
    if match[1] and symmetry == "skew-symmetric":
        raise wrong(number, f"{kind} cannot hold the negatives of {symmetry}", "signed")
    info = np.iinfo(f"{match[1]}int{match[2]}")
    return float(info.min), float(info.max)


_WANTED = {"coordinate": "rows columns entries", "array": "rows columns"}


def _sizes(number: int, line: str, layout: str, symmetry: str) -> tuple[int, int, int]:
    words, wanted = line.split(), _WANTED[layout]
    whole = all(re.fullmatch(r"[0-9]{1,18}", word) for word in words)
    if len(words) != len(wanted.split()) or not whole:
        raise wrong(number, f"the sizes are {line[:80]!r}", wanted)
    rows, columns = int(words[0]), int(words[1])
    if layout == "coordinate":
        return rows, columns, int(words[2])
    half = {"general": rows * columns, "skew-symmetric": rows * (rows - 1) // 2}
    return rows, columns, half.get(symmetry, rows * (rows + 1) // 2)
