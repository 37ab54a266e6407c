"""The catalog: which models and matrices are stored, and which should be resident."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, desc, select
from sqlalchemy import delete as sql_delete

from nnz_service.database import catalog_of, open_tables, reading, writing
from nnz_service.errors import ConflictError, NotFoundError, TooLargeError
from nnz_service.repository.binding import bind
from nnz_service.repository.blob_uses import is_used, used
from nnz_service.repository.blobs import BlobStore
from nnz_service.repository.owners import (
    EVERYBODY,
    Owner,
    Sightings,
    add_owner,
    disown,
    matrices_of,
    own,
)
from nnz_service.repository.records import (
    Blob,
    MatrixRecord,
    ModelRecord,
    check_name,
    check_same,
    check_version,
    is_matrix_id,
    is_name,
    is_version,
    matrix_id,
    matrix_row,
)
from nnz_service.repository.tables import MATRICES, MODELS, matrix_of, model_of
from nnz_service.repository.uploads import UploadStore

#: Columns that name blobs.


class Repository:
    """Models and matrices under one home; synchronous and thread-safe.

    Args:
        home: Folder of `catalog.sqlite` and `blobs/`; made when it is not there.
        clock: Gives seconds since 1970.
        database_url: Where the catalog is instead; blobs stay in the home.
    """

    def __init__(
        self,
        home: Path,
        clock: Callable[[], float] = time.time,
        database_url: str | None = None,
    ) -> None:
        self._engine: Engine = open_tables(catalog_of(home, database_url))
        self._elsewhere = database_url is not None
        self._folder = home.resolve() / "blobs"
        self._clock = clock
        self.home = home.resolve()
        self.blobs = BlobStore(self._folder)
        self.uploads = UploadStore(self.home / "uploads")
        self._sightings = Sightings()

    def bind(self) -> None:
        """Make sure that this home and this database belong together.

        Raises:
            ConflictError: They do not.
        """
        bind(self.home, self._engine, elsewhere=self._elsewhere)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    # Models

    def put_model(
        self, name: str, version: str | None, blob: Blob, info: Mapping[str, Any]
    ) -> tuple[ModelRecord, bool]:
        """Record an uploaded model; `info` has `inputs` and `outputs`.

        Without a version, content that the newest one has is found again, and other
        content becomes the next version. Returns the record and whether it is new.

        Raises:
            ConflictError: when that version is there with other content.
            ImpossibleError: when name or version is not usable.
        """
        check_name(name)
        if version is not None:
            check_version(version)
        with writing(self._engine) as connection:
            latest = self._model_row(connection, name, version)
            if latest is not None and latest.sha256 == blob.sha256:
                self._want(connection, latest, wanted=True)
                return self._find_model(connection, name, latest.version), False
            if latest is not None and version is not None:
                raise ConflictError(
                    f"model {name!r} version {version} is there with other content; "
                    "delete it first or choose another version"
                )
            number = int(version or (int(latest.version) + 1 if latest else 1))
            self._require(blob)
            self._insert_model(connection, name, number, blob, info, source="put")
            return self._find_model(connection, name, str(number)), True

    def put_directory_model(
        self, name: str, version: str, blob: Blob, info: Mapping[str, Any]
    ) -> ModelRecord:
        """Record a model that lies in the folder of models, replacing what it said.

        `info` may have a `reason` why the file cannot be served.

        Raises:
            ConflictError: when an uploaded model has that name and version.
        """
        with writing(self._engine) as connection:
            old = self._model_row(connection, check_name(name), check_version(version))
            if old is not None and old.source != "directory":
                raise ConflictError(
                    f"model {name!r} version {version} was uploaded already; "
                    f"{blob.path} is not served"
                )
            self._delete_models(connection, name, version)
            self._insert_model(
                connection, name, int(version), blob, info, source="directory"
            )
            return self._find_model(connection, name, version)

    def models(self) -> list[ModelRecord]:
        """Every version of every model, by name, newest version first."""
        query = select(MODELS).order_by(MODELS.c.name, MODELS.c.version.desc())
        with reading(self._engine) as connection:
            return [model_of(row, self._folder) for row in connection.execute(query)]

    def model(self, name: str, version: str | None = None) -> ModelRecord:
        """One version, the newest when none is named.

        Raises:
            NotFoundError: when there is none.
        """
        with reading(self._engine) as connection:
            return self._find_model(connection, name, version)

    def delete_model(self, name: str, version: str | None = None) -> None:
        """Forget one version or all, and their blobs unless something else has them.

        Raises:
            NotFoundError: when there is none.
        """
        with writing(self._engine) as connection:
            self._find_model(connection, name, version)
            gone = self._delete_models(connection, name, version)
        self._drop_blobs(gone)

    def set_wanted(self, name: str, version: str, wanted: bool) -> None:
        """Say whether a worker should hold this version, also after a restart.

        Raises:
            NotFoundError: when there is none.
        """
        with writing(self._engine) as connection:
            record = self._find_model(connection, name, version)
            self._want(connection, record, wanted=wanted)

    # Matrices

    def put_matrix(
        self,
        blob: Blob,
        info: Mapping[str, Any],
        name: str | None = None,
        owner: Owner = EVERYBODY,
        identity: str | None = None,
    ) -> tuple[MatrixRecord, bool]:
        """Record a matrix by its resident form; returns it and whether it is new.

        A matrix that is there keeps everything but its name, if one is given; to
        whom it did not belong it is new all the same.

        Args:
            blob: A bundle, as the intake writes it.
            info: `shape` (m, n), `nnz`, `dtype`, `index_dtype`; `facts` if known;
                `pattern`, the hash of the blob that holds its places, if another does.
            name: What people may call it; only shown.
            owner: To whom it belongs from now on.
            identity: Its id, where the blob is not the whole of it.

        Raises:
            ConflictError: Another matrix has that id, or the blob is gone.
            TooLargeError: The owner may not have so much.
        """
        try:
            key = identity or matrix_id(blob.sha256)
            return self._put_matrix(key, blob, info, name, owner)
        except TooLargeError:
            self._drop_blobs((blob.sha256,))
            raise

    def _put_matrix(
        self,
        identity: str,
        blob: Blob,
        info: Mapping[str, Any],
        name: str | None,
        owner: Owner,
    ) -> tuple[MatrixRecord, bool]:
        now = self._clock()
        with writing(self._engine) as connection:
            query = matrices_of(owner).where(MATRICES.c.id == identity)
            there = select(MATRICES).where(MATRICES.c.id == identity)
            if (old := connection.execute(there).first()) is not None:
                check_same(matrix_of(old, self._folder), blob, info)
                new = own(connection, identity, owner, name, now, self._folder)
                return matrix_of(connection.execute(query).one(), self._folder), new
            self._require(blob)
            if (pattern := info.get("pattern")) is not None:
                self._require(Blob(pattern, self._folder / pattern, 0))
            row = matrix_row(identity, name, blob, info, now)
            connection.execute(MATRICES.insert().values(row))
            add_owner(connection, identity, owner, name, now, self._folder)
            return matrix_of(connection.execute(query).one(), self._folder), True

    def matrices(self, owner: Owner = EVERYBODY) -> list[MatrixRecord]:
        """Every matrix that the owner sees, newest first."""
        query = matrices_of(owner).order_by(desc("created"), MATRICES.c.id)
        with reading(self._engine) as connection:
            return [matrix_of(row, self._folder) for row in connection.execute(query)]

    def matrix(self, identity: str, owner: Owner = EVERYBODY) -> MatrixRecord:
        """One matrix.

        Raises:
            NotFoundError: when there is none, or none that the owner sees.
        """
        query = matrices_of(owner).where(MATRICES.c.id == identity)
        row = None
        if is_matrix_id(identity):
            with reading(self._engine) as connection:
                row = connection.execute(query).first()
        if row is None:
            raise NotFoundError(f"there is no matrix {identity!r}")
        if not owner.all:
            self._sightings.note(identity, owner)
        return matrix_of(row, self._folder)

    def note_facts(self, identity: str, facts: Mapping[str, Any] | None) -> None:
        """Keep what was found out about a matrix, or forget it; none need be there."""
        with writing(self._engine) as connection:
            connection.execute(
                MATRICES.update().where(MATRICES.c.id == identity).values(facts=facts)
            )

    def set_pinned(self, identity: str, pinned: bool) -> None:
        """Say whether workers should always hold a matrix, also after a restart."""
        with writing(self._engine) as connection:
            connection.execute(
                MATRICES.update().where(MATRICES.c.id == identity).values(pinned=pinned)
            )

    def pinned(self) -> list[MatrixRecord]:
        """Every matrix that workers should always hold."""
        return [matrix for matrix in self.matrices() if matrix.pinned]

    def saw(self, identity: str, owner: Owner) -> bool:
        """Whether the owner saw the matrix within the last seconds; asks no disk."""
        return self._sightings.fresh(identity, owner)

    def delete_matrix(self, identity: str, owner: Owner = EVERYBODY) -> bool:
        """End the ownership of a matrix; it goes, with its blob, with the last one.

        Returns:
            Whether it is gone.

        Raises:
            NotFoundError: when there is none that the owner sees.
            ForbiddenError: when it belongs to nobody in particular.
        """
        record = self.matrix(identity, owner)
        self._sightings.drop(identity, owner)
        with writing(self._engine) as connection:
            if not disown(connection, identity, owner):
                return False
            connection.execute(sql_delete(MATRICES).where(MATRICES.c.id == identity))
        self._drop_blobs((record.sha256, record.pattern))
        return True

    def used_blobs(self) -> set[str]:
        """Every blob that a model or a matrix needs."""
        with reading(self._engine) as connection:
            return used(connection)

    def needs(self, sha256: str) -> bool:
        """Whether a model or a matrix needs a blob."""
        with reading(self._engine) as connection:
            return is_used(connection, sha256)

    def _drop_blobs(self, gone: Iterable[str | None]) -> None:
        """Delete the blobs that no record needs any more.

        Not before their records are gone for good: the end of the process in between
        leaves blobs that the next start sweeps, not records without content. The lock
        keeps a new record from being written for a blob that goes.
        """
        with writing(self._engine) as connection:
            for sha in filter(None, gone):
                if not is_used(connection, sha):
                    self.blobs.delete(sha)

    # Inside a transaction

    def _model_row(
        self, connection: Connection, name: str, version: str | None
    ) -> ModelRecord | None:
        query: Select[Any] = select(MODELS).where(MODELS.c.name == name)
        if version is not None:
            query = query.where(MODELS.c.version == int(version))
        row = connection.execute(query.order_by(MODELS.c.version.desc())).first()
        return None if row is None else model_of(row, self._folder)

    def _find_model(
        self, connection: Connection, name: str, version: str | None
    ) -> ModelRecord:
        record = None
        if is_name(name) and (version is None or is_version(version)):
            record = self._model_row(connection, name, version)
        if record is None:
            suffix = "" if version is None else f" version {version}"
            raise NotFoundError(f"there is no model {name!r}{suffix}")
        return record

    def _insert_model(
        self,
        connection: Connection,
        name: str,
        version: int,
        blob: Blob,
        info: Mapping[str, Any],
        *,
        source: str,
    ) -> None:
        reason = info.get("reason")
        connection.execute(
            MODELS.insert().values(
                name=name,
                version=version,
                sha256=blob.sha256,
                path=str(blob.path) if source == "directory" else None,
                bytes=blob.bytes,
                inputs=info.get("inputs", []),
                outputs=info.get("outputs", []),
                source=source,
                wanted=reason is None,
                reason=reason,
                created=self._clock(),
            )
        )

    def _want(
        self, connection: Connection, record: ModelRecord, *, wanted: bool
    ) -> None:
        connection.execute(
            MODELS.update()
            .where(
                MODELS.c.name == record.name, MODELS.c.version == int(record.version)
            )
            .values(wanted=wanted)
        )

    def _delete_models(
        self, connection: Connection, name: str, version: str | None
    ) -> set[str]:
        chosen = MODELS.c.name == name
        if version is not None:
            chosen &= MODELS.c.version == int(version)
        gone = {
            sha for (sha,) in connection.execute(select(MODELS.c.sha256).where(chosen))
        }
        connection.execute(sql_delete(MODELS).where(chosen))
        return gone

    def _require(self, blob: Blob) -> None:
        if not blob.path.is_file():
            raise ConflictError("the same content was deleted meanwhile; send it again")
