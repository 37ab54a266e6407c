"""To whom matrices belong; the same content of two owners is stored once.

A matrix without an owner belongs to nobody in particular: one that was put while no
keys were asked for. Everybody may use it, and only an admin may delete it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    case,
    exists,
    select,
)
from sqlalchemy import delete as sql_delete

from nnz_service.errors import ForbiddenError, TooLargeError
from nnz_service.repository.tables import MATRICES, MATRIX_OWNERS

#: Seconds for which an answer holds: as long as an owner may still use a matrix that
#: was deleted through another process and has other owners.
_FRESH = 5.0
#: Pairs of matrix and owner remembered.
_PAIRS = 4096


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom the catalog is asked.

    Args:
        id: Of their key; empty for nobody in particular.
        all: Whether everything is theirs to see and to delete.
        most: Bytes of matrices that they may have; None for no bound.
    """

    id: str = ""
    all: bool = True
    most: int | None = None


EVERYBODY = Owner()


def matrices_of(owner: Owner) -> Select[Any]:
    """Select the matrices that an owner sees, under the names that they gave."""
    own = (MATRIX_OWNERS.c.matrix == MATRICES.c.id) & (
        MATRIX_OWNERS.c.owner == owner.id
    )
    theirs = ("name", "created")
    # An owner who gave no name is not shown the one that another owner gave.
    stranger = MATRIX_OWNERS.c.owner.is_(None)
    columns: list[ColumnElement[Any]] = [
        case((stranger, column), else_=MATRIX_OWNERS.c[column.name]).label(column.name)
        if column.name in theirs
        else column
        for column in MATRICES.c
    ]
    query = select(*columns).select_from(MATRICES.outerjoin(MATRIX_OWNERS, own))
    if owner.all:
        return query
    anybody = MATRIX_OWNERS.alias()
    owned = exists().where(anybody.c.matrix == MATRICES.c.id)
    return query.where(MATRIX_OWNERS.c.owner.is_not(None) | ~owned)


def own(
    connection: Connection,
    matrix: str,
    owner: Owner,
    name: str | None,
    now: float,
    folder: Path,
) -> bool:
    """Make somebody an owner of a stored matrix; returns whether they were none.

    One without owners stays so: it would vanish for all others.
    """
    if not owner.id:
        _rename(connection, MATRICES, MATRICES.c.id == matrix, name)
        return False
    if owner.id in (owners := _owners(connection, matrix)):
        _rename(connection, MATRIX_OWNERS, _row(matrix, owner), name)
        return False
    if owners:
        add_owner(connection, matrix, owner, name, now, folder)
    return bool(owners)


def add_owner(
    connection: Connection,
    matrix: str,
    owner: Owner,
    name: str | None,
    now: float,
    folder: Path,
) -> None:
    """Write down a further owner, or the first; nobody in particular is none.

    Raises:
        TooLargeError: The owner may not have so much.
    """
    if owner.id:
        _check_room(connection, matrix, owner, folder)
        connection.execute(
            MATRIX_OWNERS.insert().values(
                matrix=matrix, owner=owner.id, name=name, created=now
            )
        )


def _check_room(
    connection: Connection, matrix: str, owner: Owner, folder: Path
) -> None:
    """Refuse one more matrix, which is stored, to whom has enough."""
    if owner.most is None:
        return
    theirs = select(MATRIX_OWNERS.c.matrix).where(MATRIX_OWNERS.c.owner == owner.id)
    wanted = MATRICES.c.id.in_(theirs) | (MATRICES.c.id == matrix)
    columns = MATRICES.c.sha256, MATRICES.c.bytes, MATRICES.c.pattern
    sizes: dict[str, int] = {}
    for sha256, nbytes, pattern in connection.execute(select(*columns).where(wanted)):
        sizes[sha256] = nbytes
        if pattern is not None:  # kept for its sake, whoever else had it
            sizes.setdefault(pattern, _size_of(folder / pattern))
    total = sum(sizes.values())
    if total > owner.most:
        raise TooLargeError(
            f"with this matrix the key would keep {total} bytes, and {owner.most} are "
            "allowed (`nnz keys create --stored`); delete some of its matrices"
        )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def disown(connection: Connection, matrix: str, owner: Owner) -> bool:
    """End an ownership; returns whether nobody is left.

    An admin who has none ends all.

    Raises:
        ForbiddenError: It belongs to nobody in particular.
    """
    ended = connection.execute(sql_delete(MATRIX_OWNERS).where(_row(matrix, owner)))
    if ended.rowcount:
        return not _owners(connection, matrix)
    if not owner.all:
        raise ForbiddenError(
            f"{matrix} belongs to nobody in particular; only an admin key deletes it"
        )
    gone = MATRIX_OWNERS.c.matrix == matrix
    connection.execute(sql_delete(MATRIX_OWNERS).where(gone))
    return True


def _owners(connection: Connection, matrix: str) -> set[str]:
    query = select(MATRIX_OWNERS.c.owner).where(MATRIX_OWNERS.c.matrix == matrix)
    return {owner for (owner,) in connection.execute(query)}


def _row(matrix: str, owner: Owner) -> ColumnElement[bool]:
    return (MATRIX_OWNERS.c.matrix == matrix) & (MATRIX_OWNERS.c.owner == owner.id)


def _rename(
    connection: Connection, table: Table, which: ColumnElement[bool], name: str | None
) -> None:
    if name is not None:
        connection.execute(table.update().where(which).values(name=name))


class Sightings:
    """Who saw which matrix a moment ago, so that a request costs no query.

    Only what was seen is remembered: an upload counts at once. Thread-safe.

    Args:
        ticks: Gives monotonic seconds.
    """

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._until: dict[tuple[str, str], float] = {}

    def fresh(self, matrix: str, owner: Owner) -> bool:
        """Whether they saw it a moment ago."""
        return self._ticks() < self._until.get((matrix, owner.id), 0.0)

    def note(self, matrix: str, owner: Owner) -> None:
        """Remember that they see it now."""
        if len(self._until) >= _PAIRS:
            self._until.clear()
        self._until[matrix, owner.id] = self._ticks() + _FRESH

    def drop(self, matrix: str, owner: Owner) -> None:
        """Forget it, after a deletion."""
        self._until.pop((matrix, owner.id), None)
