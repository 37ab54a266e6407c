from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest

from nnz_service.errors import MalformedError, NotFoundError, TooLargeError
from nnz_service.repository import BlobStore, bundles


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(blobs: BlobStore) -> list[str]:
    folder = blobs.staged().parent.parent
    return sorted(p.name for p in folder.iterdir() if p.is_file())


class TestWriter:
    def test_named_by_content(self, blobs: BlobStore) -> None:
        with blobs.writer() as writer:
            writer.write(b"ab")
            writer.write(memoryview(b"cd"))
            blob = writer.commit()

        assert blob.sha256 == hashlib.sha256(b"abcd").hexdigest()
        assert (blob.path.read_bytes(), blob.bytes) == (b"abcd", 4)
        assert blobs.path(blob.sha256) == blob.path

    def test_same_content_is_one_blob(self, blobs: BlobStore) -> None:
        for _ in range(2):
            with blobs.writer() as writer:
                writer.write(b"same")
                writer.commit()

        assert len(files(blobs)) == 1

    def test_nothing_stays_when_there_is_no_room(self, blobs: BlobStore) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with blobs.writer() as writer:
                writer.write(b"more than ten bytes")
                with pytest.raises(OSError, match="too large"):
                    writer.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert not writer.path.exists()

    def test_nothing_stays_without_commit(self, blobs: BlobStore) -> None:
        with blobs.writer() as writer:
            writer.write(b"half")
            path = writer.flush()
            assert path.read_bytes() == b"half"

        assert not path.exists()
        assert files(blobs) == []

    def test_limit_to_the_byte(self, blobs: BlobStore) -> None:
        with blobs.writer(limit=4) as writer:
            writer.write(b"1234")

            with pytest.raises(TooLargeError, match="limit of 4 bytes"):
                writer.write(b"5")

        assert files(blobs) == []


class TestBlobStore:
    def test_absent(self, blobs: BlobStore) -> None:
        with pytest.raises(NotFoundError, match="abc"):
            blobs.path("abc")
        blobs.delete("abc")

    def test_adopt_moves(self, blobs: BlobStore) -> None:
        path = blobs.staged()
        path.write_bytes(b"xyz")

        blob = blobs.adopt(path)

        assert not path.exists()
        assert blob.sha256 == hashlib.sha256(b"xyz").hexdigest()

    def test_sweep_keeps_what_is_used(self, blobs: BlobStore) -> None:
        kept = bundles.save(blobs, {"x": np.arange(3)})
        bundles.save(blobs, {"x": np.arange(4)})
        half = blobs.staged()

        assert blobs.sweep({kept.sha256}) == 2

        assert not half.exists()
        assert files(blobs) == [kept.sha256]


class TestBundles:
    def test_round_trip(self, blobs: BlobStore) -> None:
        arrays = {
            "b": np.arange(5.0),
            "a": np.int32(7).reshape(()),
            "e": np.empty((0, 2)),
        }

        back = bundles.load(bundles.save(blobs, arrays).path)

        assert sorted(back) == ["a", "b", "e"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
            assert back[name].dtype == array.dtype

    def test_same_arrays_same_blob(self, blobs: BlobStore) -> None:
        one = bundles.save(blobs, {"x": np.ones(3), "y": np.zeros(2)})
        two = bundles.save(blobs, {"y": np.zeros(2), "x": np.ones(3)})

        assert one == two

    def test_no_pickle_in(self, blobs: BlobStore) -> None:
        with pytest.raises(ValueError, match="allow_pickle"):
            bundles.save(blobs, {"x": np.array([object()])})

        assert files(blobs) == []

    def test_no_pickle_out(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))

        with pytest.raises(MalformedError, match="not a bundle"):
            bundles.load(tmp_path / "x.npz")

    @pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npz").write_bytes(content)

        with pytest.raises(MalformedError, match="not a bundle"):
            bundles.load(tmp_path / "x.npz")
