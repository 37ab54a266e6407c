from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.convert import csr_from_dense, csr_to_dense
from nnz_service.algebra.files import (
    Limits,
    csr_from_arrays,
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
    @pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
    @pytest.mark.parametrize("compressed", [True, False])
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
    def test_what_scipy_saves(
        self, tmp_path: Path, kind: str, compressed: bool, dtype: str
    ) -> None:
        """Three formats, compressed or not."""
        path = tmp_path / "a.npz"
        matrix = scipy.sparse.coo_array(DENSE.astype(dtype)).asformat(kind)
        scipy.sparse.save_npz(path, matrix, compressed=compressed)

        out = read_matrix(path, NPZ)

        np.testing.assert_array_equal(csr_to_dense(out), DENSE)
        assert out.data.dtype == ("f4" if dtype == "f4" else "f8")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"indices": np.array([1, 0, 9, 3], np.int32)}, r"csr: indices\[2\] is 9"),
            ({"indptr": np.array([0, 1, 0, 4], np.int32)}, r"indptr\[2\] is 0, less"),
            ({"indptr": np.array([0, 1, 4], np.int32)}, "3 rows need 4"),
            ({"data": np.ones(5)}, "data has 5 entries"),
            ({"data": np.ones(4, complex)}, "the entries are complex128"),
            ({"shape": np.array([3, -4])}, "shape is"),
            ({"shape": np.array([3.0, 4.0])}, "shape is"),
            ({"format": np.array(b"dia")}, "the sparse format is 'dia'"),
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
