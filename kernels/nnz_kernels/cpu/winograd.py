"""Dense 3x3 convolutions of stride 1 by F(2x2, 3x3): 16 multiply-adds where 36 were.

Pixels are taken to sums, tile by tile (`_winograd`); sixteen products of these with
weights that were transformed once give the sums that the outputs are made of. A *strip*
of rows of tiles goes through all three stages before the next begins, so that what lies
between them stays in a cache. Source: Lavin and Gray, "Fast algorithms for
convolutional neural networks" (2016). Alone of all kernels it adds in another order, so
results differ from the others' by rounding, and an infinite pixel gives NaN in a few
pixels around those where it would give infinity.

All of the jitted code is in this file: numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from nnz_kernels.api.conv import BoundConv, ConvSpec, Tiling, check_bind, check_buffer
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import address, forward
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._math import EXACT, NO_ACTIVATION, _activate, activation_kind
from nnz_kernels.cpu._micro import ROW, ROWS, group
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu._winograd import PLACES, tiles_in, tiles_out
from nnz_kernels.cpu.pack import Packed, pack
from nnz_kernels.cpu.stage import border_holds_padding
from nnz_kernels.planes import LINE, Grid, round_up

_NOTHING = np.empty(0, np.float32)

#: The matrix that takes the rows of a 3 x 3 kernel to those of a tile.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

#: Lanes of a vector for rows of fewer tiles than a register has.
_FEW = min(LANES, 8)
_WIDEST = WIDTHS[TALLEST]

#: Input channels, output channels and pixels from which on it can pay.
LEAST_CHANNELS, LEAST_PIXELS = 8, 36

#: Floats between products, so that the sixteen do not meet in the same sets of a cache.
APART = 4 * LINE

#: Tiles that a strip should have at least: full panels, and weights read seldom.
_STRIP = 48

#: Columns of the table of the two grids: of each floats from channel to channel, to the
#: first pixel (for x: to its first tap), from image to image, from row to row; rows of
#: x that may be read, counted from the first tap; then rows and pixels of a row of y,
#: and images; input channels; rows of tiles of an image, tiles of a row, rows of a
#: strip; floats from one input or sum of a product to the next, and from one product to
#: the next in inputs and in sums; runs of a product; and whether rows of pixels are
#: stored in place.
(
    X_LD, X_AT, X_IMAGE, X_PITCH, X_ROWS, Y_LD, Y_AT, Y_IMAGE, Y_PITCH, HEIGHT, WIDTH,
    IMAGES, INPUTS, DOWN, ACROSS, STRIP, LD, IN_STEP, OUT_STEP, RUNS, IN_PLACE,
) = range(21)  # fmt: skip


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
        in_place = y.w % 2 == 0 and across >= _FEW
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
        check_buffer("x", x, self.x.size(inputs))
        check_buffer("y", y, self.y.size(outputs))
        check_buffer("scratch", scratch, self.scratch)
        if residual is not None:
            check_buffer("residual", residual, self.y.size(outputs))
        added = _NOTHING if residual is None else readable(residual)
        table = self.table
        if residual is not None and np.may_share_memory(added, y):
            # The last vector of a row goes over some pixels twice: what is added must
            # still be there.
            table = table.copy()
            table[IN_PLACE] &= table[ACROSS] % _FEW == 0
        packed, spec = self.conv.packed, self.conv.spec
        copied = scratch[: self._copied]
        source = copied if copied.size else readable(x)
        arguments = (
            self.shares, table, packed.runs, packed.columns, self._offsets(),
            packed.weights, packed.bias, self.conv.bias, source, y, added,
            self._masks(), scratch[self._copied :], self._share,
            np.float32(spec.clamp[0]), np.float32(spec.clamp[1]),
            activation_kind(spec.activation),
        )  # fmt: skip
        behind = y[outputs * self.y.ld :]

        def run() -> None:
            if copied.size:
                copied.fill(0)
                self.source.view(copied, inputs)[...] = self.x.view(x, inputs)
            if len(self.shares) == 1:
                _winograd(0, *arguments)
            else:
                _winograd_threads(*arguments)
            behind.fill(0)

        return run

    def _offsets(self) -> HostArray:
        """Return where each input of each product lies."""
        columns = np.arange(PLACES * self.conv.shape[1])
        place, channel = np.divmod(columns, self.conv.shape[1])
        offsets = place * int(self.table[IN_STEP]) + channel * int(self.table[LD])
        return np.asarray(offsets, np.int32)

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


@numba.njit(**EXACT)
def _finish(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation, under flags of its own."""
    _activate(kind, y, start, stop)


@numba.njit(**SERIAL)
def _inputs(table, first, last, x, out):  # type: ignore[no-untyped-def]
    """Take the pixels of rows first..last-1 of tiles to the inputs of products."""
    across, pitch, end = table[ACROSS], table[X_PITCH], table[X_ROWS] - 1
    for channel in range(table[INPUTS]):
        start = table[X_AT] + channel * table[X_LD]
        for tile_row in range(first, last):
            image, row = divmod(tile_row, table[DOWN])
            at = forward(address(x), start + image * table[X_IMAGE])
            # The last row of an odd image's last tiles is read for no pixel.
            pointers = (
                forward(at, 2 * row * pitch),
                forward(at, (2 * row + 1) * pitch),
                forward(at, (2 * row + 2) * pitch),
                forward(at, min(2 * row + 3, end) * pitch),
                forward(out, channel * table[LD] + (tile_row - first) * across),
            )
            if across >= LANES:
                tiles_in(LANES, (across, table[IN_STEP]), pointers)
            else:
                tiles_in(_FEW, (across, table[IN_STEP]), pointers)


@numba.njit(**SERIAL)
def _products(  # type: ignore[no-untyped-def]
    table, tiles, first, last, runs, columns, offsets, weights, zeros, masks, x, y,
):  # fmt: skip
    """Compute runs first..last-1 of each of the sixteen products."""
    vectors = -(-tiles // LANES)
    count = -(-vectors // _WIDEST)
    narrow, wide = divmod(vectors, count)
    clamp = (np.float32(-np.inf), np.float32(np.inf))
    for place in range(PLACES):
        start, stop = place * table[RUNS] + first, place * table[RUNS] + last
        at = np.int64(0)
        for width, panels in ((narrow + 1, wide), (narrow, count - wide)):
            if panels > 0:
                sums = forward(y, place * APART + at)
                numbers = (start, stop, panels, width * LANES, table[LD], np.int64(0))
                pointers = (
                    address(runs), address(columns), address(offsets),
                    address(weights), address(zeros), forward(x, at), sums, sums,
                    address(masks),
                )  # fmt: skip
                group(TALLEST, 0, width, clamp, numbers, pointers)
                at += panels * width * LANES


@numba.njit(**SERIAL)
def _outputs(  # type: ignore[no-untyped-def]
    table, first, last, top, bottom, bias, sums, line, y, residual, lo, hi, activation,
):  # fmt: skip
    """Make rows first..last-1 of tiles of channels top..bottom-1, and their borders."""
    across, pitch, width = table[ACROSS], table[Y_PITCH], table[WIDTH]
    added = np.int64(residual.size > 0)
    for channel in range(top, bottom):
        plane = channel * table[Y_LD]
        clamp = (bias[channel], lo, hi)
        for tile_row in range(first, last):
            image, row = divmod(tile_row, table[DOWN])
            picture = plane + table[Y_AT] + image * table[Y_IMAGE]
            at = picture + 2 * row * pitch
            rows = min(2, table[HEIGHT] - 2 * row)
            places = (
                at if table[IN_PLACE] else np.int64(-1),
                at + pitch if table[IN_PLACE] and rows == 2 else np.int64(-1),
            )
            lines = forward(line, 0), forward(line, 2 * (across + LANES))
            numbers = (across, table[OUT_STEP], pitch * (rows - 1), added)
            pointers = (
                forward(sums, channel * table[LD] + (tile_row - first) * across),
                lines[0] if places[0] < 0 else forward(address(y), places[0]),
                lines[1] if places[1] < 0 else forward(address(y), places[1]),
                forward(address(residual), at),
            )
            if across >= LANES:
                tiles_out(LANES, clamp, numbers, pointers)
            else:
                tiles_out(_FEW, clamp, numbers, pointers)
            if tile_row == 0:
                y[plane : plane + table[Y_AT]] = np.float32(0)
            for r in range(rows):
                start = at + r * pitch
                if not table[IN_PLACE]:
                    for p in range(width):
                        y[start + p] = lines[r][p]
                if activation != NO_ACTIVATION:
                    _finish(activation, y, start, start + width)
                stop = start + pitch
                if 2 * row + r == table[HEIGHT] - 1:
                    stop = picture + table[Y_IMAGE]
                    if image == table[IMAGES] - 1:
                        stop = plane + table[Y_LD]
                y[start + width : stop] = np.float32(0)


@numba.njit(**SERIAL)
def _winograd(  # type: ignore[no-untyped-def]
    thread, shares, table, runs, columns, offsets, weights, zeros, bias, x, y, residual,
    masks, scratch, share, lo, hi, activation,
):  # fmt: skip
    """Take the strips and the runs of one thread through the three stages."""
    first_run, last_run = shares[thread, 2], shares[thread, 3]
    top = np.int64(runs[first_run, ROW])
    bottom = np.int64(runs[last_run - 1, ROW]) + np.int64(runs[last_run - 1, ROWS])
    inputs = forward(address(scratch), thread * share)
    sums = forward(inputs, PLACES * table[IN_STEP])
    line = forward(sums, PLACES * table[OUT_STEP])
    total = table[DOWN] * table[IMAGES]
    for strip in range(shares[thread, 0], shares[thread, 1]):
        first = strip * table[STRIP]
        last = min(total, first + table[STRIP])
        _inputs(table, first, last, x, inputs)
        _products(
            table, (last - first) * table[ACROSS], first_run, last_run, runs, columns,
            offsets, weights, zeros, masks, inputs, sums,
        )  # fmt: skip
        _outputs(
            table, first, last, top, bottom, bias, sums, line, y, residual, lo, hi,
            activation,
        )  # fmt: skip


@numba.njit(**PARALLEL)
def _winograd_threads(  # type: ignore[no-untyped-def]
    shares, table, runs, columns, offsets, weights, zeros, bias, x, y, residual, masks,
    scratch, share, lo, hi, activation,
):  # fmt: skip
    """Give each thread its share."""
    for thread in numba.prange(shares.shape[0]):
        _winograd(
            thread, shares, table, runs, columns, offsets, weights, zeros, bias, x, y,
            residual, masks, scratch, share, lo, hi, activation,
        )  # fmt: skip


_F, _I, _V = types.float32[::1], types.int64, types.float32
_L, _M = types.int64[::1], types.int64[:, ::1]
_ALL = (
    _M, _L, types.int32[:, ::1], types.uint16[::1], types.int32[::1], _F, _F, _F, _F,
    _F, _F, types.int32[::1], _F, _I, _V, _V, _I,
)  # fmt: skip

ENTRIES = (
    Entry(_winograd, ((_I, *_ALL),)),
    Entry(_winograd_threads, (_ALL,)),
)
