"""Channel-major planes: where each pixel of a network tensor lies in a flat buffer.

A tensor ``[n, c, h, w]`` is held as one row of ``ld`` floats a channel, all images of
a batch one after the other in it, each with a zero border that neighbours share::

    | lead | image 0: rows of w pixels, bw zeros after each | bh zero rows | image 1 ...

Two tensors of equal ``pitch`` then differ by a constant for every tap of a
convolution, so that any stride-1 convolution is one flat product with one table of
offsets. Every producer leaves all floats that are not pixels zero, because shifted
taps read them as padding. Tokens (features x tokens) are a grid of one row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import ShapeError

#: Floats in one 64-byte cache line: starts of rows and of spans are multiples of it.
LINE = 16

#: Cache lines of a channel up to which it is used whole, whatever panel is read.
_SHORT = 4


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Grid:
    """Places of the pixels of ``n`` images of ``h`` x ``w`` in one channel's row.

    What follows from the sizes is worked out once: kernels ask for it at each call.

    Attributes:
        n: Images in the batch.
        h: Rows of pixels.
        w: Pixels in a row.
        bh: Zero rows above the first and below every image.
        bw: Zero columns left and right; the right one of a row is the left of the next.
        pitch: Floats from one row of pixels to the next.
        rows: Rows from one image to the next.
        lead: Zeros before the first pixel: what a tap above and left of it reads.
        span: Floats of the flat domain that a product covers, starting at ``lead``.
        ld: Floats from one channel to the next. The zeros behind a channel's last row
            are the lead of the next channel. Where it is long, it is an odd multiple of
            a cache line, so that the planes of a tensor spread over all sets of the
            first-level cache instead of competing for one.
    """

    n: int
    h: int
    w: int
    bh: int = 0
    bw: int = 0
    pitch: int = field(init=False, repr=False, compare=False)
    rows: int = field(init=False, repr=False, compare=False)
    lead: int = field(init=False, repr=False, compare=False)
    span: int = field(init=False, repr=False, compare=False)
    ld: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse sizes that no tensor has, and work out the places."""
        if min(self.n, self.h, self.w) < 1 or min(self.bh, self.bw) < 0:
            raise ShapeError(
                f"a grid needs n, h, w >= 1 and borders >= 0, got n={self.n}, "
                f"h={self.h}, w={self.w}, bh={self.bh}, bw={self.bw}"
            )
        pitch, rows = self.w + self.bw, self.h + self.bh
        lead = round_up(self.bh * pitch + self.bw, LINE)
        span = round_up(self.n * rows * pitch, LINE)
        lines = (lead + span) // LINE
        ld = (lines if lines <= _SHORT else lines | 1) * LINE
        names = ("pitch", "rows", "lead", "span", "ld")
        for name, value in zip(names, (pitch, rows, lead, span, ld), strict=True):
            object.__setattr__(self, name, value)

    @property
    def pixels(self) -> int:
        """Valid pixels of one channel."""
        return self.n * self.h * self.w

    def offset(self, n: int, y: int, x: int) -> int:
        """Return the place of a pixel in its channel's row."""
        return self.lead + (n * self.rows + y) * self.pitch + x

    def size(self, channels: int) -> int:
        """Return the floats of a buffer of ``channels`` planes."""
        return channels * self.ld + self.lead + LINE

    def view(self, buffer: HostArray, channels: int) -> HostArray:
        """Return the valid pixels of a flat buffer as a view ``[c, n, h, w]``.

        Raises:
            ShapeError: The buffer is shorter than ``size(channels)`` or not flat.
        """
        if buffer.ndim != 1 or buffer.size < self.size(channels):
            raise ShapeError(
                f"{channels} planes of {self} need a flat buffer of "
                f"{self.size(channels)} values, got shape {buffer.shape}"
            )
        strides = (self.ld, self.rows * self.pitch, self.pitch, 1)
        return np.lib.stride_tricks.as_strided(
            buffer[self.lead :],
            (channels, self.n, self.h, self.w),
            tuple(step * buffer.strides[0] for step in strides),
        )


def token_grid(tokens: int) -> Grid:
    """Return the grid of a features x tokens matrix: one row, no border."""
    return Grid(n=1, h=1, w=tokens)
