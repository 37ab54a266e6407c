"""Every CUDA kernel on the emulator: right, in any order, within its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator.emulated import (
    FORWARD,
    REVERSE,
    SHUFFLED,
    EmulationError,
    Emulator,
)
from kernels.cuda_cases import CASES, compare
from kernels.half_cases import HALF_CASES, TOLERANCE

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.cuda.source import module_source
from nnz_kernels.hosted import hosted

#: What is broken in a real kernel, and how: module, text, what stands there instead.
MUTATIONS = {
    "no barrier before sums of parts are read": (
        "sparse_conv",
        "    __syncthreads();\n    if (part < half)",
        "    if (part < half)",
    ),
    "no barrier before staged weights are read": (
        "sparse_conv",
        "    __syncwarp();\n#pragma unroll 4",
        "#pragma unroll 4",
    ),
    "a block row too many": (
        "sparse_conv",
        "line < a.rows;\n",
        "line <= a.rows;\n",
    ),
    "no barrier before a tile is multiplied": (
        "dense_conv",
        "      __syncthreads();\n      if (column + DEPTH < range.y)",
        "      if (column + DEPTH < range.y)",
    ),
    "columns of another part": (
        "dense_conv",
        "column = range.x; column < range.y;",
        "column = range.x; column <= range.y;",
    ),
    "no end of the channels of a depthwise layer": (
        "dense_conv",
        "blockIdx.y; channel < y.channels; channel += gridDim.y) {\n"
        "    const T* plane",
        "blockIdx.y; channel <= y.channels; channel += gridDim.y) {\n"
        "    const T* plane",
    ),
    "no end of the places of a pool": (
        "pool",
        "if (q >= places_of(y, channel)) continue;\n    float found",
        "float found",
    ),
    "half a warp in a mean": ("pool", "WARP = 0xffffffffu", "WARP = 0xffffu"),
    "no barrier in a transposition": (
        "pointwise",
        "  __syncthreads();\n  for (int i = threadIdx.y; i < TILE; i += STEP) {\n"
        "    const int q = q0 + threadIdx.x",
        "  for (int i = threadIdx.y; i < TILE; i += STEP) {\n"
        "    const int q = q0 + threadIdx.x",
    ),
    "no barrier before the weights of keys are used": (
        "attention",
        "    __syncthreads();\n    // From here a lane is a query",
        "    // From here a lane is a query",
    ),
    "no barrier before shared pixels are overwritten": (
        "mma_conv",
        "      __syncthreads();\n      if (step >= 0)",
        "      if (step >= 0)",
    ),
    "a bit too far": ("mma_conv", "(u64{1} << bit) - 1", "(u64{2} << bit) - 1"),
    "pixels of the last column where there is none": (
        "mma_conv",
        "next[k][i] = offset < 0 ?",
        "next[k][i] = offset < -1 ?",
    ),
    "keys that are not there": ("attention", "if (key >= a.keys) value = -INF;", ""),
    "a row too many": (
        "tensor",
        "if (row >= rows) return;\n  x += row * size;\n  float value",
        "if (row > rows) return;\n  x += row * size;\n  float value",
    ),
    "no barrier between products and sums": (
        "products",
        "  __syncthreads();\n  // Rows row0",
        "  // Rows row0",
    ),
    "carries of a later tile alone": (
        "products",
        "y[row] = sum + y[row];",
        "y[row] = y[row];",
    ),
    "no barrier before digits are ranked": (
        "sort",
        "    __syncthreads();\n    int base = next[threadIdx.x];",
        "    int base = next[threadIdx.x];",
    ),
    "an unstable sort": (
        "sort",
        "counts[warp][digit] + before;",
        "counts[warp][digit] + __popc(same) - 1 - before;",
    ),
    "no test for the end of a batch": (
        "vectors",
        "if (i >= a.nnz_u + a.nnz_v) return;\n  const bool is_v",
        "const bool is_v",
    ),
}  # fmt: skip

#: Those that only a sanitizer sees: they read beyond an array and use nothing of it.
READS = {
    "a load behind the last entry": (
        "products",
        "for (I p = begin + lane; p < end; p += step) {",
        "for (I p = begin + lane; p < end + 64; p += step) {\n"
        "    if (p >= end) {\n"
        "      asm volatile(\"\" ::\"r\"(static_cast<int>(data[p])));\n"
        "      continue;\n"
        "    }",
    ),
}  # fmt: skip


def run(emulator: Emulator, module: str) -> list[bytes]:
    """Compare all cases of a module; return what they gave."""
    device = Device(emulator)
    kernels: Any = hosted(CudaKernels(device))
    answers = []
    for case in CASES.get(module, ()):
        for found, right in case(kernels):
            compare(found, right)
            answers.append(np.asarray(found).tobytes())
        emulator.check_guards()
    for precision, tolerance in TOLERANCE.items():
        for half in HALF_CASES.get(module, ()):
            for found, right in half(CudaKernels(device, precision)):
                np.testing.assert_allclose(found, right, tolerance, tolerance)
                answers.append(found.tobytes())
            emulator.check_guards()
    return answers


@pytest.mark.parametrize("module", registry.MODULES)
def test_right_in_any_order(module: str, emulator_folder: Path) -> None:
    """Schedules change no bit of an answer."""
    emulators = [Emulator(emulator_folder, o) for o in (FORWARD, REVERSE, SHUFFLED)]

    first, *others = (run(emulator, module) for emulator in emulators)

    assert all(other == first for other in others)
    wanted = {kernel.expression for kernel in registry.of_module(module)}
    assert wanted <= set(emulators[0].launches)


def changed(mutation: tuple[str, str, str]) -> Any:
    """Return a change of one place of one module."""
    where, old, new = mutation
    assert module_source(where).count(old) == 1, f"{old!r} is not once in {where}"
    return lambda module, text: text.replace(old, new) if module == where else text


_MUTATED = """
import sys
from pathlib import Path
from cuda_emulator.emulated import FORWARD, REVERSE, SHUFFLED, Emulator
from kernels.test_cuda_emulated import MUTATIONS, changed, run
folder, name, broken = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "broken"
extra = {"change": changed(MUTATIONS[name])} if broken else {}
for order in (FORWARD, REVERSE, SHUFFLED):
    try:
        run(Emulator(folder, order, **extra), MUTATIONS[name][0])
    except AssertionError as exc:
        sys.exit(f"caught: {exc}")
print("nothing is wrong")
"""


def in_process(
    code: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code that may end with a crash, with the tests and the sources to import."""
    root = Path(__file__).parents[2]
    paths = (root / "tests", root / "kernels", root / "service")
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={
            **os.environ, "PYTHONPATH": ":".join(map(str, paths)), **environment,
        },
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_cuda_mutation_is_caught(name: str, emulator_folder: Path) -> None:
    """A kernel without one barrier, bound or lane fails in some order, or crashes."""
    done = in_process(_MUTATED, str(emulator_folder), name, "broken")

    assert done.returncode < 0 or done.stderr.startswith("caught: "), done


@pytest.mark.slow
def test_cuda_unchanged_is_not_caught(emulator_folder: Path) -> None:
    """The same without a mutation."""
    for name in ("an unstable sort", "a block row too many"):
        done = in_process(_MUTATED, str(emulator_folder), name, "whole")

        assert done.stdout == "nothing is wrong\n", done


class TestMessages:
    """What the emulator says names the place."""

    def test_cuda_deadlock(self, emulator_folder: Path) -> None:
        """A barrier that half of a block never reaches."""
        change = changed(
            (
                "sort",
                "  found[threadIdx.x] = 0;\n  __syncthreads();",
                "  found[threadIdx.x] = 0;\n"
                "  if (threadIdx.x < 9) __syncwarp();\n  __syncthreads();",
            )
        )

        with pytest.raises(
            EmulationError, match=r"deadlock.* in __syncwarp at sort.cu:\d+"
        ):
            run(Emulator(emulator_folder, change=change), "sort")

    def test_cuda_mask(self, emulator_folder: Path) -> None:
        """A lane that its own mask does not name."""
        mutation = MUTATIONS["half a warp in a mean"]

        with pytest.raises(
            EmulationError, match=r"mask does not name; .* at reduce.cuh:\d+"
        ):
            run(Emulator(emulator_folder, change=changed(mutation)), "pool")


_SANITIZED = """
import sys
from pathlib import Path
from cuda_emulator.emulated import Emulator
from kernels.test_cuda_emulated import READS, changed, run
names = sys.argv[2:]
for name in names:
    where = READS[name][0] if name in READS else name
    extra = {"change": changed(READS[name])} if name in READS else {}
    run(Emulator(Path(sys.argv[1]), sanitize=True, **extra), where)
print("done")
"""


def sanitized(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run cases under AddressSanitizer, in a process of their own."""
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    return in_process(
        _SANITIZED, str(folder), *names, LD_PRELOAD=library, ASAN_OPTIONS=options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["sparse_conv", "dense_conv", "mma_conv", "pool", "attention", "sort"]
)
def test_cuda_reads_and_writes_where_it_may(module: str, emulator_folder: Path) -> None:
    done = sanitized(emulator_folder, module)

    assert done.stdout == "done\n", done.stderr[-3000:]


@pytest.mark.slow
def test_cuda_stray_read_is_caught(emulator_folder: Path) -> None:
    """The sanitizer names the line of a read that no answer shows."""
    done = sanitized(emulator_folder, "a load behind the last entry")

    assert "heap-buffer-overflow" in done.stderr
    assert "products.cu:" in done.stderr
