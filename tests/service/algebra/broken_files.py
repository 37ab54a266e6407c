"""Small matrix files of every format, ways to spoil them, and a reading of them."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from random import Random

import numpy as np
import scipy.io
import scipy.sparse as sp

from nnz_service.algebra.csr_body import read_csr_body
from nnz_service.algebra.facts import describe
from nnz_service.algebra.files import (
    Limits,
    canonical,
    csr_from_arrays,
    csr_from_triplets,
    read_matrix,
    read_resident,
    write_resident,
)
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.storage import read_program, write_program
from nnz_service.errors import ServiceError

LIMITS = Limits(matrix_bytes=64 << 20, file_bytes=64 << 20)
CSR, MPS = "application/x-nnz-csr; header=", "application/x-mps"
SCRAPS = (
    b"", b"-1", b"0", b"99999999999", b"1e400", b"nan", b"inf", b"%", b"\n", b"\x00",
    b" ", b"complex", b"hermitian", b"array", b"\xff\xff\xff\xff", b"(1,)", b"<f8",
    b"RANGES\n", b"ENDATA\n", b" BV B x\n", b"'MARKER'", b"-1e30", b"$", b"\t",
    b'"shape":[2],', b"null", b"1.5", b"9223372036854775808", b"true",
)  # fmt: skip
FREE = b"""NAME small
OBJSENSE
 MAX
ROWS
 N cost
 L r1
 G r2
 E r3
COLUMNS
 x cost 1 r1 2
 x r2 3
 M1 'MARKER' 'INTORG'
 y cost -1 r3 4
 M2 'MARKER' 'INTEND'
 z r1 -1.5e0 $ a comment
RHS
 rhs r1 10 r2 -1
 rhs r3 6 cost 7
RANGES
 rng r1 4 r2 -5
BOUNDS
 UP bnd x -2
 MI bnd z
 UP bnd z 1e30
 LI bnd y 2
ENDATA
"""
FIXED = b"""NAME          TEST
ROWS
 N  COST
 L  ROW ONE
COLUMNS
    COL A     COST               1.0   ROW ONE            2.0
    COL B     ROW ONE            3.0
RHS
    R H S     ROW ONE            4.0
BOUNDS
 UP BND       COL B              5.0
ENDATA
"""
#: What a refusal names, by the beginning of the media type: where it is.
NAMED = {
    "application/x-npz": re.compile(
        r"\b(format|shape|indptr|indices|data|row|col|offsets|entries|members?)\b"
        r"|\.npz file|\d+ bytes"
    ),
    "application/x-nnz-csr": re.compile(
        r"\b(shape|indptr|indices|data|row|col|inputs|entries)\b|JSON part|last array"
        r"|\d+ bytes|array '"
    ),
    "": re.compile(r"line \d+|gzip stream|\d+ bytes"),
}


def whole_files() -> list[tuple[str, bytes]]:
    """Return files that are right, each with its media type."""
    rng = np.random.default_rng(0)
    a = sp.random_array((6, 6), density=0.3, rng=rng)
    files = [(kind, npz) for kind, npz in _npz(a)]
    square = a.toarray()
    for matrix, more in (
        (a, {}),
        (a + a.T, {"symmetry": "symmetric"}),
        (sp.coo_array(a * 1j), {}),
        (square, {}),
        (square + 1j * square - (square + 1j * square).conj().T, {}),
    ):
        text = io.BytesIO()
        scipy.io.mmwrite(text, matrix, **more)
        files.append(("text/x-matrix-market", text.getvalue()))
    files.append(("application/gzip", gzip.compress(files[-1][1])))
    files += [(MPS, FREE), (MPS, FIXED), (MPS, gzip.compress(FREE))]
    csr, coo = a.tocsr(), a.tocoo()
    rows = {"indptr": csr.indptr, "indices": csr.indices, "data": csr.data}
    places = {"row": coo.row, "col": coo.col, "data": coo.data * 1j}
    for arrays in (rows, places):
        files += [_body(arrays, binary=True), _body(arrays, binary=False)]
    return files


def _npz(a: sp.coo_array) -> list[tuple[str, bytes]]:
    files = []
    for kind in ("csr", "csc", "coo", "bsr", "dia"):
        for packed in (True, False):
            file = io.BytesIO()
            sp.save_npz(file, a.asformat(kind), compressed=packed)
            files.append(("application/x-npz", file.getvalue()))
    return files


def _body(arrays: dict[str, np.ndarray], *, binary: bool) -> tuple[str, bytes]:
    names = {"i": "INT32", "f": "FP64", "c": "C128"}
    inputs, tail = [], b""
    for name, array in arrays.items():
        array = array if binary else array.real
        entry = {
            "name": name, "shape": [array.size], "datatype": names[array.dtype.kind]
        }  # fmt: skip
        if binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = array.tolist()
        inputs.append(entry)
    text = json.dumps({"parameters": {"shape": [6, 6]}, "inputs": inputs}).encode()
    return f"{CSR}{len(text)}", text + tail


def spoil(rng: Random, content: bytes) -> bytes:
    """Change a few places: bits, scraps, cuts, repetitions."""
    packed = content[:2] == b"\x1f\x8b" and rng.random() < 0.6
    out = bytearray(gzip.decompress(content) if packed else content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = at + rng.choice((0, 1, 1, 2, 4, 8, 40))
        match rng.randrange(4):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at:end] = rng.choice(SCRAPS)
            case 2:
                del out[at:end]
            case _:
                out[at:at] = out[at:end]
    return gzip.compress(out, 1) if packed else bytes(out)


def look_at(path: Path, kind: str) -> ServiceError | None:
    """Read a file as the intake and then the worker do; returns why it was refused."""
    resident = path.with_suffix(".resident")
    try:
        if kind == MPS:
            write_program(read_mps(path, LIMITS), resident)
        elif kind.startswith(CSR):
            arrays, shape = read_csr_body(path, int(kind.removeprefix(CSR)))
            made = csr_from_triplets if "row" in arrays else csr_from_arrays
            write_resident(
                canonical(made(**arrays, shape=shape, limits=LIMITS)), resident
            )
        else:
            write_resident(canonical(read_matrix(path, kind, LIMITS)), resident)
    except ServiceError as error:
        return error
    matrix = read_resident(resident)
    matrix.check()
    describe(matrix)
    assert (read_program(resident, matrix) is not None) == (kind == MPS)
    return None


def check_refusal(fault: ServiceError, kind: str) -> None:
    """Fail unless a refusal is one, and says where the fault is."""
    assert 400 <= fault.status < 500, fault
    found = (one for begin, one in NAMED.items() if kind.startswith(begin))
    assert next(found).search(str(fault)), (kind, str(fault))
