from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nnz_service.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
)
from nnz_service.repository import Blob, Owner, Repository
from nnz_service.repository.owners import Sightings

INFO = {"shape": [3, 4], "nnz": 5, "dtype": "FP64", "index_dtype": "INT32"}
ANN, BOB = Owner("k-1", all=False), Owner("k-2", all=False)
ADMIN = Owner("k-3", all=True)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def blob(repository: Repository) -> Blob:
    with repository.blobs.writer() as writer:
        writer.write(b"matrix")
        return writer.commit()


class TestOwners:
    def test_new_to_each_owner_once(self, repository: Repository, blob: Blob) -> None:
        news = [
            repository.put_matrix(blob, INFO, None, owner)[1]
            for owner in (ANN, ANN, BOB, BOB, ADMIN, ADMIN)
        ]

        assert news == [True, False, True, False, True, False]
        assert len(repository.matrices()) == 1

    def test_goes_with_the_last(self, repository: Repository, blob: Blob) -> None:
        matrix = repository.put_matrix(blob, INFO, None, ANN)[0].id
        repository.put_matrix(blob, INFO, None, BOB)

        assert not repository.delete_matrix(matrix, ANN)
        with pytest.raises(NotFoundError):
            repository.delete_matrix(matrix, ANN)
        assert blob.path.exists()
        assert repository.delete_matrix(matrix, BOB)
        assert not blob.path.exists()

    def test_an_admin_gives_up_what_is_theirs(
        self, repository: Repository, blob: Blob
    ) -> None:
        """A second time it goes for all: then it is the others' that they remove."""
        matrix = repository.put_matrix(blob, INFO, None, ANN)[0].id
        repository.put_matrix(blob, INFO, None, ADMIN)

        assert not repository.delete_matrix(matrix, ADMIN)

        assert repository.matrix(matrix, ANN).id == matrix
        assert repository.delete_matrix(matrix, ADMIN)
        assert not blob.path.exists()

    def test_no_more_than_they_may_have(self, repository: Repository) -> None:
        """Those of others do not count, and what was theirs already does once."""
        ann = replace(ANN, most=10)

        def put(content: bytes, owner: Owner) -> str:
            with repository.blobs.writer() as writer:
                writer.write(content)
                blob = writer.commit()
            return repository.put_matrix(blob, INFO, None, owner)[0].id

        put(b"123456", BOB)
        first = put(b"1234", ann)
        put(b"12345", ann)
        put(b"12345", ann)

        with pytest.raises(TooLargeError, match="keep 15 bytes, and 10 are allowed"):
            put(b"123456", ann)
        assert len(repository.matrices(ann)) == 2
        with pytest.raises(TooLargeError):
            put(b"1234567890", ann)  # which nobody else has: it goes at once
        assert len([*(repository.home / "blobs").glob("?*" * 32)]) == 3
        repository.delete_matrix(first, ann)
        with pytest.raises(TooLargeError):
            put(b"123456", ann)
        put(b"54321", ann)

    def test_places_of_a_matrix_that_is_gone_count(
        self, repository: Repository
    ) -> None:
        """They are kept for the one that has other values at them."""
        ann = replace(ANN, most=10)

        def stored(content: bytes) -> Blob:
            with repository.blobs.writer() as writer:
                writer.write(content)
                return writer.commit()

        places = stored(b"123456")
        base = repository.put_matrix(places, INFO, None, ann)[0].id
        info = INFO | {"pattern": places.sha256}
        repository.put_matrix(stored(b"xyz"), info, None, ann, "m-0123456789abcdef")
        repository.delete_matrix(base, ann)

        with pytest.raises(TooLargeError, match="keep 11 bytes"):
            repository.put_matrix(stored(b"AB"), INFO, None, ann)
        repository.put_matrix(stored(b"A"), INFO, None, ann)

    def test_nobodys(self, repository: Repository, blob: Blob) -> None:
        matrix = repository.put_matrix(blob, INFO, "shared")[0].id

        assert repository.put_matrix(blob, INFO, "mine", ANN)[1] is False
        assert repository.matrix(matrix, BOB).name == "shared"
        assert [m.id for m in repository.matrices(BOB)] == [matrix]
        with pytest.raises(ForbiddenError):
            repository.delete_matrix(matrix, ANN)
        assert repository.delete_matrix(matrix, ADMIN)

    def test_names_are_each_owners_own(
        self, repository: Repository, blob: Blob
    ) -> None:
        matrix = repository.put_matrix(blob, INFO, "of ann", ANN)[0].id
        repository.put_matrix(blob, INFO, "of bob", BOB)
        repository.put_matrix(blob, INFO, "again", ANN)

        assert repository.matrix(matrix, ANN).name == "again"
        assert repository.matrix(matrix, BOB).name == "of bob"

    def test_nobody_reads_the_name_that_another_gave(
        self, repository: Repository, blob: Blob
    ) -> None:
        matrix = repository.put_matrix(blob, INFO, "secret of ann", ANN)[0].id

        assert repository.put_matrix(blob, INFO, None, BOB)[0].name is None
        assert [m.name for m in repository.matrices(BOB)] == [None]
        assert repository.matrix(matrix, ADMIN).name == "secret of ann"

    @pytest.mark.parametrize("owner", [ANN, BOB])
    def test_other_content_of_the_same_id_is_refused(
        self, repository: Repository, blob: Blob, owner: Owner
    ) -> None:
        matrix = repository.put_matrix(blob, INFO, None, ANN)[0].id
        with repository.blobs.writer() as writer:
            writer.write(b"made to have the same 64 bits")
            other = writer.commit()

        with pytest.raises(ConflictError, match=matrix):
            repository.put_matrix(other, INFO, None, owner, matrix)
        with pytest.raises(ConflictError, match=matrix):
            repository.put_matrix(
                other, INFO | {"nnz": 6, "pattern": blob.sha256}, None, owner, matrix
            )

    def test_a_deletion_is_seen_at_once(
        self, repository: Repository, blob: Blob
    ) -> None:
        matrix = repository.put_matrix(blob, INFO, None, ANN)[0].id
        repository.put_matrix(blob, INFO, None, BOB)
        repository.matrix(matrix, ANN)
        assert repository.saw(matrix, ANN)

        repository.delete_matrix(matrix, ANN)

        assert not repository.saw(matrix, ANN)


class TestSightings:
    def test_fresh_for_a_moment(self) -> None:
        now = [100.0]
        sightings = Sightings(lambda: now[0])
        sightings.note("m", ANN)

        assert sightings.fresh("m", ANN)
        assert not sightings.fresh("m", BOB)
        now[0] += 5.0
        assert not sightings.fresh("m", ANN)

    def test_bounded(self) -> None:
        sightings = Sightings(lambda: 0.0)
        for number in range(20_000):
            sightings.note(f"m-{number}", ANN)

        assert len(sightings._until) <= 4096
        assert sightings.fresh("m-19999", ANN)
