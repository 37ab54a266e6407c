"""Matrix Market files: coordinate, real, integer or pattern, plain or gzip.

Format: Boisvert, Pozo and Remington, "The Matrix Market exchange formats", NIST 1996.
The header is read first, so that declared sizes are checked before anything is
allocated; NumPy's strict parser reads the entries (SciPy's fast one ignores surplus
words, and crashes on some broken files). Where it fails, a slow second pass finds the
line. A ``%%GraphBLAS type`` line, where there is one, bounds the values.
"""

from __future__ import annotations

import functools
import gzip
import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import scipy.sparse

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import csr_from_scipy
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.limits import Limits
from nnz_service.errors import InvalidMatrixError

FIELDS = ("real", "double", "integer", "pattern")
SYMMETRIES = ("general", "symmetric", "skew-symmetric")

#: Longest line of a header or comment; the format says 1024.
_MAX_LINE = 65_536

_BANNER = "%%MatrixMarket matrix coordinate {real|integer|pattern} {symmetry}"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the entries."""

    field: str
    symmetry: str
    rows: int
    columns: int
    entries: int
    #: Line of the sizes, counted from 1.
    line: int
    #: Least and greatest value that a ``%%GraphBLAS type`` line allows.
    bounds: tuple[float, float]


def read_matrix_market(path: str | os.PathLike[str], limits: Limits) -> Csr[HostArray]:
    """Return the matrix of a ``.mtx`` or ``.mtx.gz`` file; duplicates are summed.

    Raises:
        InvalidMatrixError: Which line is wrong, and what would be right.
        TooLargeError: The declared sizes or the decompressed text pass a limit.
    """
    with _open(path, limits) as file:
        header = _header(_lines(file))
    expanded = header.entries * (1 if header.symmetry == "general" else 2)
    limits.check_declared(header.rows, header.columns, expanded)
    try:
        with _open(path, limits) as file:
            return _assembled(header, _entries(file, header))
    except (ValueError, OverflowError, KernelError) as exc:
        _diagnose(path, limits, header)
        raise InvalidMatrixError(f"line {header.line} and after: {exc}") from exc
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InvalidMatrixError(f"the gzip stream is damaged: {exc}") from exc


def _entries(file: BinaryIO, header: Header) -> HostArray:
    """Return the entries as records (row, column[, value]); numpy parses strictly."""
    for _ in range(header.line):
        file.readline(_MAX_LINE)
    kinds: list[tuple[str, Any]] = [("row", np.int64), ("column", np.int64)]
    if header.field != "pattern":
        value = np.int64 if header.field == "integer" else np.float64
        kinds.append(("value", value))
    # A line cut at the limit does not parse, so that no line is held whole.
    lines = iter(functools.partial(file.readline, _MAX_LINE), b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of blank lines and no lines
        out: HostArray = np.loadtxt(
            lines,
            dtype=kinds,
            comments="%",
            max_rows=header.entries + 1,
            encoding="latin-1",
            ndmin=1,
        )
    if out.size != header.entries:
        raise ValueError(f"there are not {header.entries} entries")
    return out


def _assembled(header: Header, entries: HostArray) -> Csr[HostArray]:
    """Check the ranges, mirror what is symmetric, sum duplicates."""
    rows, columns = entries["row"] - 1, entries["column"] - 1
    values = np.ones(rows.size) if header.field == "pattern" else entries["value"]
    for index, size in ((rows, header.rows), (columns, header.columns)):
        if index.size and (index.min() < 0 or index.max() >= size):
            raise ValueError("an index lies outside of the matrix")
    low, high = header.bounds
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(f"a value lies outside of {low:.0f} to {high:.0f}")
    if header.symmetry != "general":
        off = rows != columns
        sign = -1 if header.symmetry == "skew-symmetric" else 1
        if sign < 0 and values[~off].any():
            raise ValueError("a skew-symmetric matrix has no diagonal")
        values = np.concatenate([values, sign * values[off]])
        rows, columns = (
            np.concatenate([rows, columns[off]]),
            np.concatenate([columns, rows[off]]),
        )
    shape = header.rows, header.columns
    return csr_from_scipy(
        scipy.sparse.coo_array((values, (rows, columns)), shape=shape)
    )


class _Counted(io.RawIOBase):
    """A stream that refuses to give more than the limit."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._source, self._limits, self._given = source, limits, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._source.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._given += len(chunk)
        self._limits.check_file(self._given)
        return len(chunk)

    def close(self) -> None:
        self._source.close()
        super().close()


def _open(path: str | os.PathLike[str], limits: Limits) -> BinaryIO:
    """Open plain or gzip text; closing what is returned closes everything."""
    with Path(path).open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    start = gzip.open if zipped else open
    source = cast(BinaryIO, start(path, "rb"))
    return io.BufferedReader(_Counted(source, limits), 1 << 20)


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of every line."""
    number = 0
    try:
        while line := file.readline(_MAX_LINE):
            number += 1
            if len(line) == _MAX_LINE:
                raise _wrong(number, "the line is too long", "at most 65535 bytes")
            yield number, line.decode("latin-1").strip()
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise _wrong(
            number + 1, f"the gzip stream is damaged ({exc})", "intact"
        ) from exc


def _wrong(line: int, what: str, right: str) -> InvalidMatrixError:
    return InvalidMatrixError(f"line {line}: {what}, but must be {right}")


def _header(lines: Iterator[tuple[int, str]]) -> Header:
    number, banner = next(lines, (1, ""))
    field, symmetry = _banner(banner)
    bounds = (-math.inf, math.inf)
    for number, line in lines:
        if line.lower().startswith("%%graphblas"):
            bounds = _bounds(number, line, symmetry)
        elif line and not line.startswith("%"):
            rows, columns, entries = _sizes(number, line)
            if symmetry != "general" and rows != columns:
                raise _wrong(number, f"{symmetry} {rows} x {columns}", "square")
            return Header(field, symmetry, rows, columns, entries, number, bounds)
    raise _wrong(number + 1, "the file ends", "the sizes: rows columns entries")


def _banner(line: str) -> tuple[str, str]:
    words = line.lower().split()
    if len(words) != 5 or words[0] != "%%matrixmarket" or words[1] != "matrix":
        raise _wrong(1, f"the banner is {line[:80]!r}", _BANNER)
    _, _, layout, field, symmetry = words
    if layout != "coordinate":
        raise _wrong(1, f"the format is {layout!r}", "'coordinate' (a sparse matrix)")
    if field not in FIELDS:
        raise _wrong(1, f"the field is {field!r}", f"one of {', '.join(FIELDS)}")
    if symmetry not in SYMMETRIES:
        raise _wrong(
            1, f"the symmetry is {symmetry!r}", f"one of {', '.join(SYMMETRIES)}"
        )
    if field == "pattern" and symmetry == "skew-symmetric":
        raise _wrong(1, "a skew-symmetric pattern has no signs", "real or integer")
    return field, symmetry


def _bounds(number: int, line: str, symmetry: str) -> tuple[float, float]:
    """Return the range of the type that a ``%%GraphBLAS type`` line names."""
    words = line.lower().split()
    kind = " ".join(words[2:]) if words[1:2] == ["type"] else "double"
    if "complex" in kind:
        raise _wrong(number, f"the type is {kind!r}", "a real type")
    if kind == "bool":
        return 0, 1
    match = re.fullmatch(r"(u?)int(8|16|32|64)(_t)?", kind)
    if match is None:
        return -math.inf, math.inf
    if match[1] and symmetry == "skew-symmetric":
        raise _wrong(
            number, f"{kind} cannot hold the negatives of {symmetry}", "signed"
        )
    info = np.iinfo(f"{match[1]}int{match[2]}")
    return float(info.min), float(info.max)


def _sizes(number: int, line: str) -> tuple[int, int, int]:
    words = line.split()
    if len(words) != 3 or not all(re.fullmatch(r"[0-9]{1,18}", w) for w in words):
        raise _wrong(number, f"the sizes are {line[:80]!r}", "rows columns entries")
    rows, columns, entries = (int(word) for word in words)
    return rows, columns, entries


def _diagnose(path: str | os.PathLike[str], limits: Limits, header: Header) -> None:
    """Raise the error of the first entry that is wrong, if one is found."""
    seen, number = 0, header.line
    with _open(path, limits) as file:
        for number, line in _lines(file):
            if number <= header.line or not line or line.startswith("%"):
                continue
            seen += 1
            if seen > header.entries:
                raise _wrong(number, f"entry {seen}", f"one of {header.entries}")
            _check_entry(number, line.split(), header)
    if seen < header.entries:
        what = f"the file ends after {seen} entries"
        raise _wrong(number + 1, what, f"{header.entries} entries")


def _check_entry(number: int, words: list[str], header: Header) -> None:
    wanted = "row column" if header.field == "pattern" else "row column value"
    if len(words) != len(wanted.split()):
        raise _wrong(number, f"the entry is {' '.join(words)[:80]!r}", wanted)
    sizes = (("row", header.rows), ("column", header.columns))
    for word, (name, size) in zip(words, sizes, strict=False):
        if not re.fullmatch(r"\+?[0-9]{1,18}", word) or not 1 <= int(word) <= size:
            raise _wrong(number, f"the {name} is {word[:40]!r}", f"from 1 to {size}")
    if header.field == "pattern":
        return
    _check_value(number, words[2], header, words[0] == words[1])


def _check_value(number: int, word: str, header: Header, diagonal: bool) -> None:
    whole = header.field == "integer"
    kind = "an integer of 64 bits" if whole else "a real number"
    try:
        value = int(word) if whole else float(word)
    except ValueError:
        raise _wrong(number, f"the value is {word[:40]!r}", kind) from None
    if "_" in word or (whole and not -(2**63) <= value < 2**63):
        raise _wrong(number, f"the value is {word[:40]!r}", kind)
    low, high = header.bounds
    if not (low <= value <= high or math.isnan(value)):
        raise _wrong(number, f"the value is {value}", f"from {low:.0f} to {high:.0f}")
    if header.symmetry == "skew-symmetric" and diagonal and value:
        raise _wrong(number, f"the diagonal value is {word[:40]}", "0 or absent")
