"""Matrix Market files: coordinate or array, any field and symmetry, plain or gzip.

Format: Boisvert, Pozo and Remington, "The Matrix Market exchange formats", NIST 1996.
The header is read first, so that declared sizes are checked before anything is
allocated; NumPy's strict parser reads the entries (SciPy's fast one ignores surplus
words, and crashes on some broken files). Where it fails, a slow second pass finds the
line. A ``%%GraphBLAS type`` line, where there is one, bounds the values. Of an array
the nonzeros are kept.
"""

from __future__ import annotations

import functools
import math
import os
import re
import warnings
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import csr_from_scipy
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.market_header import Header, read_header
from nnz_service.algebra.text_lines import DAMAGED, MAX_LINE, lines, open_text, wrong
from nnz_service.errors import InvalidMatrixError


def read_matrix_market(path: str | os.PathLike[str], limits: Limits) -> Csr[HostArray]:
    """Return the matrix of a ``.mtx`` or ``.mtx.gz`` file; duplicates are summed.

    Raises:
        InvalidMatrixError: Which line is wrong, and what would be right.
        TooLargeError: The declared sizes or the decompressed text pass a limit.
    """
    with open_text(path, limits) as file:
        header = read_header(lines(file))
    limits.check_declared(header.rows, header.columns, header.expanded)
    try:
        with open_text(path, limits) as file:
            return _assembled(header, _entries(file, header))
    except (ValueError, OverflowError, KernelError) as exc:
        _diagnose(path, limits, header)
        raise InvalidMatrixError(f"line {header.line} and after: {exc}") from exc
    except DAMAGED as exc:
        raise InvalidMatrixError(f"the gzip stream is damaged: {exc}") from exc


def _entries(file: BinaryIO, header: Header) -> HostArray:
    """Return the entries as records named as `Header.words`; numpy parses strictly."""
    for _ in range(header.line):
        file.readline(MAX_LINE)
    number = np.int64 if header.field == "integer" else np.float64
    kinds: list[tuple[str, Any]] = [
        (word, np.int64 if word in ("row", "column") else number)
        for word in header.words
    ]
    # A line cut at the limit does not parse, so that no line is held whole.
    rest = iter(functools.partial(file.readline, MAX_LINE), b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of blank lines and no lines
        out: HostArray = np.loadtxt(
            rest,
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
    rows, columns, values = _triplets(header, entries)
    for index, size in ((rows, header.rows), (columns, header.columns)):
        if index.size and (index.min() < 0 or index.max() >= size):
            raise ValueError("an index lies outside of the matrix")
    low, high = header.bounds
    if (
        values.size
        and header.numbers == 1
        and (values.min() < low or values.max() > high)
    ):
        raise ValueError(f"a value lies outside of {low:.0f} to {high:.0f}")
    if header.symmetry != "general":
        off = rows != columns
        _check_diagonal(header.symmetry, values[~off])
        values = np.concatenate([values, _mirrored(header.symmetry, values[off])])
        rows, columns = (
            np.concatenate([rows, columns[off]]),
            np.concatenate([columns, rows[off]]),
        )
    shape = header.rows, header.columns
    return csr_from_scipy(
        scipy.sparse.coo_array((values, (rows, columns)), shape=shape)
    )


def _triplets(
    header: Header, entries: HostArray
) -> tuple[HostArray, HostArray, HostArray]:
    """Return rows and columns from 0, and values; of an array the nonzeros alone."""
    values: HostArray
    if header.numbers == 2:
        values = np.empty(entries.size, np.complex128)
        values.real, values.imag = entries["real"], entries["imaginary"]
    else:
        values = entries["value"] if header.numbers else np.ones(entries.size)
    if header.layout == "coordinate":
        return entries["row"] - 1, entries["column"] - 1, values
    at = np.flatnonzero(values)
    rows, columns = _places(header, at)
    return rows, columns, values[at]


def _places(header: Header, at: HostArray) -> tuple[HostArray, HostArray]:
    """Return row and column of places in an array, which goes column by column."""
    if header.symmetry == "general":
        return at % max(header.rows, 1), at // max(header.rows, 1)
    skip = 1 if header.symmetry == "skew-symmetric" else 0
    heights = np.arange(header.rows - skip, 0, -1)
    starts = np.concatenate([[0], np.cumsum(heights)])
    columns = np.searchsorted(starts, at, side="right") - 1
    return at - starts[columns] + columns + skip, columns


def _check_diagonal(symmetry: str, diagonal: HostArray) -> None:
    if symmetry == "skew-symmetric" and diagonal.any():
        raise ValueError("a skew-symmetric matrix has no diagonal")
    if symmetry == "hermitian" and diagonal.imag.any():
        raise ValueError("a hermitian matrix has a real diagonal")


def _mirrored(symmetry: str, values: HostArray) -> HostArray:
    if symmetry == "hermitian":
        return np.conjugate(values)
    return -values if symmetry == "skew-symmetric" else values


def _diagnose(path: str | os.PathLike[str], limits: Limits, header: Header) -> None:
    """Raise the error of the first entry that is wrong, if one is found."""
    seen, number = 0, header.line
    with open_text(path, limits) as file:
        for number, line in lines(file):
            if number <= header.line or not line or line.startswith("%"):
                continue
            seen += 1
            if seen > header.entries:
                raise wrong(number, f"entry {seen}", f"one of {header.entries}")
            _check_entry(number, line.split(), header)
    if seen < header.entries:
        what = f"the file ends after {seen} entries"
        raise wrong(number + 1, what, f"{header.entries} entries")


def _check_entry(number: int, words: list[str], header: Header) -> None:
    if len(words) != len(header.words):
        wanted = " ".join(header.words)
        raise wrong(number, f"the entry is {' '.join(words)[:80]!r}", wanted)
    found = dict(zip(header.words, words, strict=True))
    for name, size in (("row", header.rows), ("column", header.columns)):
        if (word := found.pop(name, None)) is None:
            continue
        if not re.fullmatch(r"\+?[0-9]{1,18}", word) or not 1 <= int(word) <= size:
            raise wrong(number, f"the {name} is {word[:40]!r}", f"from 1 to {size}")
    values = [_value(number, word, header) for word in found.values()]
    if header.layout == "coordinate" and values and words[0] == words[1]:
        _check_on_diagonal(number, values, [*found.values()], header.symmetry)


def _check_on_diagonal(
    number: int, values: list[float], words: list[str], symmetry: str
) -> None:
    text = " ".join(words)[:40]
    if symmetry == "skew-symmetric" and any(values):
        raise wrong(number, f"the diagonal value is {text}", "0 or absent")
    if symmetry == "hermitian" and values[1]:
        raise wrong(number, f"the diagonal value is {text}", "real")


def _value(number: int, word: str, header: Header) -> float:
    whole = header.field == "integer"
    kind = "an integer of 64 bits" if whole else "a real number"
    try:
        value = int(word) if whole else float(word)
    except ValueError:
        raise wrong(number, f"the value is {word[:40]!r}", kind) from None
    if "_" in word or (whole and not -(2**63) <= value < 2**63):
        raise wrong(number, f"the value is {word[:40]!r}", kind)
    low, high = header.bounds
    if header.numbers == 1 and not (low <= value <= high or math.isnan(value)):
        raise wrong(number, f"the value is {value}", f"from {low:.0f} to {high:.0f}")
    return value
