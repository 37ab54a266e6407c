"""Convert an ONNX file for MNN, which has a file format of its own, without a word."""

from __future__ import annotations

import contextlib
import ctypes
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from nnz_service.errors import ImpossibleError

#: Share of the zeros that lie in whole 1x4 blocks from which these are called 1x4.
WHOLE = 0.95


def convert(path: Path, folder: Path) -> Path:
    """Write the file that MNN runs, with its sparse kernels where there are zeros.

    Args:
        path: ONNX file.
        folder: Where to put what is written.

    Raises:
        ImpossibleError: MNN cannot convert the file.
    """
    target = folder / f"{path.stem}.mnn"
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(path)]
    words += ["--MNNModel", str(target), "--bizCode", "nnz"]
    block = zero_block(path)
    if block:
        words.append("--detectSparseSpeedUp")
    if block == 4:
        parameters = folder / "blocks.bin"
        parameters.write_bytes(compression_parameters(block))
        words += ["--compressionParamsFile", str(parameters)]
    with quiet():
        # Its command `mnnconvert` would send statistics; this is what it calls.
        import _tools

        _tools.mnnconvert(words)
    if not target.exists():
        raise ImpossibleError(f"mnn could not convert {path.name}")
    return target


def zero_block(path: Path) -> int:
    """Return how the zeros of a model lie: 0 without any, 4 in 1x4 blocks, else 1."""
    import onnx
    from onnx import numpy_helper

    from nnz_service.engine.prunable import find_layers

    layers, _ = find_layers(onnx.load_model(str(path)).graph, block=4, first=False)
    zeros = whole = 0
    for layer in layers:
        values = numpy_helper.to_array(layer.tensor).ravel()
        is_zero = values[layer.blocks] == 0
        zeros += int(is_zero.sum())
        whole += int(is_zero.all(axis=1).sum()) * is_zero.shape[1]
    if not zeros:
        return 0
    return 4 if whole >= WHOLE * zeros else 1


def compression_parameters(block: int) -> bytes:
    """Return the protobuf that tells the converter the block: pruned by SIMD_OC.

    The message is ``Pipeline`` of MNN's ``MNN_compression.proto``: version, one
    algorithm (PRUNE, SIMD_OC, oc_blocks) and an identifier of 36 characters.
    """
    version = b"\x0a\x05" + b"0.0.0"
    algorithm = bytes([0x12, 10, 0x08, 1, 0x1A, 6, 0x08, 1, 0x1A, 2, 0x20, block])
    name = str(uuid.UUID(int=0)).encode()
    return version + algorithm + b"\x1a" + bytes([len(name)]) + name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to stdout and stderr, by C libraries too."""
    libc = ctypes.CDLL(None)
    saved = [os.dup(1), os.dup(2)]
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        libc.fflush(None)  # what was written before is wanted
        try:
            for target in (1, 2):
                os.dup2(nowhere.fileno(), target)
            yield
        finally:
            libc.fflush(None)  # and what C still buffers is not
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
