"""The CPU to compile for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnz_service.hardware import (
    LEVELS,
    best_level,
    compiler_environment,
    cpu_flags,
    gpus,
)

V3 = "avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"


class TestBestLevel:
    @pytest.mark.parametrize(
        ("flags", "level"),
        [
            pytest.param(V4, "x86-64-v4", id="AVX-512"),
            pytest.param(V3, "x86-64-v3", id="AVX2"),
            pytest.param(V4.replace("avx512vl", ""), "x86-64-v3", id="half AVX-512"),
            pytest.param("sse2", None, id="neither"),
        ],
    )
    def test_highest_that_is_whole(self, flags: str, level: str | None) -> None:
        assert best_level(set(flags.split())) == level


class TestCompilerEnvironment:
    def test_native_changes_nothing(self) -> None:
        assert compiler_environment("native") == {}

    def test_portable_reads_the_machine(self, tmp_path: Path) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {V3}\n")

        env = compiler_environment("portable", cpuinfo)

        assert env["NUMBA_CPU_NAME"] == "x86-64-v3"
        assert "avx512" not in env["NUMBA_CPU_FEATURES"]

    def test_portable_without_cpuinfo(self, tmp_path: Path) -> None:
        assert compiler_environment("portable", tmp_path / "absent") == {}

    def test_unknown_target_names_the_known(self) -> None:
        with pytest.raises(ValueError, match="x86-64-v4"):
            compiler_environment("z80")


def test_flags_of_the_first_cpu() -> None:
    assert cpu_flags("model name\t: x\nflags\t\t: fpu vme\n") == {"fpu", "vme"}


def test_each_level_is_reachable() -> None:
    assert set(LEVELS) == {"x86-64-v4", "x86-64-v3"}


class TestGpus:
    def test_as_the_driver_lists_them(self, tmp_path: Path) -> None:
        for name in ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm"):
            (tmp_path / name).touch()

        assert gpus({}, tmp_path) == ("0", "2", "10")
        assert gpus({}, tmp_path / "none") == ()

    def test_as_the_environment_narrows_them(self, tmp_path: Path) -> None:
        (tmp_path / "nvidia0").touch()

        assert gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-1a"}, tmp_path) == ("3", "GPU-1a")
        assert gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
