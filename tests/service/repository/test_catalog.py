from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnz_service.errors import ConflictError, ImpossibleError, NotFoundError
from nnz_service.repository import Blob, Repository, is_matrix_id

INFO = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": []}
MATRIX = {"shape": [3, 4], "nnz": 5, "dtype": "FP64", "index_dtype": "INT32"}


@pytest.fixture
def repository(tmp_path: Path, database_url: str | None) -> Iterator[Repository]:
    """A catalog in each database in turn."""
    ticks = itertools.count(1000.0)
    home = tmp_path / "home"
    made = Repository(home, lambda: next(ticks), database_url)
    yield made
    made.close()


def blob(repository: Repository, content: bytes) -> Blob:
    with repository.blobs.writer() as writer:
        writer.write(content)
        return writer.commit()


class TestModels:
    def test_versions_count_up(self, repository: Repository) -> None:
        first, new = repository.put_model("net", None, blob(repository, b"1"), INFO)
        second, _ = repository.put_model("net", None, blob(repository, b"2"), INFO)

        assert (first.version, second.version, new) == ("1", "2", True)
        assert repository.model("net") == second
        assert repository.model("net", "1") == first
        assert [r.version for r in repository.models()] == ["2", "1"]
        assert (first.source, first.wanted, first.inputs) == (
            "put",
            True,
            INFO["inputs"],
        )

    def test_same_content_is_found_again(self, repository: Repository) -> None:
        repository.put_model("net", None, blob(repository, b"1"), INFO)
        repository.set_wanted("net", "1", False)

        again, new = repository.put_model("net", None, blob(repository, b"1"), INFO)

        assert (again.version, new) == ("1", False)
        assert again.wanted

    def test_version_with_other_content(self, repository: Repository) -> None:
        repository.put_model("net", "7", blob(repository, b"1"), INFO)

        with pytest.raises(ConflictError, match="version 7 is there"):
            repository.put_model("net", "7", blob(repository, b"2"), INFO)

        assert repository.put_model("net", "3", blob(repository, b"2"), INFO)[1]
        assert repository.model("net").version == "7"

    @pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 129, "m-0123456789abcdef"])
    def test_unusable_names(self, repository: Repository, name: str) -> None:
        with pytest.raises(ImpossibleError, match="model name"):
            repository.put_model(name, None, blob(repository, b"1"), INFO)

    @pytest.mark.parametrize("version", ["", "0", "01", "-1", "1.0", "x", "9" * 19])
    def test_unusable_versions(self, repository: Repository, version: str) -> None:
        with pytest.raises(ImpossibleError, match="version"):
            repository.put_model("net", version, blob(repository, b"1"), INFO)

    @pytest.mark.parametrize("version", [None, "2", "x", "9" * 30])
    def test_absent(self, repository: Repository, version: str | None) -> None:
        if version is not None:
            repository.put_model("net", None, blob(repository, b"1"), INFO)

        with pytest.raises(NotFoundError, match="no model 'net'"):
            repository.model("net", version)

    def test_delete_takes_the_blob(self, repository: Repository) -> None:
        shared, own = blob(repository, b"shared"), blob(repository, b"own")
        repository.put_model("one", None, shared, INFO)
        repository.put_model("two", None, shared, INFO)
        repository.put_model("one", None, own, INFO)

        repository.delete_model("one")

        assert [r.name for r in repository.models()] == ["two"]
        assert shared.path.exists()
        assert not own.path.exists()
        assert repository.used_blobs() == {shared.sha256}
        with pytest.raises(NotFoundError):
            repository.delete_model("one")

    def test_blob_deleted_meanwhile(self, repository: Repository) -> None:
        gone = blob(repository, b"1")
        gone.path.unlink()

        with pytest.raises(ConflictError, match="send it again"):
            repository.put_model("net", None, gone, INFO)

    def test_survives_a_restart_and_a_move(self, tmp_path: Path) -> None:
        before = Repository(tmp_path / "a")
        before.put_model("net", None, blob(before, b"1"), INFO)
        before.close()
        (tmp_path / "a").rename(tmp_path / "b")

        after = Repository(tmp_path / "b")

        assert after.model("net").path.read_bytes() == b"1"
        after.close()


class TestDirectoryModels:
    def put(self, repository: Repository, path: Path, info: dict[str, Any]) -> None:
        entry = Blob("ab", path, 1)
        repository.put_directory_model("net", "1", entry, info)

    def test_replaced_in_place(self, repository: Repository, tmp_path: Path) -> None:
        self.put(repository, tmp_path / "a.onnx", {"reason": "broken"})
        broken = repository.model("net")
        self.put(repository, tmp_path / "b.onnx", INFO)

        assert (broken.wanted, broken.reason) == (False, "broken")
        record = repository.model("net")
        assert (record.path, record.source) == (tmp_path / "b.onnx", "directory")
        assert record.wanted

    def test_uploaded_model_stays(self, repository: Repository, tmp_path: Path) -> None:
        repository.put_model("net", None, blob(repository, b"1"), INFO)

        with pytest.raises(ConflictError, match="was uploaded already"):
            self.put(repository, tmp_path / "a.onnx", INFO)


class TestMatrices:
    def test_round_trip(self, repository: Repository) -> None:
        stored = blob(repository, b"matrix")

        record, new = repository.put_matrix(stored, MATRIX, "poisson")

        assert new
        assert is_matrix_id(record.id)
        assert record == repository.matrix(record.id)
        assert (record.shape, record.nnz, record.name) == ((3, 4), 5, "poisson")
        assert repository.put_matrix(stored, MATRIX) == (record, False)
        assert repository.matrices() == [record]

    def test_the_last_name_given_counts(self, repository: Repository) -> None:
        """
        The content is the identity; what people call it may change.
        """
        stored = blob(repository, b"matrix")
        record, _ = repository.put_matrix(stored, MATRIX)

        renamed, new = repository.put_matrix(stored, MATRIX, "poisson")

        assert not new
        assert renamed == dataclasses.replace(record, name="poisson")
        assert repository.matrices() == [renamed]

    def test_delete(self, repository: Repository) -> None:
        stored = blob(repository, b"matrix")
        record, _ = repository.put_matrix(stored, MATRIX)

        repository.delete_matrix(record.id)

        assert not stored.path.exists()
        with pytest.raises(NotFoundError, match=record.id):
            repository.matrix(record.id)
        with pytest.raises(NotFoundError, match=record.id):
            repository.delete_matrix(record.id)

    def test_a_record_never_loses_its_content(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process ends as it deletes: the record is gone before the blob."""
        record, _ = repository.put_matrix(blob(repository, b"matrix"), MATRIX)

        def die(sha256: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(repository.blobs, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            repository.delete_matrix(record.id)

        assert repository.matrices() == []
        assert record.sha256 not in repository.used_blobs()
