"""NVRTC without a GPU: compile a module and read what its kernels need."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.cuda.source import OPTIONS, module_source

#: A line of `ptxas -v` for one kernel: its name, then what it uses.
_USED = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores.*?Used (?P<registers>\d+) registers"
    r"(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Use:
    """What a compiled kernel needs of a multiprocessor."""

    registers: int
    shared: int
    spills: int


def library() -> Path | None:
    """Return NVRTC's file, None where the package is not installed."""
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(folder).glob("**/lib/libnvrtc.so.*[0-9]"))
        if found:
            return found[0]
    return None


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    path = library()
    if path is None:
        raise FileNotFoundError("the package nvidia-cuda-nvrtc is not installed")
    # NVRTC asks for this one by its bare name, which finds only what is loaded already.
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def compile_module(module: str, architecture: int) -> dict[Kernel, Use]:
    """Compile a module with all its instantiations.

    Args:
        module: Its name.
        architecture: Compute capability, as 90 for 9.0.

    Raises:
        RuntimeError: The compiler refuses it; the message is its log.
    """
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    kernels = registry.of_module(module)
    source = module_source(module).encode()
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source, f"{module}.cu".encode(), 0, None, None
    )
    for kernel in kernels:
        nvrtc.nvrtcAddNameExpression(program, kernel.expression.encode())
    options = [option.encode() for option in _options(architecture)]
    array = (ctypes.c_char_p * len(options))(*options)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    log = _log(program)
    if failed:
        raise RuntimeError(log)
    uses = {
        found["name"]: Use(
            int(found["registers"]), _shared(found["rest"]), int(found["stores"])
        )
        for found in _USED.finditer(log)
    }
    found = {kernel: uses[_lowered(program, kernel)] for kernel in kernels}
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return found


def digest(module: str, architecture: int) -> str:
    """Return a name of all that a compilation depends on: text, kernels, compiler."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    kernels = [kernel.expression for kernel in registry.of_module(module)]
    compiler = f"{major.value}.{minor.value}", *_options(architecture)
    whole = "\n".join((*compiler, *kernels, module_source(module)))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _options(architecture: int) -> tuple[str, ...]:
    return (
        *OPTIONS, f"-arch=sm_{architecture}", "--ptxas-options=-v",
        "--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror",
    )  # fmt: skip


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _nvrtc().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _nvrtc().nvrtcGetProgramLog(program, text)
    return text.value.decode()


def _lowered(program: ctypes.c_void_p, kernel: Kernel) -> str:
    name = ctypes.c_char_p()
    _nvrtc().nvrtcGetLoweredName(
        program, kernel.expression.encode(), ctypes.byref(name)
    )
    return (name.value or b"").decode()


def _shared(rest: str) -> int:
    found = _SHARED.search(rest)
    return int(found[1]) if found else 0
