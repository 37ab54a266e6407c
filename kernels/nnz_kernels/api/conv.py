"""Convolutions and products with constant weights: packed once, bound, then run.

``prepare`` packs the weights, ``bind`` works out the offsets of one pair of grids, and
``attach`` takes the buffers and gives a call that computes. A fully connected layer or
a product with a constant matrix is a 1x1 convolution whose pixels are tokens
(``planes.token_grid``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.pointwise import UnaryKind
from nnz_kernels.arrays import AnyArray, HostArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.planes import Grid

#: Output channels that may share a column index; None stands for dense.
BLOCKS = (1, 2, 4, 8, 16)

#: Activations that a layer may end in: they keep zero, so that a border stays one.
ACTIVATIONS: tuple[UnaryKind, ...] = ("gelu", "gelu_tanh", "silu", "hard_swish")

#: Ways to walk over pixels and columns, see ``prepare_conv``.
Tiling = Literal[
    "direct", "panel", "narrow", "chunk", "winograd", "bitmap", "library"
]  # fmt: skip

Array_contra = TypeVar("Array_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """What a convolution does besides its weights.

    Attributes:
        strides: Steps of the window, rows then columns.
        dilations: Distance of the kernel's taps, rows then columns.
        pads: Zeros around the image: top, left, bottom, right.
        groups: Equal runs of input channels that see only their own outputs.
        clamp: Lowest and highest value of the sum; NaN passes through.
        activation: What is done to the clamped sum, one of ``ACTIVATIONS``, or None.
    """

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    clamp: tuple[float, float] = (-math.inf, math.inf)
    activation: UnaryKind | None = None

    def __post_init__(self) -> None:
        """Refuse values that no convolution has."""
        if min(*self.strides, *self.dilations, self.groups) < 1 or min(self.pads) < 0:
            raise ShapeError(
                f"strides, dilations and groups must be >= 1 and pads >= 0, got {self}"
            )
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ShapeError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {self}"
            )

    def output_size(self, h: int, w: int, kernel: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the result for an image of ``h`` x ``w``."""
        top, left, bottom, right = self.pads
        reach_h = self.dilations[0] * (kernel[0] - 1) + 1
        reach_w = self.dilations[1] * (kernel[1] - 1) + 1
        return (
            (h + top + bottom - reach_h) // self.strides[0] + 1,
            (w + left + right - reach_w) // self.strides[1] + 1,
        )


class BoundConv(Protocol[Array_contra]):
    """A convolution of grids of one geometry."""

    @property
    def scratch(self) -> int:
        """Floats of scratch that a run needs; 0 when it reads its input in place."""
        ...

    def attach(
        self,
        x: Array_contra,
        y: Array_contra,
        residual: Array_contra | None,
        scratch: Array_contra,
        /,
    ) -> Callable[[], None]:
        """Check buffers once and return a call without arguments that computes.

        The call writes ``y = activation(clamp(conv(x) + bias + residual))`` from what
        the buffers hold then. All buffers are flat float32, at best 64-byte aligned.
        All of ``y`` is written: pixels, and zeros everywhere else. Calls with different
        ``y`` and ``scratch`` may run at the same time.

        Args:
            x: Planes of the input channels on the grid ``x`` of ``bind``, zero wherever
                there is no pixel.
            y: Planes of the output channels on the grid ``y``; must not overlap ``x``.
            residual: Planes on the grid ``y``, added before the clamp; may be ``y``.
            scratch: At least ``self.scratch`` floats of any content, not read later.

        Raises:
            ShapeError: A buffer is too short.
        """
        ...

    def run(
        self,
        x: Array_contra,
        y: Array_contra,
        residual: Array_contra | None,
        scratch: Array_contra,
        /,
    ) -> None:
        """Attach and compute once; the same for every back-end."""
        self.attach(x, y, residual, scratch)()


class PreparedConv(Protocol[Array_contra]):
    """Packed weights of one layer."""

    @property
    def kernel(self) -> str:
        """Name of the chosen kernel, such as ``spmm_b4``, ``dense``, ``depthwise``."""
        ...

    @property
    def block(self) -> int | None:
        """Output channels that share a column index; None for a dense kernel."""
        ...

    @property
    def nnz(self) -> int:
        """Weights that are multiplied, zeros in kept blocks included."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held for weights and indices."""
        ...

    @property
    def density(self) -> float:
        """``nnz`` over the weights of the dense layer."""
        ...

    def retiled(self, tiling: Tiling, /) -> PreparedConv[Array_contra] | None:
        """Return the same packed weights under another tiling, None if that needs
        others.
        """
        ...

    def bind(self, x: Grid, y: Grid, /, *, threads: int = 1) -> BoundConv[Array_contra]:
        """Work out offsets for one pair of grids, and the shares of threads.

        Any pair is right. It is fastest, with nothing staged in scratch, when strides
        are 1, ``x.pitch == y.pitch``, also ``x.rows == y.rows`` if ``x.n > 1``, and the
        border of ``x`` holds the padding (``bh`` and ``bw`` not below the pads).

        Raises:
            ShapeError: ``y`` is not of the size that the convolution gives on ``x``.
        """
        ...


class ConvOps(Protocol[Array_contra]):
    """Convolutions of planes."""

    def identity(self) -> str:
        """Return a file name for machine and version: where both agree, times do."""
        ...

    def tilings(
        self, shape: tuple[int, ...], spec: ConvSpec, block: int | None, pixels: int, /
    ) -> tuple[Tiling, ...]:
        """Return the tilings worth measuring for weights of a shape, the usual first.

        Args:
            shape: ``(oc, ic / groups, kh, kw)``.
            spec: As in ``prepare_conv``.
            block: As there.
            pixels: Pixels of the result in one channel.
        """
        ...

    def prepare_conv(
        self,
        weights: HostArray,
        bias: HostArray | None,
        spec: ConvSpec,
        /,
        *,
        block: int | None,
        tiling: Tiling = "direct",
    ) -> PreparedConv[Array_contra]:
        """Pack the weights of a layer.

        Args:
            weights: ``(oc, ic / groups, kh, kw)`` float32.
            bias: ``(oc,)`` float32, or None for zeros.
            spec: Strides, dilations, pads, groups, clamp.
            block: None for the dense kernel; 1, 2, 4, 8 or 16 for one that stores and
                multiplies only blocks of so many output channels (of one group) in
                which any weight is not zero. A depthwise layer (one input and one
                output channel a group) has one kernel, whatever the block.
            tiling: How a back-end may go about it.
                ``direct`` reads the pixels in their planes. ``panel`` first copies each
                panel of pixels, all columns one after the other, which saves cache
                misses in each of many output channels; ``narrow`` makes the panels half
                as wide, so that more of them stay in the first-level cache; ``chunk``
                cuts the columns into chunks whose pixels stay there. No bit of a result
                depends on which of these it is on the CPU; on a device they stand for
                wide and narrow tiles, and for columns that several share.
                ``winograd``, for dense 3x3 kernels of stride 1, multiplies sums of
                pixels by sums of weights: fewer times, for 16/9 of the bytes, and with
                other rounding (about 1e-6 of the norm). ``bitmap``, for zeros anywhere
                and planes of 16 bits, stores a bit a weight and what is not zero, and
                multiplies as if dense on tensor cores: a pixel that is infinite or NaN
                is met by zeros too. ``library`` is the dense product of the device's
                vendor, for 1x1 kernels; its order of summation is its own. A layer that
                a tiling cannot compute runs ``direct``.

        Raises:
            ShapeError: Shapes of weights, bias and groups do not fit, or no such block.
            DTypeError: Weights or bias are not float32.
        """
        ...


def check_weights(
    weights: HostArray, bias: HostArray | None, spec: ConvSpec, block: int | None
) -> None:
    """Check what ``prepare_conv`` is given.

    Raises:
        ShapeError: Shapes of weights, bias and groups do not fit, or no such block.
        DTypeError: Weights or bias are not float32.
    """
    for name, array in (("weights", weights), ("bias", bias)):
        if array is not None and array.dtype != np.float32:
            raise DTypeError(f"{name} must be float32, got {array.dtype}")
    if weights.ndim != 4 or 0 in weights.shape:
        raise ShapeError(
            f"weights must be (oc, ic/groups, kh, kw), got {weights.shape}"
        )
    if weights.shape[0] % spec.groups:
        raise ShapeError(
            f"{weights.shape[0]} output channels do not divide into "
            f"{spec.groups} groups"
        )
    if bias is not None and bias.shape != weights.shape[:1]:
        raise ShapeError(f"bias must be {weights.shape[:1]}, got {bias.shape}")
    if block is not None and block not in BLOCKS:
        raise ShapeError(f"block must be None or one of {BLOCKS}, got {block}")


def is_depthwise(weights: HostArray, spec: ConvSpec) -> bool:
    """Return whether every output channel sees one input channel of several."""
    return spec.groups > 1 and weights.shape[1] == 1


def kept_weights(weights: HostArray, groups: int, block: int | None) -> HostArray:
    """Return a mask, of the shape of *weights*, of those that are multiplied.

    All of them for block None; else runs of *block* output channels, counted from the
    first of each group, in which any weight is not zero.
    """
    if block is None:
        return np.ones(weights.shape, np.bool_)
    a_group = weights.shape[0] // groups
    kept: HostArray = (weights != 0).reshape(groups, a_group, *weights.shape[1:])
    for start in range(0, a_group, block):
        rows = kept[:, start : start + block]
        rows[...] = rows.any(axis=1, keepdims=True)
    return kept.reshape(weights.shape)


def check_bind(x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec) -> None:
    """Check that a convolution takes images of grid *x* to images of grid *y*.

    Raises:
        ShapeError: It gives another batch or size.
    """
    size = spec.output_size(x.h, x.w, kernel)
    if min(size) < 1:
        raise ShapeError(
            f"a kernel of {kernel[0]}x{kernel[1]} with {spec} is larger than the "
            f"padded image of {x.h}x{x.w}"
        )
    if (x.n, *size) != (y.n, y.h, y.w):
        raise ShapeError(
            f"{x.n} images of {x.h}x{x.w} give {x.n} of {size[0]}x{size[1]}, but the "
            f"output grid is for {y.n} of {y.h}x{y.w}"
        )


def check_buffer(
    name: str, buffer: AnyArray, floats: int, dtype: npt.DTypeLike = np.float32
) -> None:
    """Check a flat buffer.

    Raises:
        ShapeError: It is too short, not flat, or its floats do not lie side by side.
        DTypeError: It is of another type.
    """
    check_floats(name, buffer, dtype)
    if buffer.ndim != 1 or buffer.size < floats:
        raise ShapeError(
            f"{name} must be a flat buffer of {floats} floats, got {buffer.shape}"
        )


def check_floats(name: str, array: AnyArray, dtype: npt.DTypeLike = np.float32) -> None:
    """Check an array of any shape.

    Raises:
        ShapeError: Its floats do not lie side by side.
        DTypeError: It is of another type.
    """
    if array.dtype != dtype:
        raise DTypeError(f"{name} must be {np.dtype(dtype)}, got {array.dtype}")
    check_steady(name, array)


def check_buffers(
    grids: tuple[Grid, Grid],
    channels: tuple[int, int],
    floats: int,
    buffers: tuple[AnyArray, AnyArray, AnyArray | None, AnyArray],
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Check what ``BoundConv.attach`` is given.

    Args:
        grids: Of x and y.
        channels: Of x and y.
        floats: Of scratch.
        buffers: x, y, residual or None, and scratch.
        dtype: Of all of them.

    Raises:
        ShapeError: One is too short, not flat, or has gaps.
        DTypeError: One is of another type.
    """
    x, y, residual, scratch = buffers
    check_buffer("x", x, grids[0].size(channels[0]), dtype)
    check_buffer("y", y, grids[1].size(channels[1]), dtype)
    check_buffer("scratch", scratch, floats, dtype)
    if residual is not None:
        check_buffer("residual", residual, grids[1].size(channels[1]), dtype)


def check_steady(name: str, array: AnyArray) -> None:
    """Check that a kernel can read an array where it lies, again and again.

    Raises:
        ShapeError: There are gaps in it, or its elements are not aligned.
    """
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ShapeError(
            f"{name} must be aligned and in C order, got shape {array.shape} with "
            f"strides {array.strides}"
        )
