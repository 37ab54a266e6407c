"""Every CUDA kernel on the emulator: right, in any order, within its memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_emulator.emulated import EmulationError, Emulator
from cuda_emulator.forge import FOUND, Forge
from cuda_emulator.planting import Change
from kernels.cuda_mutations import HARMLESS, MUTATIONS, READS
from kernels.cuda_running import ORDERS, run

from nnz_kernels.cuda import registry

#: Modules whose every read is looked at.
SANITIZED = (
    "sparse_conv", "dense_conv", "mma_conv", "pool", "attention", "sort", "triangle",
    "factor",
    "saddle",
)  # fmt: skip


@pytest.mark.parametrize("module", registry.MODULES)
def test_right_in_any_order(module: str, emulator_folder: Path) -> None:
    """Schedules change no bit of an answer."""
    emulators = [Emulator(emulator_folder, order) for order in ORDERS]

    run(emulators, module)

    wanted = {kernel.expression for kernel in registry.of_module(module)}
    assert wanted <= set(emulators[0].launches)


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    """A process for kernels that may crash."""
    with Forge("kernels.cuda_running") as made:
        yield made


@pytest.fixture(scope="module")
def watched(emulator_folder: Path) -> Iterator[Forge]:
    """A process with AddressSanitizer in it; without g++ its tests are skipped."""
    library = subprocess.run(
        ["g++", "-print-file-name=libasan.so"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    with Forge(
        "kernels.cuda_running", LD_PRELOAD=library, ASAN_OPTIONS=options
    ) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_cuda_mutation_is_caught(
    name: str, forge: Forge, emulator_folder: Path
) -> None:
    """A kernel without one barrier, bound or lane fails in some order, or crashes."""
    done = forge.run("mutated", str(emulator_folder), name)

    assert done.status == FOUND or done.crashed, done


@pytest.mark.slow
def test_cuda_harmless_change_is_not_caught(
    forge: Forge, emulator_folder: Path
) -> None:
    """The same without an error."""
    [name] = HARMLESS

    done = forge.run("mutated", str(emulator_folder), name)

    assert done == (0, "")


class TestMessages:
    """What the emulator says names the place."""

    def test_cuda_deadlock(self, emulator_folder: Path) -> None:
        """A barrier that half of a block never reaches."""
        change = Change(
            "sort",
            "  found[threadIdx.x] = 0;\n  __syncthreads();",
            "  found[threadIdx.x] = 0;\n"
            "  if (threadIdx.x < 9) __syncwarp();\n  __syncthreads();",
        )

        with pytest.raises(
            EmulationError, match=r"deadlock.* in __syncwarp at sort.cu:\d+"
        ):
            run([Emulator(emulator_folder, change=change)], "sort")

    def test_cuda_mask(self, emulator_folder: Path) -> None:
        """A lane that its own mask does not name."""
        change = MUTATIONS["half a warp in a mean"]

        with pytest.raises(
            EmulationError, match=r"mask does not name; .* at reduce.cuh:\d+"
        ):
            run([Emulator(emulator_folder, change=change)], "pool")


@pytest.mark.slow
@pytest.mark.parametrize("module", SANITIZED)
def test_cuda_reads_and_writes_where_it_may(
    module: str, watched: Forge, emulator_folder: Path
) -> None:
    done = watched.run("sanitized", str(emulator_folder), module)

    assert done == (0, "done\n"), done.said[-3000:]


@pytest.mark.slow
def test_cuda_stray_read_is_caught(watched: Forge, emulator_folder: Path) -> None:
    """The sanitizer names the line of a read that no answer shows."""
    [name] = READS

    done = watched.run("sanitized", str(emulator_folder), name)

    assert "heap-buffer-overflow" in done.said
    assert f"{READS[name].module}.cu:" in done.said
