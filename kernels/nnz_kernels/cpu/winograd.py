"""Dense 3x3 convolutions of stride 1 by F(2x2, 3x3): 16 multiply-adds where 36 were.

Pixels are taken to sums, tile by tile (`_winograd`); sixteen products of these with
weights that were transformed once give the sums that the outputs are made of; `strips`
has these three stages. Source: Lavin and Gray, "Fast algorithms for convolutional
neural networks" (2016). Alone of all kernels it adds in another order, so results
differ from the others' by rounding, and an infinite pixel gives NaN in a few pixels
around those where it would give infinity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import BoundConv, ConvSpec, Tiling, check_bind, check_buffers
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._math import activation_kind
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu._simd import LANES
from nnz_kernels.cpu._winograd import PLACES
from nnz_kernels.cpu.pack import Packed, pack
from nnz_kernels.cpu.stage import border_holds_padding
from nnz_kernels.cpu.strips import (
    ACROSS,
    APART,
    IN_PLACE,
    IN_STEP,
    LD,
    OUT_STEP,
    SHORT,
    WINOGRAD,
    _winograd_call,
)
from nnz_kernels.cpu.together import together
from nnz_kernels.planes import LINE, Grid, round_up

_NOTHING = np.empty(0, np.float32)

#: The matrix that takes the rows of a 3 x 3 kernel to those of a tile.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

#: Input channels, output channels and pixels from which on it can pay.
LEAST_CHANNELS, LEAST_PIXELS = 8, 36

#: Tiles that a strip should have at least: full panels, and weights read seldom.
_STRIP = 48


@dataclass(frozen=True, slots=True)
class Winograd:
    """The sixteen arrays of transformed weights of one layer."""

    packed: Packed
    bias: HostArray
    spec: ConvSpec
    shape: tuple[int, ...]
    kernel: str = "dense_winograd"
    block: int | None = None
    density: float = 1.0

    @property
    def nnz(self) -> int:
        """Weights of the layer; there are 16 products for every 9 of them."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes held for transformed weights and bias."""
        return self.packed.nbytes + self.bias.nbytes

    def retiled(self, tiling: Tiling, /) -> Winograd | None:
        """Return itself; other tilings need the weights as they were."""
        return self if tiling == "winograd" else None

    def bind(self, x: Grid, y: Grid, /, *, threads: int = 1) -> BoundWinograd:
        """Work out strips; an input without its padding is copied first."""
        check_bind(x, y, (3, 3), self.spec)
        source = x
        if not border_holds_padding(x, y, (3, 3), self.spec):
            rows, columns = max(self.spec.pads[::2]), max(self.spec.pads[1::2])
            source = Grid(x.n, x.h, x.w, rows, columns)
        threads = thread_count(threads, self.nnz * y.pixels)
        rows, across = -(-y.h // 2) * y.n, -(-y.w // 2)
        runs = len(self.packed.runs) // PLACES
        strip, shares = _shares(rows, across, runs, threads)
        table = self._table(source, y, strip)
        return BoundWinograd(self, x, y, source, table, shares)

    def _table(self, x: Grid, y: Grid, strip: int) -> HostArray:
        top, left = self.spec.pads[:2]
        outputs, inputs = self.shape[:2]
        down, across = -(-y.h // 2), -(-y.w // 2)
        # One more vector than the tiles fill: a short row is stored as a whole vector.
        ld = (-(-(strip * across + LANES) // LINE) | 1) * LINE
        in_place = y.w % 2 == 0 and across >= SHORT
        return np.array(
            [
                x.ld, x.lead - top * x.pitch - left, x.rows * x.pitch, x.pitch,
                x.h + x.bh + top, y.ld, y.lead, y.rows * y.pitch, y.pitch, y.h, y.w,
                y.n, inputs, down, across, strip, ld, inputs * ld + APART,
                outputs * ld + APART, len(self.packed.runs) // PLACES, in_place,
            ],
            np.int64,
        )  # fmt: skip


def _shares(rows: int, across: int, runs: int, threads: int) -> tuple[int, HostArray]:
    """Return the rows of a strip, and (strips from, to, runs from, to) of each thread.

    Where there are too few strips for all threads these share the output channels, and
    each transforms all pixels for itself.
    """
    strips = max(1, rows * across // _STRIP)
    if strips >= threads:
        strips = min(rows, round_up(strips, threads))
    strip = -(-rows // strips)
    strips = -(-rows // strip)
    if strips >= threads:
        edges = [strips * thread // threads for thread in range(threads + 1)]
        shares = [(a, b, 0, runs) for a, b in itertools.pairwise(edges)]
    else:
        threads = min(threads, runs)
        edges = [runs * thread // threads for thread in range(threads + 1)]
        shares = [(0, strips, a, b) for a, b in itertools.pairwise(edges)]
    return strip, np.array(shares, np.int64)


@dataclass(frozen=True, slots=True)
class BoundWinograd(BoundConv[HostArray]):
    """A convolution of two grids; ``source`` is the grid that is read."""

    conv: Winograd
    x: Grid
    y: Grid
    source: Grid
    table: HostArray
    shares: HostArray

    @property
    def scratch(self) -> int:
        """Floats of scratch: the padded input, if need be, then a share a thread."""
        return self._copied + len(self.shares) * self._share

    @property
    def _copied(self) -> int:
        if self.source == self.x:
            return 0
        return round_up(self.source.size(self.conv.shape[1]), LINE)

    @property
    def _share(self) -> int:
        """Inputs and sums of the products, then two rows of pixels."""
        steps = int(self.table[IN_STEP] + self.table[OUT_STEP])
        line = 2 * (int(self.table[ACROSS]) + LANES)
        return round_up(PLACES * steps + 2 * line, LINE)

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Return a call that computes all strips."""
        outputs, inputs = self.conv.shape[:2]
        buffers = (x, y, residual, scratch)
        check_buffers((self.x, self.y), (inputs, outputs), self.scratch, buffers)
        added = _NOTHING if residual is None else readable(residual)
        table = self.table
        if residual is not None and np.may_share_memory(added, y):
            # The last vector of a row goes over some pixels twice: what is added must
            # still be there.
            table = table.copy()
            lanes = LANES if table[ACROSS] >= LANES else SHORT
            table[IN_PLACE] &= table[ACROSS] % lanes == 0
        packed, spec = self.conv.packed, self.conv.spec
        copied = scratch[: self._copied]
        source = copied if copied.size else readable(x)
        arguments = (
            self.shares, table, packed.runs, packed.columns,
            packed.weights, packed.bias, self.conv.bias, source, y, added,
            self._masks(), scratch[self._copied :], self._share,
            np.float32(spec.clamp[0]), np.float32(spec.clamp[1]),
            activation_kind(spec.activation),
        )  # fmt: skip
        behind = y[outputs * self.y.ld :]

        parts = [
            (_NOTHING if thread else behind, thread, *arguments)
            for thread in range(len(self.shares))
        ]
        compute = together(_winograd_call, WINOGRAD, parts)
        if not copied.size:
            return compute

        def run() -> None:
            copied.fill(0)
            self.source.view(copied, inputs)[...] = self.x.view(x, inputs)
            compute()

        return run

    def _masks(self) -> HostArray:
        return np.full(int(self.table[LD]), -1, np.int32)


def is_winograd(shape: tuple[int, ...], spec: ConvSpec, block: int | None) -> bool:
    """Return whether the transformed product can compute a layer."""
    return (
        block is None
        and shape[2:] == (3, 3)
        and min(shape[:2]) >= LEAST_CHANNELS
        and (spec.groups, spec.strides, spec.dilations) == (1, (1, 1), (1, 1))
    )


def prepare_winograd(
    weights: HostArray, bias: HostArray | None, spec: ConvSpec
) -> Winograd:
    """Transform and pack weights ``(oc, ic, 3, 3)``."""
    taps = _KERNEL @ weights.astype(np.float64) @ _KERNEL.T
    outputs, inputs = weights.shape[:2]
    places = taps.transpose(2, 3, 0, 1).reshape(PLACES * outputs, inputs, 1, 1)
    packed = pack(places.astype(np.float32), None, ConvSpec(groups=PLACES), None)
    biases = np.zeros(outputs, np.float32) if bias is None else readable(bias)
    return Winograd(packed, biases, spec, weights.shape)
