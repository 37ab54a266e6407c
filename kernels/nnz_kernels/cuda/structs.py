"""Structs that kernels take by value; fields and order are those of ``src``."""

from __future__ import annotations

import ctypes
from typing import Any

from nnz_kernels.cuda.array import DeviceArray

_POINTER, _INT, _LONG, _FLOAT = (
    ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64, ctypes.c_float,
)  # fmt: skip


class Plane(ctypes.Structure):
    """Where the places of planes lie (planes.cuh).

    Attributes:
        table: What ``places`` points to.
    """

    table: DeviceArray
    _fields_ = (
        ("places", _POINTER), ("ld", _LONG), ("pixels", _INT), ("row", _INT),
        ("domain", _INT), ("channels", _INT),
    )  # fmt: skip


class Ending(ctypes.Structure):
    """What a layer does with a sum (layer.cuh)."""

    _fields_ = (
        ("bias", _POINTER), ("residual", _POINTER), ("lo", _FLOAT), ("hi", _FLOAT),
        ("activation", _INT), ("unused", _INT),
    )  # fmt: skip


class Blocks(ctypes.Structure):
    """Weights in blocks (sparse_conv.cu)."""

    _fields_ = (
        *((name, _POINTER) for name in ("order", "channels", "indptr", "offsets")),
        ("values", _POINTER), ("rows", _INT), ("parts", _INT),
    )  # fmt: skip


class Columns(ctypes.Structure):
    """Dense weights by column (dense_conv.cu)."""

    _fields_ = (
        ("offsets", _POINTER), ("weights", _POINTER), ("groups", _INT),
        ("channels", _INT), ("pitch", _INT), ("columns", _INT), ("parts", _INT),
        ("unused", _INT),
    )  # fmt: skip


class Window(ctypes.Structure):
    """A pooling window and the grid that it walks over (pool.cu)."""

    _fields_ = tuple(
        (name, _INT)
        for name in (
            "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w",
            "top", "left", "bottom", "right", "h", "w", "out_h", "out_w", "lead",
            "pitch", "rows", "count_padding",
        )
    )  # fmt: skip


class Walk(ctypes.Structure):
    """Two operands over one shape (tensor.cu)."""

    RANK = 8
    _fields_ = (
        ("shape", _LONG * RANK), ("a", _LONG * RANK), ("b", _LONG * RANK),
        ("size", _LONG), ("rank", _INT), ("unused", _INT),
    )  # fmt: skip


class Heads(ctypes.Structure):
    """Sizes of an attention (attention.cu)."""

    _fields_ = (
        ("q_ld", _LONG), ("k_ld", _LONG), ("v_ld", _LONG),
        *(
            (name, _INT)
            for name in (
                "lead_q", "lead_k", "lead_v", "queries", "keys", "heads", "head_dim",
                "value_dim",
            )
        ),
        ("mask_strides", _LONG * 4), ("scale", _FLOAT), ("batch", _INT),
    )  # fmt: skip


class Triangle(ctypes.Structure):
    """Which entries of a matrix a triangular solve reads (triangle.cu)."""

    _fields_ = (("n", _LONG), ("width", _LONG), ("lower", _INT), ("unit", _INT))


class Chain(ctypes.Structure):
    """Flags by which rows wait for each other (triangle.cu)."""

    _fields_ = tuple((name, _POINTER) for name in ("done", "ticket", "bad", "stopped"))


class Side(ctypes.Structure):
    """Where one side of a saddle-point problem lies (saddle.cu)."""

    rows: int
    _fields_ = (
        *(
            (name, _POINTER)
            for name in (
                "indptr", "indices", "data", "from_", "lower", "upper", "costs",
                "anchor", "z", "point", "change", "reduced", "reflected",
            )
        ),
        ("rows", _LONG),
    )  # fmt: skip


class Pairs(ctypes.Structure):
    """Sizes of two ragged operands (vectors.cu)."""

    _fields_ = (
        ("count", _LONG), ("nnz_u", _LONG), ("nnz_v", _LONG), ("bits", _INT),
        ("one_u", _INT),
    )  # fmt: skip


def address(array: Any) -> int:
    """Return where a `DeviceArray` begins, 0 for None."""
    return 0 if array is None else int(array.address)
