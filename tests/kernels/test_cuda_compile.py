"""Every CUDA kernel compiles as on a device, and needs no more of it than reviewed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nvrtc
import pytest

from nnz_kernels.cuda import registry

#: Registers and bytes of shared memory of each kernel on sm_90. It is written anew by
#: ``NNZ_WRITE_RESOURCES=1 pytest -n 0 -m "slow or not slow" tests/kernels/``
#: ``test_cuda_compile.py``; look at the difference: registers decide how many warps are
#: resident.
TABLE = Path(__file__).with_name("cuda_resources.json")

#: Other architectures, and the modules that have compiled for them, as digests of all
#: that this depends on. Only a run that has compiled them writes it, as the table.
OTHERS, COMPILED = (75, 80), TABLE.with_name("cuda_compiled.json")

#: What a thread may have at most: 65,536 registers over the threads of two blocks.
MOST_REGISTERS = 168

#: Shared memory that a block has without asking for more.
MOST_SHARED = 48 * 1024


@pytest.fixture(scope="session")
def compiler() -> None:
    """NVRTC, which needs no GPU."""
    if nvrtc.library() is None:
        if os.environ.get("NNZ_REQUIRE"):
            pytest.fail("NNZ_REQUIRE is set, but nvidia-cuda-nvrtc is not installed")
        pytest.skip("the package nvidia-cuda-nvrtc is not installed")


@pytest.mark.parametrize("module", registry.MODULES)
@pytest.mark.usefixtures("compiler")
def test_cuda_module_compiles(module: str) -> None:
    """Without spills, and within the table."""
    found = compiled(module, 90)

    check_table({k.expression: [u.registers, u.shared] for k, u in found.items()})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OTHERS)
@pytest.mark.usefixtures("compiler")
def test_cuda_modules_compile_for_others(architecture: int) -> None:
    """Those that have changed, or the compiler, since they did so."""
    record = json.loads(COMPILED.read_text()) if COMPILED.exists() else {}
    known = record.setdefault(str(architecture), {})
    writes = bool(os.environ.get("NNZ_WRITE_RESOURCES"))
    for module in registry.MODULES:
        digest = nvrtc.digest(module, architecture)
        if known.get(module) == digest:
            continue
        compiled(module, architecture)
        if writes:
            known[module] = digest
            COMPILED.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def compiled(module: str, architecture: int) -> dict[registry.Kernel, nvrtc.Use]:
    """Compile a module, and look at what its kernels need."""
    found = nvrtc.compile_module(module, architecture)
    assert set(found) == set(registry.of_module(module))
    for kernel, use in found.items():
        assert use.spills == 0, kernel
        assert use.registers <= MOST_REGISTERS, kernel
        assert use.shared <= MOST_SHARED, kernel
    return found


def check_table(found: dict[str, list[int]]) -> None:
    """Compare with the reviewed table, or write it."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if os.environ.get("NNZ_WRITE_RESOURCES"):
        table |= found
        lines = [
            f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items())
        ]
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    grown = {
        name: (use, table.get(name))
        for name, use in found.items()
        if name not in table
        or any(a > b for a, b in zip(use, table[name], strict=True))
    }
    assert not grown, "kernels that need more than the table says"


def test_cuda_table_names_kernels_that_are_there() -> None:
    table = json.loads(TABLE.read_text())

    assert set(table) == {kernel.expression for kernel in registry.KERNELS}
