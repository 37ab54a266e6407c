"""Kernels as libraries of the host: g++ compiles each distinct text once, for all."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.registry import Kernel

HERE = Path(__file__).parent

#: What stands for the file of PTX instructions.
PTX = HERE / "emulated_ptx.h"

COMPILER = shutil.which("g++")
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
SANITIZER = ("-fsanitize=address", "-g")


class BuildError(AssertionError):
    """A text that g++ refuses, or kernels with other parameters than registered."""


def load(
    kernels: Sequence[Kernel], text: str, flags: tuple[str, ...], folder: Path
) -> ctypes.CDLL:
    """Compile some kernels of a module, if nobody has, and compare their signatures.

    Args:
        kernels: Which; the library has ``launch_N`` of each, N its place in the module.
        text: Of the module.
        flags: Of the compiler.
        folder: Where libraries are kept; several processes may share it.
    """
    module = kernels[0].module
    numbers = {k: registry.of_module(module).index(k) for k in kernels}
    exports = "\n".join(
        f"EXPORT_KERNEL({number}, {kernel.expression})"
        for kernel, number in numbers.items()
    )
    words = _words(flags, folder)
    name = f"{module}-{_digest(words.parent.name, text, exports)}.so"
    target = folder / name
    with _alone(target):
        if not target.exists():
            _compile(
                f"{text}\n{exports}\n", (*flags, *_SHARED, "-include"), words, target
            )
    library = ctypes.CDLL(str(target))
    for kernel, number in numbers.items():
        ask = getattr(library, f"signature_{number}")
        ask.restype = ctypes.c_char_p
        found = ask().decode().split()
        if tuple(found) != kernel.signature:
            raise BuildError(
                f"{kernel.expression} takes {found}, the registry says "
                f"{list(kernel.signature)}"
            )
    return library


_SHARED = ("-shared", "-fPIC")


def _words(flags: tuple[str, ...], folder: Path) -> Path:
    """Return the emulator's header, compiled ahead: else a second of every text."""
    headers = [path.read_text() for path in sorted(HERE.glob("*.h"))]
    words = folder / f"words-{_digest(*headers, *flags)}" / "words.h"
    compiled = words.with_name("words.h.gch")
    with _alone(words.parent):
        if not compiled.exists():
            words.parent.mkdir(exist_ok=True)
            # One more file, so that `#pragma once` is not in the main one.
            words.write_text('#include "cuda_words.h"\n')
            _compile(words.read_text(), (*flags, "-fPIC", "-x"), "c++-header", compiled)
    return words


def _compile(text: str, flags: tuple[str, ...], last: str | Path, target: Path) -> None:
    if COMPILER is None:
        raise BuildError("g++ is not installed")
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        source, made = Path(work, "kernels.cpp"), Path(work, "made")
        source.write_text(text)
        command = [
            COMPILER, *flags, str(last), "-I", str(HERE), str(source), "-o", str(made),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{target.name}:\n{done.stderr[:4000]}")
        made.replace(target)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time make a file: the others would do the same work."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
