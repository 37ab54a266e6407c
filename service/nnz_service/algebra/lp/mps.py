"""MPS files: free and fixed, plain or gzip, read line by line.

The format has no standard; this follows what HiGHS reads (its ``HMpsFF.cpp`` and the
manuals of CPLEX and Gurobi agree on most of it). Where those manuals say otherwise a
note tells what was done: of several named sets the first counts, and a negative upper
bound alone takes away the lower one. Fields are split at blanks; a file whose names
hold blanks is read once more by the columns of the fixed form.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nnz_service.algebra.limits import Limits
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.mps_records import SENSES, Builder, LineError
from nnz_service.errors import InvalidMatrixError

#: Longest line; the fixed form ends at column 61.
_MAX_LINE = 65_536

#: First columns and ends of the six fields of the fixed form.
_FIELDS = ((1, 3), (4, 12), (14, 22), (24, 36), (39, 47), (49, 61))

#: Sections of other problems than ours.
_FOREIGN = {
    "QUADOBJ": "a quadratic objective",
    "QMATRIX": "a quadratic objective",
    "QSECTION": "a quadratic objective",
    "QCMATRIX": "a quadratic constraint",
    "CSECTION": "a cone",
    "SOS": "special ordered sets",
    "SETS": "special ordered sets",
    "INDICATORS": "indicator constraints",
    "GENCONS": "general constraints",
    "PWLOBJ": "a piecewise linear objective",
    "LAZYCONS": "lazy constraints",
    "USERCUTS": "user cuts",
}

#: Fields of a data line at least, and where the first comment may begin.
_COMMENTS = {"ROWS": 2, "COLUMNS": 3, "RHS": 2, "RANGES": 2, "BOUNDS": 3}

#: Sections that say something of the program as a whole.
_ABOUT = ("NAME", "OBJSENSE", "OBJNAME", "ENDATA")


def read_mps(
    path: str | os.PathLike[str], limits: Limits | None = None
) -> LinearProgram:
    """Return the program of an ``.mps`` or ``.mps.gz`` file.

    Integer and semi-continuous variables become continuous, which a note tells.

    Raises:
        InvalidMatrixError: Which line is wrong, and what would be right.
        InvalidInputError: Bounds cross.
        TooLargeError: The decompressed text or the matrix passes a limit.
    """
    limits = limits or Limits()
    try:
        try:
            return _read(path, limits, fixed=False)
        except LineError as free:
            try:
                return _read(path, limits, fixed=True)
            except LineError:
                raise InvalidMatrixError(str(free)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InvalidMatrixError(f"the gzip stream is damaged: {exc}") from exc


def _read(
    path: str | os.PathLike[str], limits: Limits, *, fixed: bool
) -> LinearProgram:
    builder = Builder(limits)
    section = ""
    number = 0
    for number, line in _lines(path, limits):
        try:
            if line[0] in " \t":
                _data(builder, section, line, fixed=fixed)
                continue
            words = line.split()
            if _is_loose(section, words, fixed=fixed):
                _data(builder, section, line, fixed=False)
                continue
            section = _header(builder, words)
            if section == "ENDATA":
                return builder.program()
        except LineError as exc:
            raise LineError(f"line {number}: {exc}") from None
    raise LineError(
        f"line {number}: the file ends without ENDATA: it is cut off or no MPS file"
    )


def _lines(path: str | os.PathLike[str], limits: Limits) -> Iterator[tuple[int, str]]:
    """Yield lines that say something, with their numbers from 1."""
    size = 0
    with _open(path) as file:
        number = 0
        while raw := file.readline(_MAX_LINE):
            number += 1
            size += len(raw)
            limits.check_file(size)
            if len(raw) == _MAX_LINE:
                raise InvalidMatrixError(
                    f"line {number} is longer than {_MAX_LINE} bytes"
                )
            if raw[:1] == b"*" or not raw.strip():
                continue
            yield number, raw.decode("latin-1").rstrip()


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    with Path(path).open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return cast("BinaryIO", gzip.open(path, "rb"))
    return Path(path).open("rb")


def _is_loose(section: str, words: list[str], *, fixed: bool) -> bool:
    """Whether a line that begins in the first column holds data all the same."""
    if section == "OBJSENSE":
        return words[0].upper() in SENSES
    if section == "OBJNAME":
        return not _is_header(words)
    loose = len(words) > 1 and section in _COMMENTS and not fixed
    return loose and not _is_header(words)


def _is_header(words: list[str]) -> bool:
    name = words[0].upper()
    known = name in _COMMENTS or name in _FOREIGN or name == "OBJNAME"
    alone = len(words) == 1 or name in _FOREIGN
    return name in ("NAME", "OBJSENSE", "ENDATA") or (known and alone)


def _header(builder: Builder, words: list[str]) -> str:
    name = words[0].upper()
    if foreign := _FOREIGN.get(name.rstrip("0123456789")):
        raise LineError(
            f"{name} describes {foreign}, but only linear programs can be solved"
        )
    if name not in (*_ABOUT, *_COMMENTS):
        raise LineError(
            f"{words[0][:40]!r} is no section of an MPS file; there are NAME, "
            "OBJSENSE, OBJNAME, ROWS, COLUMNS, RHS, RANGES, BOUNDS and ENDATA"
        )
    if name == "OBJSENSE" and len(words) > 1:
        builder.sense(words[1:])
    if name == "OBJNAME" and len(words) > 1:
        builder.call(words[1:])
    builder.enter(name)
    return name


def _data(builder: Builder, section: str, line: str, *, fixed: bool) -> None:
    if section == "OBJSENSE":
        builder.sense(line.split())
        return
    if section == "OBJNAME":
        builder.call([line.strip()] if fixed else line.split())
        return
    if section not in _COMMENTS:
        raise LineError("data stands before any section; ROWS must come first")
    words = _fixed(line) if fixed else line.split()
    first = _COMMENTS[section]
    for at in range(first, len(words)):
        if words[at][0] in "$*" and not (words[at] in builder.rows and at == first):
            words = words[:at]
            break
    builder.record(section, words)


def _fixed(line: str) -> list[str]:
    """Cut a line at the columns of the fixed form; the type field may be absent."""
    if "\t" in line:
        raise LineError("tabs have no place in the fixed form")
    fields = [line[start:end].strip() for start, end in _FIELDS]
    if not fields[0]:
        fields = fields[1:]
    while fields and not fields[-1]:
        fields.pop()
    if "" in fields:  # an absent name of a right-hand side or of bounds
        fields = [field for field in fields if field]
    return fields
