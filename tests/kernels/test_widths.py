"""The kernels are right with vectors of every length, on whatever machine this is."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from nnz_kernels.cpu._simd import LANES

HERE = Path(__file__).parent

ASK = """
import json
import numba
from nnz_kernels.cpu import _simd, identity
from nnz_kernels.backends import Backend, probe
width = probe(Backend.CPU).details["vector_width"]
found = [_simd.LANES, _simd.MANY_REGISTERS, _simd.WIDTHS, width]
print(json.dumps([*found, identity(), numba.config.CACHE_DIR]))
"""

#: What lowers numba to an older machine, and what lengthens its vectors.
MACHINES = [
    pytest.param({"NNZ_VECTOR_BITS": "512"}, 16, id="16 lanes"),
    pytest.param(
        {
            "NUMBA_CPU_NAME": "x86-64-v3",
            "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2",
        },
        8,
        id="8 lanes",
    ),
    pytest.param(
        {
            "NUMBA_CPU_NAME": "x86-64-v2",
            "NUMBA_CPU_FEATURES": "+sse4.2,+sse4.1,+ssse3",
        },
        4,
        id="4 lanes",
    ),
]

#: What says for which machine kernels are compiled.
_SETTINGS = ("NNZ_VECTOR_BITS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")

#: What has code for each length of a vector.
FILES = [
    "test_attention.py", "test_conv.py", "test_conv_edges.py", "test_conv_tilings.py",
    "test_depthwise.py", "test_few_pixels.py", "test_pointwise.py", "test_pool.py",
    "test_products.py", "test_tasks.py", "test_tensor.py", "test_winograd.py",
]  # fmt: skip


def python(
    *arguments: str, timeout: int = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_tests(
    *arguments: str, timeout: int = 280, **environment: str
) -> tuple[int, str]:
    options = ("-q", "-x", "-p", "no:cacheprovider")
    done = python("-m", "pytest", *options, *arguments, timeout=timeout, **environment)
    return done.returncode, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("environment", "lanes"), MACHINES)
def test_kernels_of(environment: dict[str, str], lanes: int, tmp_path: Path) -> None:
    """All tests of what is written in vectors pass, compiled for another machine."""
    if "NUMBA_CPU_NAME" in environment and platform.machine() != "x86_64":
        pytest.skip("the names are those of x86-64 processors")
    if lanes == LANES:
        pytest.skip(f"{lanes} lanes are the machine's own, in which all tests run")
    # One thread: drivers divide work alike whatever the length, and compile it again.
    alone = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    environment = {**environment, **alone}
    asked = json.loads(python("-c", ASK, **environment).stdout)
    files = [str(HERE / name) for name in FILES]

    # Another vector length is nothing to a GPU, to numpy, nor to complex numbers.
    only = ("-k", "not cuda and not [reference and not TestComplex")
    code, output = run_tests(*files, *only, timeout=880, **environment)

    assert asked[0] == lanes
    assert code == 0, output


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_forced_length(bits: int) -> None:
    """It is said everywhere, and code for another length is never loaded."""
    lanes, many, widths, width, identity, cache = json.loads(
        python("-c", ASK, NNZ_VECTOR_BITS=str(bits)).stdout
    )

    assert (32 * lanes, width) == (bits, bits)
    assert many == (bits == 512) or platform.machine() != "x86_64"
    registers = 32 if many else 16
    for height, most in widths.items():
        # Sums, one weight, and the pixels of a tap if several rows use them.
        held = most if int(height) > 1 else 0
        assert int(height) * most + held + 1 <= registers
    assert f"-{bits}-" in identity
    assert Path(cache).name.endswith(f"-{bits}")


def test_no_such_length() -> None:
    code = "from nnz_kernels.backends import Backend, probe; print(probe(Backend.CPU))"

    done = python("-c", code, NNZ_VECTOR_BITS="384")

    assert "NNZ_VECTOR_BITS is '384', but must be 128, 256 or 512" in done.stdout
    assert "available=False" in done.stdout
