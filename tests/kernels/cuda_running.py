"""Run the cases of the CUDA kernels on emulated devices; tasks of a `Forge` as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda_emulator.emulated import FORWARD, REVERSE, SHUFFLED, Emulator
from kernels.cuda_cases import CASES, compare
from kernels.cuda_mutations import HARMLESS, MUTATIONS, READS
from kernels.half_cases import HALF_CASES, TOLERANCE

from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.hosted import hosted

ORDERS = (FORWARD, REVERSE, SHUFFLED)


def run(emulators: Sequence[Emulator], module: str) -> None:
    """Compare all cases of a module, side by side on devices that must agree.

    What is wrong in any order shows at the first case that it harms.

    Raises:
        AssertionError: An answer is wrong, differs in a bit between devices, or memory
            was written around arrays.
    """
    devices = [Device(one) for one in emulators]
    whole: list[Any] = [hosted(CudaKernels(device)) for device in devices]
    for case in CASES.get(module, ()):
        for answers in zip(*map(case, whole), strict=True):
            compare(*answers[0])
            check_bits(found for found, _ in answers)
        check_guards(emulators)
    for precision, tolerance in TOLERANCE.items():
        halves = [CudaKernels(device, precision) for device in devices]
        for half in HALF_CASES.get(module, ()):
            for rows in zip(*map(half, halves), strict=True):
                np.testing.assert_allclose(*rows[0], tolerance, tolerance)
                check_bits(found for found, _ in rows)
            check_guards(emulators)


def check_bits(found: Iterable[Any]) -> None:
    """Compare what several devices found."""
    first, *others = (np.asarray(one).tobytes() for one in found)
    assert all(other == first for other in others), "bits depend on the schedule"


def check_guards(emulators: Sequence[Emulator]) -> None:
    """Look around the arrays of each."""
    for emulator in emulators:
        emulator.check_guards()


def mutated(folder: str, name: str) -> None:
    """Run what has one of `MUTATIONS`, or of those that are harmless."""
    change = {**MUTATIONS, **HARMLESS}[name]
    run([Emulator(Path(folder), o, change=change) for o in ORDERS], change.module)


def sanitized(folder: str, name: str) -> None:
    """Run a module, or what has one of `READS`, with a sanitizer in the process."""
    change = READS.get(name)
    module = name if change is None else change.module
    run([Emulator(Path(folder), sanitize=True, change=change)], module)
    print("done")
