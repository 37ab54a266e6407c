"""Pooling of planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid

Array_contra = TypeVar("Array_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pooling window.

    Attributes:
        kernel: Rows and columns of the window.
        strides: Steps of the window, rows then columns.
        pads: Padding around the image: top, left, bottom, right. The size of the result
            is that of the output grid, so that rounding up ("ceil mode") needs nothing
            more: what lies beyond the padding never counts.
        dilations: Distance of the window's taps, rows then columns.
        count_include_pad: Whether an average divides by padded places too.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    count_include_pad: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no window has."""
        if min(*self.kernel, *self.strides, *self.dilations) < 1 or min(self.pads) < 0:
            raise ShapeError(
                f"kernel, strides and dilations must be >= 1 and pads >= 0, got {self}"
            )


def check_pool(x: Grid, y: Grid, spec: PoolSpec) -> None:
    """Check that every window of ``y`` holds a place of the padded image.

    Raises:
        ShapeError: The batches differ, or the output grid is too large.
    """
    if x.n != y.n:
        raise ShapeError(f"pooling keeps the batch: input {x.n}, output {y.n}")
    last_row = (y.h - 1) * spec.strides[0] - spec.pads[0]
    last_column = (y.w - 1) * spec.strides[1] - spec.pads[1]
    if last_row >= x.h + spec.pads[2] or last_column >= x.w + spec.pads[3]:
        raise ShapeError(
            f"an output of {y.h}x{y.w} does not fit an input of {x.h}x{x.w} with {spec}"
        )


def check_global_pool(x: Grid, y: Grid) -> None:
    """Check that *y* has one pixel for each image of *x*.

    Raises:
        ShapeError: It has more or fewer.
    """
    if y.pixels != x.n:
        raise ShapeError(
            f"{x.n} images give {x.n} pixels, but the output has {y.pixels}"
        )


class PoolOps(Protocol[Array_contra]):
    """Pooling; every op writes all of ``y``, zeros where there is no pixel."""

    def max_pool(
        self,
        x: Array_contra,
        xg: Grid,
        y: Array_contra,
        yg: Grid,
        channels: int,
        spec: PoolSpec,
        /,
        *,
        threads: int,
    ) -> None:
        """Write the largest value of each window; NaN if it holds one.

        A window that holds only padding gives minus infinity.

        Raises:
            ShapeError: A buffer is too short or the output grid too large.
        """
        ...

    def average_pool(
        self,
        x: Array_contra,
        xg: Grid,
        y: Array_contra,
        yg: Grid,
        channels: int,
        spec: PoolSpec,
        /,
        *,
        threads: int,
    ) -> None:
        """Write the mean of each window.

        It divides by the number of pixels in the window, or of pixels and padding under
        ``count_include_pad``; a window without any gives NaN.

        Raises:
            ShapeError: A buffer is too short or the output grid too large.
        """
        ...

    def global_average_pool(
        self,
        x: Array_contra,
        xg: Grid,
        y: Array_contra,
        yg: Grid,
        channels: int,
        /,
        *,
        threads: int,
    ) -> None:
        """Write the mean of each image: ``yg`` has ``xg.n`` pixels in all.

        ``yg`` may be a token grid (``w = n``) or a grid of 1x1 images.

        Raises:
            ShapeError: A buffer is too short or ``yg`` has another number of pixels.
        """
        ...
