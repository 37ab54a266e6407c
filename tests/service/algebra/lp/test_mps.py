"""MPS files: what is read, and which line is named when it cannot be."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnz_kernels.convert import csr_to_dense
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.errors import InvalidMatrixError, TooLargeError

INF = np.inf

FREE = """* a comment
NAME test
OBJSENSE
    MAX
ROWS
 N cost
 L r1
 G r2
 E r3
 E r4
 N other
COLUMNS
 x cost 1 r1 2
 x r2 3 other 9
 M1 'MARKER' 'INTORG'
 y cost -1 r3 4
 z r4 5
 M2 'MARKER' 'INTEND'
 w r1 -1.5e0 $ a comment
RHS
 rhs r1 10 r2 -1
 rhs r3 6 cost 7
RANGES
 rng r1 4 r2 -5
 rng r3 2 r4 -3
BOUNDS
 UP bnd x -2
 MI bnd w
 UP bnd w 1e30
 LI bnd y 2
ENDATA
"""


def read(tmp_path: Path, text: str) -> LinearProgram:
    path = tmp_path / "a.mps"
    path.write_text(text)
    return read_mps(path)


def theirs_of(tmp_path: Path) -> Any:
    """What HiGHS reads of the file that was read last."""
    highspy = pytest.importorskip("highspy")
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.readModel(str(tmp_path / "a.mps"))
    return highs.getLp()


def test_free_form(tmp_path: Path) -> None:
    """Every kind of record once, with the numbers worked out by hand."""
    lp = read(tmp_path, FREE)

    dense = [[2, 0, 0, -1.5], [3, 0, 0, 0], [0, 4, 0, 0], [0, 0, 5, 0]]
    np.testing.assert_array_equal(csr_to_dense(lp.a), dense)
    assert lp.c.tolist() == [1, -1, 0, 0]
    assert lp.lc.tolist() == [6, -1, 6, -3]
    assert lp.uc.tolist() == [10, 4, 8, 0]
    # y had a bound, so only z is binary; a negative upper bound alone frees x below.
    assert lp.lv.tolist() == [-INF, 2, 0, -INF]
    assert lp.uv.tolist() == [-2, INF, 1, INF]
    assert (lp.offset, lp.maximize) == (-7, True)
    assert len(lp.notes) == 4
    assert "2 integer variables" in lp.notes[0]
    assert "1 further N rows" in lp.notes[1]
    assert "1 negative upper bounds alone" in lp.notes[2]
    assert "1 bounds of 1e20" in lp.notes[3]


#: A small file, to be told of its objective first and to be bounded in the end.
SMALL = """NAME t
{about}ROWS
 N cost
 N other
 L r1
COLUMNS
 x cost 1 r1 1
 y cost 2 other 5
 z r1 1
RHS
 rhs r1 10
BOUNDS
{bounds}ENDATA
"""


@pytest.mark.parametrize(
    ("bounds", "lower", "upper"),
    [
        (" FR x\n UP BND y 3\n", [-INF, 0, 0], [INF, 3, INF]),
        (" UP BND y 3\n UP z 4\n", [0, 0, 0], [INF, 3, 4]),
        (" UP y 3\n UP BND y 4\n", [0, 0, 0], [INF, 3, INF]),
        (" FR BND x\n UP BND x 4\n", [-INF, 0, 0], [INF, INF, INF]),
        (" LO BND x 1\n FX BND x 4\n", [1, 0, 0], [INF, INF, INF]),
        (" UP BND x -3\n LO BND x -5\n", [-5, 0, 0], [-3, INF, INF]),
        (" BV BND x\n PL BND x\n MI BND y\n UP BND y 3\n",
         [0, -INF, 0], [1, 3, INF]),
    ],
)  # fmt: skip
def test_bounds_are_those_of_highs(
    tmp_path: Path, bounds: str, lower: list[float], upper: list[float]
) -> None:
    """Lines without a set are of each, and what is given first counts."""
    text = SMALL.format(about="", bounds=bounds)
    lp = read(tmp_path, text)

    assert (lp.lv.tolist(), lp.uv.tolist()) == (lower, upper)
    again = [note for note in lp.notes if "given again" in note]
    expected = {" UP y 3": 1, " FR BND": 1, " LO BND": 1, " BV BND": 1}
    assert len(again) == expected.get(bounds[:7], 0)
    theirs = theirs_of(tmp_path)
    assert (list(theirs.col_lower_), list(theirs.col_upper_)) == (lower, upper)


@pytest.mark.parametrize(
    ("about", "maximize"),
    [
        ("OBJSENSE\nMAX\n", True),
        ("OBJSENSE\nminimise\n", False),
        ("OBJSENSE\nMAX\nOBJNAME\ncost\n", True),
        ("OBJNAME\n cost\nOBJSENSE\n MAX\n", True),
        ("OBJNAME\n  other\n", False),
        ("OBJNAME other\n", False),
    ],
)
def test_the_objective_is_that_of_highs(
    tmp_path: Path, about: str, maximize: bool
) -> None:
    """It is the first N row, whatever OBJNAME says; a note tells that."""
    lp = read(tmp_path, SMALL.format(about=about, bounds=""))

    assert (lp.maximize, lp.c.tolist()) == (maximize, [1, 2, 0])
    told = "OBJNAME is 'other', but the first N row is the objective: 'cost'"
    assert (told in lp.notes) == ("other" in about)
    theirs = theirs_of(tmp_path)
    assert (theirs.sense_.name == "kMaximize") == maximize
    assert list(theirs.col_cost_) == [1, 2, 0]


def test_a_second_name_of_the_objective_is_refused(tmp_path: Path) -> None:
    text = SMALL.format(about="OBJNAME\n cost\n other\n", bounds="")
    with pytest.raises(InvalidMatrixError, match="line 4: OBJNAME has one name"):
        read(tmp_path, text)


def test_fixed_form_has_names_with_blanks(tmp_path: Path) -> None:
    text = (
        "NAME          TEST\n"
        "ROWS\n"
        " N  COST\n"
        " L  ROW ONE\n"
        "COLUMNS\n"
        "    COL A     COST               1.0   ROW ONE            2.0\n"
        "    COL B     ROW ONE            3.0\n"
        "RHS\n"
        "    R H S     ROW ONE            4.0\n"
        "BOUNDS\n"
        " UP BND       COL B              5.0\n"
        "ENDATA\n"
    )
    lp = read(tmp_path, text)

    assert csr_to_dense(lp.a).tolist() == [[2, 3]]
    assert (lp.uc.tolist(), lp.uv.tolist()) == ([4], [INF, 5])


def test_gzip_is_seen_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mps"
    path.write_bytes(gzip.compress(FREE.encode()))
    assert read_mps(path).shape == (4, 4)
    path.write_bytes(gzip.compress(FREE.encode())[:-20])
    with pytest.raises(InvalidMatrixError, match="gzip stream is damaged"):
        read_mps(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("ENDATA\n", "", "line 30: the file ends without ENDATA", id="cut"),
        pytest.param(" L r1\n", " K r1\n", "line 7: the type of row 'r1'", id="type"),
        pytest.param(" L r1\n", " L r2\n", "line 8: there are two rows", id="rows"),
        pytest.param("r1 2", "r9 2", "line 13: there is no row 'r9'", id="row"),
        pytest.param("r1 2", "r1 2x", "line 13: '2x' is no number", id="number"),
        pytest.param("r1 2", "r1 1_0", "line 13: '1_0' is no number", id="underscore"),
        pytest.param("r1 2", "r1 inf", "line 13: the entry of 'x' is inf", id="inf"),
        pytest.param("r1 2", "r1", "line 13: a column has a name", id="fields"),
        pytest.param("r2 3", "r1 3", "line 14: column 'x' has two", id="twice"),
        pytest.param(" z r4", " x r4", "line 17: column 'x' goes on", id="again"),
        pytest.param("'INTORG'", "'INT'", "line 15: the marker", id="marker"),
        pytest.param("rhs r3", "rhs r1", "line 22: RHS gives row 'r1' two", id="rhs"),
        pytest.param("UP bnd x", "XX bnd x", "line 27: the type of", id="bound"),
        pytest.param("UP bnd x", "UP bnd q", "line 27: there is no", id="column"),
        pytest.param("    MAX", "    MOST", "line 4: OBJSENSE is", id="sense"),
        pytest.param("RANGES", "SOS", "line 23: SOS describes special", id="foreign"),
        pytest.param("RANGES", "ROWS", "line 23: ROWS must not stand", id="order"),
        pytest.param("RANGES", "RANGERS", "RANGERS", id="section"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert FREE.count(old) == 1
    with pytest.raises(InvalidMatrixError) as caught:
        read(tmp_path, FREE.replace(old, new))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("LI bnd y 2", "LI bnd y 2\n UI bnd y 1", "of column 'y' are 2.0 and 1.0"),
        ("LI bnd y 2", "LI bnd y 1e20", "of column 'y' are 1e+20 and inf"),
        ("rhs r3 6", "rhs r3 inf", "of row 'r3' are inf and inf"),
        ("rng r3 2", "rng r1 inf", "RANGES gives row 'r1' two"),
        ("rhs r1 10 r2 -1", "rhs r1 inf", "of row 'r1' are inf and inf"),
        ("cost 7", "cost -inf", "constant is -inf, not finite"),
    ],
)
def test_bounds_that_cross_are_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    """By the name that the file has for them."""
    assert FREE.count(old) == 1
    with pytest.raises(InvalidMatrixError, match=r"line \d+: ") as caught:
        read(tmp_path, FREE.replace(old, new))
    assert says in str(caught.value)


def test_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.mps"
    path.write_text(FREE)
    with pytest.raises(TooLargeError, match="decompressed"):
        read_mps(path, Limits(file_bytes=100))
    with pytest.raises(TooLargeError, match="takes"):
        read_mps(path, Limits(matrix_bytes=10))
    path.write_text("NAME " + 70_000 * "x")
    with pytest.raises(InvalidMatrixError, match="line 1 is longer"):
        read_mps(path)


#: Every file of the folder: rows, columns and entries, or what the refusal says.
ROBUSTNESS: dict[str, tuple[int, int, int] | str] = {
    "2821-duplicate.mps": "line 21: QUADOBJ describes a quadratic objective",
    "comment.mps": (3, 2, 6),
    "garbage.mps": "line 2: 'dvhfalkmnthry6v54y76m87yq",
    "nan0.mps": "line 8: 'nan' is no number",
    "nan1.mps": "line 9: 'nan' is no number",
    "no-newline-eof.lp": "line 1: 'Minimize' is no section",
    "qjh.mps": "line 13: QSECTION describes a quadratic objective",
    "silly-names.mps": (1, 5, 5),
}


def test_files_made_to_break_readers(data_dir: Path) -> None:
    folder = data_dir / "lp" / "robustness"
    assert {path.name for path in folder.iterdir()} == set(ROBUSTNESS)
    for name, expected in ROBUSTNESS.items():
        if isinstance(expected, str):
            with pytest.raises(InvalidMatrixError) as caught:
                read_mps(folder / name)
            assert expected in str(caught.value), name
        else:
            lp = read_mps(folder / name)
            assert (*lp.shape, lp.a.nnz) == expected, name


@pytest.mark.slow
def test_files_are_read_as_highs_reads_them(data_dir: Path) -> None:
    highspy = pytest.importorskip("highspy")
    files = [*(data_dir / "lp" / "netlib").iterdir()]
    quadratic, tiny = "atwood0.mps", "gas11.mps"  # it drops entries below 1e-9
    for path in [*files, *(data_dir / "lp" / "highs").iterdir()]:
        if path.name in (quadratic, tiny):
            continue
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.readModel(str(path))
        theirs, ours = highs.getLp(), read_mps(path)
        assert ours.shape == (theirs.num_row_, theirs.num_col_), path.name
        assert ours.offset == theirs.offset_, path.name
        assert ours.a.nnz == len(theirs.a_matrix_.value_), path.name
        pairs = (
            (ours.c, theirs.col_cost_),
            (ours.lc, theirs.row_lower_),
            (ours.uc, theirs.row_upper_),
            (ours.lv, theirs.col_lower_),
            (ours.uv, theirs.col_upper_),
        )
        for mine, his in pairs:
            np.testing.assert_array_equal(mine, np.array(his), path.name)
