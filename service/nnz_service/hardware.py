"""Which CPU to compile for: this machine, or a level that many machines share.

Numba's cache key holds the name and the features of the CPU, so code compiled on one
machine is compiled again on the next. An image is built on one and run on another:
there the code is compiled for the levels of the x86-64 psABI (section 3.1.1, micro-
architecture levels), and a process picks the highest that its machine has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Features of each level in LLVM's words, beyond the baseline of x86-64.
_V3 = (
    "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+crc32,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,"
    "+mmx,+movbe,+popcnt,+sahf,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave"
)
LEVELS: dict[str, str] = {
    "x86-64-v4": f"{_V3},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl,+evex512",
    "x86-64-v3": _V3,
}

#: What the kernel calls the features that tell the levels apart.
_NEEDED = {
    "x86-64-v4": {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
    "x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"},
}


def gpus(
    environment: Mapping[str, str], devices: Path = Path("/dev")
) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that there are, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: Where that variable may be; without it all are visible.
        devices: Where the driver has a file for each.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(one for one in visible.replace(" ", "").split(",") if one)
    found = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*"))
    return tuple(sorted((name for name in found if name.isdecimal()), key=int))


def cpu_flags(cpuinfo: str) -> set[str]:
    """Return the feature flags of the first CPU in the text of ``/proc/cpuinfo``."""
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def best_level(flags: set[str]) -> str | None:
    """Return the highest level that a CPU with these flags has, or None."""
    for level in LEVELS:
        if _NEEDED[level] <= flags and _NEEDED["x86-64-v3"] <= flags:
            return level
    return None


def compiler_environment(
    target: str, cpuinfo: Path = Path("/proc/cpuinfo")
) -> dict[str, str]:
    """Return the environment that makes numba compile for a target.

    Args:
        target: ``native`` (this machine exactly), ``portable`` (the highest level that
            this machine has) or the name of a level.
        cpuinfo: Where the kernel describes the CPU.

    Returns:
        Variables to set before numba is imported; empty for ``native`` and for a
        machine that has none of the levels.

    Raises:
        ValueError: The target is none of these.
    """
    if target == "native":
        return {}
    if target == "portable":
        text = cpuinfo.read_text() if cpuinfo.exists() else ""
        found = best_level(cpu_flags(text))
        return {} if found is None else compiler_environment(found)
    if target not in LEVELS:
        names = ", ".join(["native", "portable", *LEVELS])
        raise ValueError(f"unknown CPU target {target!r}; there are {names}")
    return {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": LEVELS[target]}
