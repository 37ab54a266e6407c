"""What the lines of an MPS file add up to, record by record."""

from __future__ import annotations

import math
from array import array

import numpy as np

from nnz_kernels.formats import Csr
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.lp.model import (
    INFINITE,
    LinearProgram,
    Vector,
    linear_program,
)
from nnz_service.errors import InvalidMatrixError

#: Row index of N rows that are not the objective: free rows, which say nothing.
_FREE = -1
_OBJECTIVE = -2

#: Sections in the order in which they may stand.
_ORDER = ("ROWS", "COLUMNS", "RHS", "RANGES", "BOUNDS", "ENDATA")

#: Words for the direction of the objective.
SENSES = ("MIN", "MAX", "MINIMIZE", "MAXIMIZE", "MINIMISE", "MAXIMISE")

#: Types of bounds without and with a value.
_PLAIN, _VALUED = ("FR", "MI", "PL", "BV"), ("UP", "LO", "FX", "LI", "UI", "SC", "SI")

#: Types that say nothing of the other side.
_LOWER, _UPPER = ("LO", "LI", "MI"), ("UP", "UI", "SC", "SI", "PL")

#: What an index of 32 bits counts.
_MOST_32 = 2**31 - 1

#: Entries between two looks at the memory that the matrix takes.
_LOOK = 65_536


class LineError(InvalidMatrixError):
    """What is wrong with one line."""


class Builder:
    """Takes records in the order of the file.

    Args:
        limits: Bytes that the matrix may take.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.rows: dict[str, int] = {}
        self._types: list[str] = []
        self._objective: str | None = None
        self._named: str | None = None
        self._free = 0
        self._columns: dict[str, int] = {}
        self._last = ""
        self._seen: set[int] = set()
        self._maximize = self._integral = False
        self._integers: set[int] = set()
        self._semi: set[int] = set()
        self._costs = array("d")
        self._indices, self._values = array("q"), array("d")
        self._starts = array("q")
        self._rhs: dict[int, float] = {}
        self._ranges: dict[int, float] = {}
        self._sets: dict[str, str] = {}
        self._ignored: set[str] = set()
        self._lower: dict[int, float] = {}
        self._upper: dict[int, float] = {}
        self._binary: set[int] = set()
        self._negative: set[int] = set()
        self._repeated = 0
        self._offset = 0.0
        self._at = -1
        self._notes: list[str] = []

    def enter(self, section: str) -> None:
        """Begin a section; they have an order, and stand there once."""
        if section not in _ORDER:
            return
        place = _ORDER.index(section)
        if place <= self._at:
            raise LineError(f"{section} must not stand behind {_ORDER[self._at]}")
        if place > 0 and not self._types and self._objective is None:
            raise LineError(f"{section} comes before any row was named; ROWS is first")
        self._at = place

    def sense(self, words: list[str]) -> None:
        """Take MIN or MAX."""
        word = words[0].upper()
        if word not in SENSES:
            raise LineError(f"OBJSENSE is {words[0][:20]!r}, but must be MIN or MAX")
        self._maximize = word.startswith("MAX")

    def call(self, words: list[str]) -> None:
        """Take the name of the objective; the first N row is it all the same."""
        if len(words) != 1 or self._named is not None:
            raise LineError("OBJNAME has one name, that of the objective")
        self._named = words[0]

    def record(self, section: str, words: list[str]) -> None:
        """Take one data line of a section."""
        if section == "ROWS":
            self._row(words)
        elif section == "COLUMNS":
            self._column(words)
        elif section == "BOUNDS":
            self._bound(words)
        else:
            self._side(section, words)

    def _row(self, words: list[str]) -> None:
        if len(words) != 2:
            raise LineError(f"a row has a type and a name, not {len(words)} fields")
        kind, name = words[0].upper(), words[1]
        if kind not in ("N", "E", "L", "G"):
            raise LineError(
                f"the type of row {name!r} is {words[0][:8]!r}, but must be N, E, L, G"
            )
        if name in self.rows:
            raise LineError(f"there are two rows named {name!r}")
        if kind != "N":
            self.rows[name] = len(self._types)
            self._types.append(kind)
        elif self._objective is None:
            self._objective = name
            self.rows[name] = _OBJECTIVE
        else:
            self.rows[name] = _FREE
            self._free += 1

    def _column(self, words: list[str]) -> None:
        if len(words) >= 3 and words[1] == "'MARKER'":
            self._marker(words[2])
            return
        if len(words) not in (3, 5):
            raise LineError(
                "a column has a name and one or two pairs of row and value, not "
                f"{len(words)} fields"
            )
        name = words[0]
        if name != self._last:
            self._begin(name)
        for k in range(1, len(words), 2):
            row = self._find(words[k])
            if row in self._seen:
                raise LineError(f"column {name!r} has two entries in row {words[k]!r}")
            if row != _FREE:
                self._seen.add(row)
            value = _number(words[k + 1])
            if not math.isfinite(value):
                raise LineError(f"the entry of {name!r} is {value}, but must be finite")
            if row == _OBJECTIVE:
                self._costs[-1] = value
            elif row >= 0 and value != 0:
                self._indices.append(row)
                self._values.append(value)
                if len(self._indices) % _LOOK == 0:
                    self._check_size()

    def _begin(self, name: str) -> None:
        if name in self._columns:
            raise LineError(f"column {name!r} goes on after another one began")
        column = self._columns[name] = len(self._costs)
        self._last = name
        self._seen.clear()
        self._costs.append(0.0)
        self._starts.append(len(self._indices))
        if self._integral:
            self._integers.add(column)
            self._binary.add(column)

    def _marker(self, word: str) -> None:
        if word not in ("'INTORG'", "'INTEND'"):
            raise LineError(f"the marker is {word[:20]}, but must be INTORG or INTEND")
        self._integral = word == "'INTORG'"

    def _side(self, section: str, words: list[str]) -> None:
        if len(words) % 2 == 0:
            words = ["", *words]
        if len(words) not in (3, 5):
            raise LineError(
                f"a line of {section} has one or two pairs of row and value, not "
                f"{len(words)} fields"
            )
        if not self._is_chosen(section, words[0]):
            return
        target = self._rhs if section == "RHS" else self._ranges
        for k in range(1, len(words), 2):
            row, value = self._find(words[k]), _number(words[k + 1])
            if row == _OBJECTIVE and section == "RHS":
                if not math.isfinite(value):
                    raise LineError(f"the objective's constant is {value}, not finite")
                self._offset = -value  # the row reads c'x = value
            if row < 0:
                continue
            if row in target:
                raise LineError(f"{section} gives row {words[k]!r} two values")
            target[row] = value

    def _bound(self, words: list[str]) -> None:
        kind = words[0].upper()
        if kind not in _PLAIN + _VALUED:
            kinds = ", ".join(_PLAIN + _VALUED)
            raise LineError(
                f"the type of the bound is {words[0][:8]!r}, but must be one of {kinds}"
            )
        named, name, value = self._parts(kind, words[1:])
        if name not in self._columns:
            raise LineError(f"there is no column {name[:40]!r}")
        if not self._is_chosen("BOUNDS", named):
            return
        number = math.nan
        if kind in _VALUED:
            number = _number(value)
        self._set_bound(kind, self._columns[name], number)

    def _parts(self, kind: str, words: list[str]) -> tuple[str, str, str]:
        """Return the name of the set, the column, and the value as it is written."""
        if len(words) == 3:
            return words[0], words[1], words[2]
        if kind in _PLAIN and len(words) == 2 and words[1] in self._columns:
            return words[0], words[1], ""
        if kind in _PLAIN and len(words) == 1:
            return "", words[0], ""
        if len(words) == 2:
            return "", words[0], words[1]
        raise LineError(
            f"a bound of type {kind} has a set, a column and a value, not "
            f"{len(words)} fields"
        )

    def _set_bound(self, kind: str, j: int, value: float) -> None:
        lower, upper = kind not in _UPPER, kind not in _LOWER
        if (lower and j in self._lower) or (upper and j in self._upper):
            self._repeated += 1
            return
        self._binary.discard(j)
        if kind in ("LI", "UI", "BV", "SI"):
            self._integers.add(j)
        if kind in ("SC", "SI"):
            self._semi.add(j)
        if kind in ("FX", "LO", "LI"):
            self._lower[j] = value
        if kind in ("FX", "UP", "UI", "SC", "SI"):
            self._upper[j] = value
            if kind in ("UP", "UI") and value < 0:
                self._negative.add(j)
        if kind in ("FR", "MI"):
            self._lower[j] = -math.inf
        if kind in ("FR", "PL"):
            self._upper[j] = math.inf
        if kind == "BV":
            self._lower[j], self._upper[j] = 0.0, 1.0

    def _is_chosen(self, section: str, name: str) -> bool:
        """Whether a line is of the first set of its section; others are left out.

        A line without the name of a set is of each.
        """
        if not name:
            return True
        chosen = self._sets.setdefault(section, name)
        if chosen != name:
            self._ignored.add(f"{section} {name}")
        return chosen == name

    def _find(self, name: str) -> int:
        try:
            return self.rows[name]
        except KeyError:
            raise LineError(f"there is no row {name[:40]!r}") from None

    def _check_size(self) -> None:
        sizes = len(self._types), len(self._costs), len(self._indices)
        self._limits.check_declared(*sizes)

    def program(self) -> LinearProgram:
        """Return the program, checked; the file has ended."""
        if self._objective is None and not self._types:
            raise LineError("the file has no rows")
        self._check_size()
        lc, uc = self._row_bounds()
        lv, uv = self._column_bounds()
        _check_bounds("row", [n for n, i in self.rows.items() if i >= 0], lc, uc)
        _check_bounds("column", [*self._columns], lv, uv)
        return linear_program(
            self._matrix(), np.array(self._costs, np.float64), lc, uc, lv, uv,
            offset=self._offset, maximize=self._maximize, notes=self._all_notes(),
        )  # fmt: skip

    def _matrix(self) -> Csr[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Turn columns into rows by a stable sort."""
        shape = (len(self._types), len(self._costs))
        rows = np.array(self._indices, np.int64)
        values = np.array(self._values, np.float64)
        ends = np.append(np.array(self._starts, np.int64), rows.size)
        columns = np.repeat(np.arange(shape[1]), np.diff(ends))
        order = np.argsort(rows, kind="stable")
        kind = np.int32 if max(*shape, rows.size) <= _MOST_32 else np.int64
        indptr = np.zeros(shape[0] + 1, kind)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
        return Csr(indptr, columns[order].astype(kind), values[order], shape)

    def _row_bounds(self) -> tuple[Vector, Vector]:
        count = len(self._types)
        lc, uc = np.full(count, -np.inf), np.full(count, np.inf)
        for i, kind in enumerate(self._types):
            side = self._rhs.get(i, 0.0)
            if kind in ("E", "G"):
                lc[i] = side
            if kind in ("E", "L"):
                uc[i] = side
            if i in self._ranges:
                width = self._ranges[i]
                if kind == "L" or (kind == "E" and width < 0):
                    lc[i] = side - abs(width)
                else:
                    uc[i] = side + abs(width)
        return lc, uc

    def _column_bounds(self) -> tuple[Vector, Vector]:
        count = len(self._costs)
        lv, uv = np.zeros(count), np.full(count, np.inf)
        lv[list(self._freed)] = -np.inf
        for bound, values in ((lv, self._lower), (uv, self._upper)):
            bound[list(values.keys())] = list(values.values())
        uv[list(self._binary)] = 1.0  # integers without a bound are 0 or 1
        for j in self._semi:  # zero or within its bounds: the hull of both
            lv[j] = min(0.0, lv[j])
        return lv, uv

    @property
    def _freed(self) -> set[int]:
        """Columns that a negative upper bound alone leaves without a lower one."""
        return self._negative - self._lower.keys()

    def _all_notes(self) -> tuple[str, ...]:
        notes = []
        if self._integers:
            notes.append(f"{len(self._integers)} integer variables became continuous")
        if self._semi:
            notes.append(f"{len(self._semi)} semi-continuous variables became ranges")
        if self._free:
            notes.append(f"{self._free} further N rows were left out")
        if self._objective is None:
            notes.append("there is no objective row: the objective is 0")
        elif self._named not in (None, self._objective):
            notes.append(
                f"OBJNAME is {self._named!r}, but the first N row is the objective: "
                f"{self._objective!r}"
            )
        if freed := len(self._freed):
            notes.append(f"{freed} negative upper bounds alone took the lower one away")
        if self._repeated:
            notes.append(f"{self._repeated} bounds given again were left out")
        notes += [
            f"{name} was left out: the first set counts"
            for name in sorted(self._ignored)
        ]
        return tuple(notes)


def _check_bounds(what: str, names: list[str], lower: Vector, upper: Vector) -> None:
    """Refuse bounds that nothing is between; the file is known by names."""
    wrong = ~(lower <= upper) | (lower >= INFINITE) | (upper <= -INFINITE)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise LineError(
            f"the bounds of {what} {names[at][:40]!r} are {lower[at]} and {upper[at]}, "
            "but the lower one must not pass the upper one, nor be infinite"
        )


def _number(word: str) -> float:
    try:
        value = float(word.replace("D", "E").replace("d", "e"))
    except ValueError:
        value = math.nan
    if math.isnan(value) or "_" in word:
        raise LineError(f"{word[:40]!r} is no number")
    return value
