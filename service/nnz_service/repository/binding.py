"""A home and a database elsewhere belong together: one has the files, one the records.

Files that the catalog does not name are removed when a server starts, so a home must
never meet another catalog.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import Engine, select

from nnz_service.database import reading, writing
from nnz_service.errors import ConflictError
from nnz_service.repository.tables import HOMES

#: In the home: the name under which its database knows it.
_FILE = "database-id"


def bind(home: Path, engine: Engine, *, elsewhere: bool) -> None:
    """Bind a home to its catalog, or check that it is.

    Args:
        home: Folder of the blobs.
        engine: Of the catalog.
        elsewhere: Whether that is not the home's own file.

    Raises:
        ConflictError: One of them belongs to another.
    """
    file = home / _FILE
    ours = file.read_text().strip() if file.exists() else None
    if not elsewhere:
        if ours is not None:
            raise ConflictError(
                f"what {home} holds is recorded in another database: set "
                "NNZ_DATABASE_URL to it, or choose another home"
            )
        return
    with reading(engine) as connection:
        theirs = connection.execute(select(HOMES.c.id)).scalar()
    if ours is not None and ours == theirs:
        return
    if ours is not None or theirs is not None:
        raise ConflictError(
            f"the database records what another home than {home} holds: choose that "
            "home, or an empty database for an empty home"
        )
    if (home / "catalog.sqlite").exists():
        raise ConflictError(
            f"{home} has a catalog of its own (catalog.sqlite): choose an empty home "
            "for this database, or unset NNZ_DATABASE_URL"
        )
    name = uuid.uuid4().hex
    with writing(engine) as connection:
        connection.execute(HOMES.insert().values(id=name))
        file.write_text(f"{name}\n")
