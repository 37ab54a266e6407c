from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.convert import csr_from_dense, csr_to_dense, csr_to_scipy
from nnz_service.algebra.files import (
    Limits,
    canonical,
    csr_from_arrays,
    csr_from_triplets,
    read_matrix,
    read_resident,
    write_resident,
)
from nnz_service.errors import (
    InvalidMatrixError,
    TooLargeError,
    UnsupportedMediaError,
)

DENSE = np.array([[0.0, 2, 0, 0], [0, 0, 0, 0], [3, 4, 0, -1]])
NPZ = "application/x-npz"


def save(path: Path, **members: Any) -> Path:
    """Write an .npz with exactly these members."""
    np.savez(path, **members)
    return path


def good() -> dict[str, Any]:
    a = csr_from_dense(DENSE)
    return {
        "format": np.array(b"csr"),
        "shape": np.array([3, 4]),
        "indptr": a.indptr,
        "indices": a.indices,
        "data": a.data,
    }


class TestNpz:
    @pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
    @pytest.mark.parametrize("compressed", [True, False])
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "c8", "c16"])
    def test_what_scipy_saves(
        self, tmp_path: Path, kind: str, compressed: bool, dtype: str
    ) -> None:
        """Five formats, compressed or not."""
        path = tmp_path / "a.npz"
        matrix = scipy.sparse.coo_array(DENSE.astype(dtype)).asformat(kind)
        scipy.sparse.save_npz(path, matrix, compressed=compressed)

        out = read_matrix(path, NPZ)

        np.testing.assert_array_equal(csr_to_dense(out), DENSE)
        wide = {"f4": "f4", "c8": "c16", "c16": "c16"}
        assert out.data.dtype == wide.get(dtype, "f8")

    @pytest.mark.parametrize("block", [(2, 3), (1, 4), (4, 1)])
    def test_blocks_keep_their_zeros(
        self, tmp_path: Path, block: tuple[int, int]
    ) -> None:
        """A block is stored whole, in SciPy as here."""
        rng = np.random.default_rng(5)
        dense = scipy.sparse.random_array((8, 12), density=0.1, rng=rng)
        matrix = dense.tobsr(blocksize=block)
        scipy.sparse.save_npz(tmp_path / "a.npz", matrix)

        out = csr_to_scipy(read_matrix(tmp_path / "a.npz", NPZ))

        wanted = matrix.tocsr()
        wanted.sort_indices()
        assert out.nnz == matrix.nnz
        np.testing.assert_array_equal(out.indptr, wanted.indptr)
        np.testing.assert_array_equal(out.indices, wanted.indices)
        np.testing.assert_array_equal(out.data, wanted.data)

    @pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 7), (7, 1)])
    def test_diagonals(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        """Diagonals at every place, also those that lie outside, are SciPy's."""
        offsets = np.array([0, -4, 8, 2, 40, -40], np.int32)
        data = np.arange(1.0, 73).reshape(6, 12)
        data[3, 2] = 0
        matrix = scipy.sparse.dia_array((data, offsets), shape=shape)
        scipy.sparse.save_npz(tmp_path / "a.npz", matrix)

        out = read_matrix(tmp_path / "a.npz", NPZ)

        np.testing.assert_array_equal(csr_to_dense(out), matrix.toarray())

    @pytest.mark.parametrize("offset", [2**63 - 1, -(2**63), 2**62])
    def test_diagonals_far_away(self, tmp_path: Path, offset: int) -> None:
        """An offset at the end of its type wraps nowhere; a repeated one is told."""
        members = {
            "format": np.array(b"dia"),
            "shape": np.array([3, 4]),
            "data": np.ones((2, 4)),
        }
        path = save(tmp_path / "a.npz", offsets=np.array([offset, 1]), **members)

        assert csr_to_dense(read_matrix(path, NPZ)).sum() == 3
        path = save(tmp_path / "b.npz", offsets=np.array([offset, offset]), **members)
        with pytest.raises(InvalidMatrixError, match="diagonal twice"):
            read_matrix(path, NPZ)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"indices": np.array([1, 0, 9, 3], np.int32)}, r"csr: indices\[2\] is 9"),
            ({"indptr": np.array([0, 1, 0, 4], np.int32)}, r"indptr\[2\] is 0, less"),
            ({"indptr": np.array([0, 1, 4], np.int32)}, "3 rows need 4"),
            ({"data": np.ones(5)}, "data has 5 entries"),
            ({"data": np.ones(4, np.clongdouble)}, "the entries are complex256"),
            ({"shape": np.array([3, -4])}, "shape is"),
            ({"shape": np.array([3.0, 4.0])}, "shape is"),
            ({"format": np.array(b"lil")}, "the sparse format is 'lil'"),
            ({"format": np.array(b"bsr")}, r"data has shape \[4\], .*blocks"),
            (
                {"format": np.array(b"dia"), "offsets": np.array([0, 1])},
                r"offsets is int64 of shape \[2\]",
            ),
            ({"format": np.array([1, 2])}, "the sparse format is ''"),
        ],
    )
    def test_faulty_arrays(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        """What SciPy's loader would let through is refused."""
        path = save(tmp_path / "a.npz", **{**good(), **change})

        with pytest.raises(InvalidMatrixError, match=message):
            read_matrix(path, NPZ)

    @pytest.mark.parametrize("row", [-1, 3])
    def test_faulty_coordinates(self, tmp_path: Path, row: int) -> None:
        """A coordinate outside of the shape."""
        path = save(
            tmp_path / "a.npz",
            format=np.array(b"coo"),
            shape=np.array([3, 4]),
            row=np.array([row]),
            col=np.array([0]),
            data=np.ones(1),
        )

        with pytest.raises(InvalidMatrixError, match=rf"row\[0\] is {row}"):
            read_matrix(path, NPZ)

    def test_missing_member(self, tmp_path: Path) -> None:
        """The name of what is missing, and what there is."""
        members = good()
        del members["indices"]

        with pytest.raises(InvalidMatrixError, match=r"no member 'indices'; it has"):
            read_matrix(save(tmp_path / "a.npz", **members), NPZ)

    def test_pickle(self, tmp_path: Path) -> None:
        """An array of objects is never unpickled."""
        path = save(tmp_path / "a.npz", **{**good(), "data": np.array([{}] * 4)})

        with pytest.raises(InvalidMatrixError, match="data holds pickles"):
            read_matrix(path, NPZ)

    def test_no_archive(self, tmp_path: Path) -> None:
        """Bytes that are no zip file, an empty file, a cut one."""
        path = tmp_path / "a.npz"
        whole = save(path, **good()).read_bytes()

        for content in (b"", b"PK\x03\x04", b"\x00" * 100, whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(InvalidMatrixError, match=r"\.npz file"):
                read_matrix(path, NPZ)

    def test_flipped_bytes(self, tmp_path: Path) -> None:
        """A damaged byte anywhere is refused, or does not matter; nothing else."""
        path = tmp_path / "a.npz"
        whole = save(path, **good()).read_bytes()

        refused = 0
        for at in range(0, len(whole), 7):
            damaged = bytearray(whole)
            damaged[at] ^= 0x55
            path.write_bytes(damaged)
            try:
                read_matrix(path, NPZ)
            except (InvalidMatrixError, TooLargeError):
                refused += 1
        assert refused > 50

    def test_lying_header(self, tmp_path: Path) -> None:
        """An array that declares more than its member holds is not allocated."""
        path = save(tmp_path / "a.npz", **good())
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
        )
        with (
            zipfile.ZipFile(path) as old,
            zipfile.ZipFile(tmp_path / "b.npz", "w") as new,
        ):
            for name in old.namelist():
                new.writestr(
                    name, header.getvalue() if name == "data.npy" else old.read(name)
                )

        with pytest.raises(InvalidMatrixError, match="data declares 800000000000000"):
            read_matrix(tmp_path / "b.npz", NPZ)

    def test_limits(self, tmp_path: Path) -> None:
        """The declared shape and the decompressed members are bounded."""
        wide = save(tmp_path / "a.npz", **{**good(), "shape": np.array([10**12, 4])})
        with pytest.raises(TooLargeError, match="1000000000000"):
            read_matrix(wide, NPZ)

        np.savez_compressed(tmp_path / "b.npz", **{**good(), "more": np.zeros(10**6)})
        with pytest.raises(TooLargeError, match="decompressed"):
            read_matrix(tmp_path / "b.npz", NPZ, Limits(file_bytes=10**6))


class TestResident:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("index", [np.int32, np.int64])
    def test_round_trip(self, tmp_path: Path, dtype: Any, index: Any) -> None:
        """Types and bits survive; the file's name is free."""
        a = csr_from_dense(DENSE.astype(dtype))
        a = csr_from_arrays(
            a.indptr.astype(index), a.indices.astype(index), a.data, a.shape
        )

        write_resident(a, tmp_path / "m-0123")
        out = read_resident(tmp_path / "m-0123")

        assert out.shape == a.shape
        for x, y in zip(
            (out.indptr, out.indices, out.data),
            (a.indptr, a.indices, a.data),
            strict=True,
        ):
            assert x.dtype == y.dtype
            assert x.tobytes() == y.tobytes()

    def test_damaged(self, tmp_path: Path) -> None:
        """A file that was damaged on disk is not served."""
        write_resident(csr_from_dense(DENSE), tmp_path / "m")
        (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-40])

        with pytest.raises(InvalidMatrixError):
            read_resident(tmp_path / "m")


class TestArrays:
    def test_mixed_indices(self) -> None:
        """int32 pointers with int64 indices become int64; integers become float64."""
        a = csr_from_dense(DENSE)

        out = csr_from_arrays(
            a.indptr, a.indices.astype(np.int64), a.data.astype(np.int32), [3, 4]
        )

        assert out.indptr.dtype == out.indices.dtype == np.int64
        np.testing.assert_array_equal(csr_to_dense(out), DENSE)

    @pytest.mark.parametrize("shape", [[3], [3, 4, 5], [3.0, 4], "34", None, [True, 4]])
    def test_shape(self, shape: Any) -> None:
        """A shape is two integers."""
        a = csr_from_dense(DENSE)

        with pytest.raises(InvalidMatrixError, match="shape is"):
            csr_from_arrays(a.indptr, a.indices, a.data, shape)

    @pytest.mark.parametrize("index", ["i4", "i8", "u2"])
    def test_triplets(self, index: str) -> None:
        """Any order; what is named twice is summed; a stored zero stays."""
        row, col = np.array([[2, 0, 2, 0], [1, 1, 1, 0]], index)

        out = csr_from_triplets(row, col, np.float32([5, 2, -1, 0]), [3, 4])

        assert out.indptr.tolist() == [0, 2, 2, 3]
        assert out.indices.tolist() == [0, 1, 1]
        assert out.data.tolist() == [0, 2, 4]
        assert (out.data.dtype, out.indices.dtype) == (np.float32, np.int32)

    @pytest.mark.parametrize(
        ("row", "message"),
        [([0, 3], r"row\[1\] is 3, .* 0 to 2"), ([0], "row is int64 of shape")],
    )
    def test_faulty_triplets(self, row: list[int], message: str) -> None:
        """The first coordinate that is wrong is named."""
        with pytest.raises(InvalidMatrixError, match=message):
            csr_from_triplets(np.array(row), np.array([0, 1]), np.ones(2), [3, 4])

    def test_declared_shape(self) -> None:
        """A row count alone asks for memory."""
        none = np.empty(0, np.int64)

        with pytest.raises(TooLargeError, match="9007199254740992"):
            csr_from_triplets(none, none, none, [2**53, 1])
        with pytest.raises(InvalidMatrixError, match=r"2\*\*53"):
            csr_from_triplets(none, none, none, [2**53 + 1, 1])

    def test_canonical(self) -> None:
        """Order, duplicates and the width of indices leave no trace."""
        a = csr_from_arrays(
            np.array([0, 3, 3, 4]), np.array([3, 0, 3, 1]), np.array([1.0, 2, 4, 0]),
            [3, 4],
        )  # fmt: skip

        out = canonical(a)

        assert out.indptr.tolist() == [0, 2, 2, 3]
        assert out.indices.tolist() == [0, 3, 1]
        assert out.data.tolist() == [2, 5, 0]
        assert out.indices.dtype == out.indptr.dtype == np.int32
        assert a.indices.tolist() == [3, 0, 3, 1]  # the caller's stays
        assert canonical(out).data is out.data

    def test_structure(self) -> None:
        """What `check` finds is told."""
        a = csr_from_dense(DENSE)

        with pytest.raises(InvalidMatrixError, match=r"indices\[0\] is 1, .* 0 to 0"):
            csr_from_arrays(a.indptr, a.indices, a.data, [3, 1])


def test_media_types(tmp_path: Path) -> None:
    """Parameters and case do not matter; an unknown type is told what is known."""
    path = tmp_path / "a"
    path.write_text("%%MatrixMarket matrix coordinate real general\n1 1 1\n1 1 2\n")

    assert read_matrix(path, "Text/X-Matrix-Market; charset=utf-8").nnz == 1
    with pytest.raises(UnsupportedMediaError, match="'text/csv' is no matrix file"):
        read_matrix(path, "text/csv")
