from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from nnz_kernels.convert import csr_to_dense, csr_to_scipy
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.matrix_market import read_matrix_market
from nnz_service.errors import InvalidMatrixError, TooLargeError

GENERAL = """%%MatrixMarket matrix coordinate real general
% a comment
3 4 4
1 1 1.5

2 3 -2e1
3 4 7
3 1 .5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "a.mtx"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> list[list[complex]]:
    dense: list[list[complex]] = csr_to_dense(
        read_matrix_market(write(folder, text), Limits())
    ).tolist()
    return dense


class TestGoodFiles:
    def test_general(self, tmp_path: Path) -> None:
        """Comments and blank lines stand anywhere; entries come in any order."""
        assert read(tmp_path, GENERAL) == [
            [1.5, 0, 0, 0],
            [0, 0, -20, 0],
            [0.5, 0, 0, 7],
        ]

    def test_gzip(self, tmp_path: Path) -> None:
        """Compression is seen by the first two bytes, not by the name."""
        path = tmp_path / "blob"
        path.write_bytes(gzip.compress(GENERAL.encode()))

        assert read_matrix_market(path, Limits()).nnz == 4

    @pytest.mark.parametrize(
        ("banner", "entries", "dense"),
        [
            ("real symmetric", "1 1 5\n2 1 3", [[5, 3], [3, 0]]),
            ("integer skew-symmetric", "2 1 3", [[0, -3], [3, 0]]),
            ("pattern general", "1 2\n2 1", [[0, 1], [1, 0]]),
            ("pattern symmetric", "2 1\n2 2", [[0, 1], [1, 1]]),
            ("integer general", "1 1 7\n1 1 8", [[15, 0], [0, 0]]),
            ("real general", "", [[0, 0], [0, 0]]),
            ("complex general", "1 1 1 2\n2 1 0 -1", [[1 + 2j, 0], [-1j, 0]]),
            ("complex symmetric", "2 1 1 2", [[0, 1 + 2j], [1 + 2j, 0]]),
            ("complex hermitian", "2 1 1 2\n2 2 3 0", [[0, 1 - 2j], [1 + 2j, 3]]),
            ("complex skew-symmetric", "2 1 1 2", [[0, -1 - 2j], [1 + 2j, 0]]),
        ],
    )
    def test_fields_and_symmetries(
        self, tmp_path: Path, banner: str, entries: str, dense: list[list[complex]]
    ) -> None:
        """Halves are mirrored, patterns are ones, duplicates are summed."""
        count = len(entries.split("\n")) if entries else 0
        text = f"%%MatrixMarket matrix coordinate {banner}\n2 2 {count}\n{entries}\n"

        assert read(tmp_path, text) == dense

    @pytest.mark.parametrize(
        ("banner", "entries", "dense"),
        [
            ("real general", "1\n2\n\n0\n4", [[1, 0], [2, 4]]),
            ("integer symmetric", "1 2 4", [[1, 2], [2, 4]]),
            ("real skew-symmetric", "2", [[0, -2], [2, 0]]),
            ("complex hermitian", "1 0 2 3 4 0", [[1, 2 - 3j], [2 + 3j, 4]]),
            ("complex general", "1 0 2 3 0 0 4 1", [[1, 0], [2 + 3j, 4 + 1j]]),
        ],
    )
    def test_arrays(
        self, tmp_path: Path, banner: str, entries: str, dense: list[list[complex]]
    ) -> None:
        """Column by column, of symmetric ones the lower half; nonzeros are kept."""
        width = 2 if "complex" in banner else 1
        words = entries.split()
        lines = (" ".join(words[k : k + width]) for k in range(0, len(words), width))
        text = f"%%MatrixMarket matrix array {banner}\n2 2\n" + "\n".join(lines)

        assert read(tmp_path, text) == dense

    @pytest.mark.parametrize("symmetry", ["general", "symmetric", "hermitian"])
    @pytest.mark.parametrize("dtype", ["f8", "c16"])
    def test_arrays_of_scipy(self, tmp_path: Path, symmetry: str, dtype: str) -> None:
        """A dense file of SciPy at an odd size."""
        rng = np.random.default_rng(1)
        a = rng.integers(-2, 3, (7, 7)).astype(dtype)
        if dtype == "c16":
            a += 1j * rng.integers(-2, 3, (7, 7))
        a = a + (a.conj() if symmetry == "hermitian" else a).T
        field = "real" if dtype == "f8" else "complex"
        if symmetry == "hermitian" and dtype == "f8":
            symmetry = "skew-symmetric"
            a = np.tril(a, -1) - np.tril(a, -1).T
        scipy.io.mmwrite(tmp_path / "a.mtx", a, field=field, symmetry=symmetry)

        out = read_matrix_market(tmp_path / "a.mtx", Limits())

        np.testing.assert_array_equal(csr_to_dense(out), a)
        assert out.nnz == np.count_nonzero(a)

    @pytest.mark.parametrize("dtype", ["f8", "c16"])
    def test_what_scipy_writes(self, tmp_path: Path, dtype: str) -> None:
        """A file of SciPy gives the same numbers to the last bit."""
        rng = np.random.default_rng(0)
        a = scipy.sparse.random_array((60, 50), density=0.1, rng=rng, dtype=dtype)
        scipy.io.mmwrite(tmp_path / "a.mtx", a)

        out = read_matrix_market(tmp_path / "a.mtx", Limits())

        np.testing.assert_array_equal(csr_to_dense(out), a.toarray())


BANNER = "%%MatrixMarket matrix coordinate real general\n"
ARRAY = "%%MatrixMarket matrix array real general\n"
#: What is told of each broken file of the collection.
MANGLED = {
    "mangled10": r"line 7: the file ends after 2 entries, but must be 3 entries",
    "mangled11": r"line 5: the column is 'zero', but must be from 1 to 4",
    "mangled13": r"line 7: the column is '9999', but must be from 1 to 4",
    "mangled15": r"line 2: the type is 'float complex', but must be a real type",
    "mangled2": r"line 1: the format is 'mangled', but must be one of coordinate, .*",
    "mangled5": r"line 1: the field of a hermitian matrix is 'pattern', but must .*",
    "mangled_bool": r"line 1\d: the value is \d+, but must be from 0 to 1",
    "mangled_format": r"line 1: an array of the field 'pattern' holds nothing, .*",
    "mangled_int8": r"line 8: the value is -129, but must be from -128 to 127",
    "mangled_skew": r"line 2: uint8_t cannot hold the negatives of .* must be signed",
    "mangled_uint16": r"line 9: the value is 65536, but must be from 0 to 65535",
    "mangled_uint32": r"line 9: the value is 4294967296, but must be from 0 to 4294.*",
}


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1: the banner is ''"),
            ("hello\n", "line 1: the banner is 'hello'"),
            ("%%MatrixMarket matrix coordinate text general\n", "line 1: .*'text'"),
            ("%%MatrixMarket matrix dense real general\n2 2\n", "line 1: .*'dense'"),
            (ARRAY + "2 2\n1\n2\n3\n", "line 6: the file ends after 3 entries"),
            (ARRAY + "1 2\n1\n2\n3\n", "line 5: entry 3, .* one of 2"),
            (ARRAY + "1 2\n1\n1 2\n", "line 4: the entry is '1 2', .* value"),
            (ARRAY + "1 2 2\n", "line 2: the sizes are '1 2 2', .* rows columns$"),
            (
                ARRAY.replace("real", "pattern") + "1 1\n",
                "line 1: an array of the field 'pattern'",
            ),
            (
                BANNER.replace("real general", "complex hermitian")
                + "2 2 1\n2 2 3 1\n",
                "line 3: the diagonal value is 3 1, .* real",
            ),
            (
                BANNER.replace("real", "complex") + "2 2 1\n2 2 3\n",
                "line 3: the entry is '2 2 3', .* row column real imaginary",
            ),
            (
                "%%MatrixMarket matrix coordinate real hermitian\n",
                "line 1: .*herm",
            ),
            ("%%MatrixMarket vector coordinate real general\n", "line 1: the banner"),
            (BANNER, "line 2: the file ends, .* sizes"),
            (BANNER + "3 3\n", "line 2: the sizes are '3 3'"),
            (BANNER + "3 -3 1\n", "line 2: the sizes are"),
            (BANNER + "3 3.0 1\n", "line 2: the sizes are"),
            (BANNER + "2 2 1\n0 1 1\n", "line 3: the row is '0', .* from 1 to 2"),
            (BANNER + "2 2 1\n1 3 1\n", "line 3: the column is '3', .* from 1 to 2"),
            (BANNER + "2 2 2\n1 1 1\n%\n1 -1 1\n", "line 5: the column is '-1'"),
            (BANNER + "2 2 1\n1 1 one\n", "line 3: the value is 'one'"),
            (BANNER + "2 2 1\n1 1\n", "line 3: the entry is '1 1'"),
            (BANNER + "2 2 1\n1 1 1 1\n", "line 3: the entry is '1 1 1 1'"),
            (BANNER + "2 2 2\n1 1 1\n", "line 4: the file ends after 1 entries"),
            (BANNER + "2 2 1\n1 1 1\n2 2 2\n", "line 4: entry 2, .* one of 1"),
            (BANNER + "2 2 2\n1 1 1\n2 2 2 2\n", "line 4: the entry is '2 2 2 2'"),
            (
                BANNER.replace("real", "integer") + "2 2 1\n1 1 99999999999999999999\n",
                "line 3: the value is '99999999999999999999', .* 64 bits",
            ),
            (
                BANNER.replace("real", "integer") + "2 2 1\n1 1 1.5\n",
                "line 3: the value is '1.5', .* integer",
            ),
            (
                BANNER.replace("general", "skew-symmetric") + "2 2 1\n2 2 3\n",
                "line 3: the diagonal value is 3",
            ),
            (
                BANNER.replace("general", "symmetric") + "2 3 0\n",
                "line 2: symmetric 2 x 3, .* square",
            ),
        ],
    )
    def test_line_and_remedy(self, tmp_path: Path, text: str, message: str) -> None:
        """Each fault is told with its line and what would be right."""
        with pytest.raises(InvalidMatrixError, match=f"^{message}"):
            read_matrix_market(write(tmp_path, text), Limits())

    def test_damaged_anywhere(self, tmp_path: Path) -> None:
        """Random damage gives a sound matrix or a line, never anything else."""
        rng = random.Random(1)  # noqa: S311 - damage, not secrets
        scraps = (b"99999999999", b"-1", b"nan", b"1e400", b"\n", b"\x00", b"%", b" ")
        path = tmp_path / "a.mtx"

        told = []
        for _ in range(500):
            text = bytearray(GENERAL.encode())
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(text))
                text[at : at + rng.randint(0, 4)] = rng.choice(scraps)
            path.write_bytes(text)
            try:
                read_matrix_market(path, Limits()).check()
            except (InvalidMatrixError, TooLargeError) as exc:
                told.append(str(exc))
        assert len(told) > 250
        assert all(re.match(r"line \d+|a matrix of shape", text) for text in told)

    def test_endless_line(self, tmp_path: Path) -> None:
        """A line of a megabyte is refused when its first 64 KiB are read."""
        with pytest.raises(InvalidMatrixError, match="line 2: the line is too long"):
            read_matrix_market(write(tmp_path, BANNER + "1" * 1_000_000), Limits())

    def test_cut_gzip(self, tmp_path: Path) -> None:
        """A download that stopped half way."""
        path = tmp_path / "a.mtx.gz"
        rng = np.random.default_rng(0)
        lines = "".join(f"1 {k + 1} {rng.random()}\n" for k in range(5000))
        whole = gzip.compress((BANNER + "1 5000 5000\n" + lines).encode())
        path.write_bytes(whole[: len(whole) // 2])

        with pytest.raises(InvalidMatrixError, match="gzip stream is damaged"):
            read_matrix_market(path, Limits())

    @pytest.mark.parametrize("sizes", ["999999999999 1 0", "2 2 999999999999"])
    def test_declared_sizes(self, tmp_path: Path, sizes: str) -> None:
        """Sizes are refused before anything of that size is allocated."""
        with pytest.raises(TooLargeError, match="999999999999"):
            read_matrix_market(write(tmp_path, f"{BANNER}{sizes}\n"), Limits())

    def test_gzip_bomb(self, tmp_path: Path) -> None:
        """Reading stops at the limit, however little the file takes on disk."""
        path = tmp_path / "a.mtx.gz"
        path.write_bytes(gzip.compress(BANNER.encode() + b"%\n" * 4_000_000))

        with pytest.raises(TooLargeError, match="more than 1000000 bytes"):
            read_matrix_market(path, Limits(file_bytes=1_000_000))


class TestRealFiles:
    def test_mangled(self, data_dir: Path) -> None:
        """Every broken file of the collection is refused with the line at fault."""
        files = sorted((data_dir / "mtx" / "mangled").glob("*.mtx"))
        assert {file.stem for file in files} == MANGLED.keys()

        for file in files:
            with pytest.raises(InvalidMatrixError) as caught:
                read_matrix_market(file, Limits())
            assert re.fullmatch(MANGLED[file.stem], str(caught.value)), caught.value

    def test_sound(self, data_dir: Path) -> None:
        """Every sound file gives what SciPy reads."""
        files = [
            file
            for folder in ("dnn", "general", "graph", "spd")
            for file in sorted((data_dir / "mtx" / folder).glob("*.mtx"))
        ]
        assert len(files) > 10

        for file in files:
            out = csr_to_scipy(read_matrix_market(file, Limits()))
            wanted = scipy.sparse.coo_array(scipy.io.mmread(file)).tocsr()
            assert out.shape == wanted.shape
            np.testing.assert_array_equal(out.indices, wanted.indices, file.name)
            np.testing.assert_array_equal(out.data, wanted.data, file.name)
