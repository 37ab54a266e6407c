"""Where a convolution reads its input: in place, or from planes staged in scratch.

In place, a tap at rows dy and columns dx away is ``dy * pitch + dx`` floats away. That
needs stride 1, equal pitch and a border that holds the padding. Otherwise the input is
copied into planes that have the output's pitch: for stride s the s x s *phases* (every
s-th row and column), so that each tap is again a constant distance; and where the
output's border is too narrow for that, one copy for each row or column of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.api.conv import ConvSpec
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader
from nnz_kernels.cpu._runtime import SERIAL
from nnz_kernels.cpu._simd import LANES
from nnz_kernels.cpu.together import shares, together
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import LINE, Grid, round_up

_INT32_MAX = 2**31 - 1


#: Floats of a narrower vector, for rows that are shorter than a register.
_FEW = 4


def _type_even(
    typingctx: Any, lanes: Any, x: Any, start: Any, out: Any, to: Any
) -> tuple[Any, Any]:
    """Type a call of ``_even``; the writer of its code comes with the types."""
    return types.void(lanes, x, start, out, to), _write_even


def _write_even(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Write two loads, one shuffle and one store."""
    lanes = sig.args[0].literal_value
    vector = ir.VectorType(ir.FloatType(), lanes)

    def place(array: int, shift: int) -> Any:
        kind = context.make_array(sig.args[array])
        data = kind(context, builder, args[array]).data
        at = builder.add(args[array + 1], ir.IntType(64)(shift))
        return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

    low, high = (builder.load(place(1, shift), align=4) for shift in (0, lanes))
    every_second = ir.Constant(
        ir.VectorType(ir.IntType(32), lanes), list(range(0, 2 * lanes, 2))
    )
    even = builder.shuffle_vector(low, high, every_second)
    builder.store(even, place(3, 0), align=4)
    return context.get_dummy_value()


#: ``_even(lanes, x, start, out, to)`` copies ``lanes`` (literal) floats, every second
#: one from ``start``. It reads one float
#: more than it needs; ``Grid.size`` leaves room behind the last pixel.
_even: Any = intrinsic(prefer_literal=True)(_type_even)


@dataclass(frozen=True, slots=True)
class Source:
    """Planes that a product reads.

    Attributes:
        start: Float at which the first pixel of the output finds its tap of offset 0.
        channel: Floats from one input channel to the next.
        taps: Offset of every tap, ``(kh, kw)``.
        stage: The copy to make first, or None.
    """

    start: int
    channel: int
    taps: HostArray
    stage: Stage | None

    def offsets(self, columns: HostArray) -> HostArray:
        """Return the int32 offsets of columns, numbered ``(channel, ky, kx)``.

        Raises:
            ShapeError: The planes are longer than int32 offsets reach.
        """
        channel, tap = np.divmod(columns, self.taps.size)
        offsets = channel * self.channel + self.taps.reshape(-1)[tap]
        if offsets.size and offsets.max() > _INT32_MAX:
            raise ShapeError(
                f"planes of {self.channel} floats are too many for one product; run "
                "smaller batches"
            )
        return offsets.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Stage:
    """A copy of the input into planes of another pitch.

    Attributes:
        table: What the kernel needs, see ``_stage``.
        origins: Row and column of the input that each staged plane starts at.
        floats: Scratch needed.
        channels: Input channels.
    """

    table: HostArray
    origins: HostArray
    floats: int
    channels: int

    def attach(
        self, x: HostArray, scratch: HostArray, threads: int
    ) -> Callable[[], None]:
        """Return a call that copies."""
        arguments = (x, scratch, self.table, self.origins)
        chunks = min(threads, self.channels)
        parts = [(*arguments, *share) for share in shares(self.channels, chunks)]
        return together(_stage_call, _STAGE, parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the staged planes: their origins, and where each tap finds them."""

    origins: tuple[int, ...]
    plane: tuple[int, ...]
    shift: tuple[int, ...]
    length: int


def find_source(
    x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec, channels: int
) -> Source:
    """Choose between reading in place and staging."""
    if reads_in_place(x, y, kernel, spec):
        top, left = spec.pads[:2]
        rows = np.arange(kernel[0])[:, None] * spec.dilations[0] - top
        columns = np.arange(kernel[1])[None, :] * spec.dilations[1] - left
        return Source(x.lead, x.ld, rows * x.pitch + columns, None)
    return _staged(x, y, kernel, spec, channels)


def reads_in_place(x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec) -> bool:
    """Return whether every tap of every output pixel is a constant distance away."""
    if spec.strides != (1, 1) or x.pitch != y.pitch or (x.n > 1 and x.rows != y.rows):
        return False
    return border_holds_padding(x, y, kernel, spec)


def border_holds_padding(
    x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec
) -> bool:
    """Return whether the zeros around an image are all that its taps read there."""
    (top, left), (sh, sw), (dh, dw) = spec.pads[:2], spec.strides, spec.dilations
    bottom = (y.h - 1) * sh + (kernel[0] - 1) * dh - top - (x.h - 1)
    right = (y.w - 1) * sw + (kernel[1] - 1) * dw - left - (x.w - 1)
    return max(top, bottom) <= x.bh and max(left, right) <= x.bw


def _staged(
    x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec, channels: int
) -> Source:
    unlimited = x.h + kernel[0] * spec.dilations[0] + sum(spec.pads)
    axis_rows = _axis(y.h, kernel[0], spec, 0, unlimited if x.n == 1 else y.rows)
    axis_columns = _axis(y.w, kernel[1], spec, 1, y.pitch)
    origins = [(r, c) for r in axis_rows.origins for c in axis_columns.origins]
    used = ((x.n - 1) * y.rows + axis_rows.length) * y.pitch
    ld = (round_up(used, LINE) // LINE | 1) * LINE
    taps = np.empty(kernel, np.int64)
    for ky, kx in np.ndindex(*kernel):
        plane = axis_rows.plane[ky] * len(axis_columns.origins) + axis_columns.plane[kx]
        shift = axis_rows.shift[ky] * y.pitch + axis_columns.shift[kx]
        taps[ky, kx] = plane * ld + shift
    # Where the border holds the padding it is copied too; what lies further out is then
    # read by no pixel. Elsewhere only pixels are copied, and zeros written around them.
    held = border_holds_padding(x, y, kernel, spec)
    margins = (x.bh, x.bw) if held else (0, 0)
    table = np.array(
        [
            x.ld, x.lead, x.rows, x.pitch, x.n, x.h, x.w, *spec.strides,
            axis_rows.length, axis_columns.length, ld, y.rows, y.pitch,
            *margins, held,
        ],
        np.int64,
    )  # fmt: skip
    # A panel may read past the last plane: by the largest shift and one round-up.
    floats = channels * len(origins) * ld + round_up(y.span + int(taps.max()), LINE)
    stage = Stage(table, np.array(origins, np.int64), floats, channels)
    return Source(0, len(origins) * ld, taps, stage)


def _axis(size: int, taps: int, spec: ConvSpec, axis: int, room: int) -> _Axis:
    """Lay one axis of the staged planes out in *room* places."""
    stride, pad = spec.strides[axis], spec.pads[axis]
    starts = [tap * spec.dilations[axis] - pad for tap in range(taps)]
    shifts = [start // stride for start in starts]
    least = min(shifts)
    length = size + max(shifts) - least
    if length > room:
        return _Axis(tuple(starts), tuple(range(taps)), (0,) * taps, size)
    phases = sorted({start % stride for start in starts})
    return _Axis(
        tuple(phase + least * stride for phase in phases),
        tuple(phases.index(start % stride) for start in starts),
        tuple(shift - least for shift in shifts),
        length,
    )


@numba.njit(**SERIAL)
def _stage(x, out, table, origins, first, last):  # type: ignore[no-untyped-def]
    """Copy channels first..last-1 into their planes.

    Places are unsigned, which saves the check for negative ones.
    """
    x_ld, x_lead, x_rows, x_pitch, images, height, width = (
        table[0], table[1], table[2], table[3], table[4], table[5], table[6],
    )  # fmt: skip
    down, right, rows, columns = table[7], table[8], table[9], table[10]
    ld, out_rows, out_pitch = table[11], table[12], table[13]
    above, beside, held = table[14], table[15], table[16]
    planes = origins.shape[0]
    for c in range(first, last):
        for plane in range(planes):
            top, left = origins[plane, 0], origins[plane, 1]
            begin = min(columns, max(0, -((left + beside) // right)))
            end = max(begin, min(columns, -((left - width - beside) // right)))
            for image in range(images):
                for r in range(rows):
                    to = (c * planes + plane) * ld + (image * out_rows + r) * out_pitch
                    row = top + r * down
                    outside = row < -above or row >= height + above
                    if not held:
                        stop = columns if outside else begin
                        for q in range(to, to + stop):
                            out[np.uint64(q)] = np.float32(0)
                        for q in range(to + end, to + columns):
                            out[np.uint64(q)] = np.float32(0)
                    if outside:
                        continue
                    start = c * x_ld + x_lead + (image * x_rows + row) * x_pitch + left
                    if right == 2 and end - begin >= LANES:
                        last_q = end - LANES
                        for q in range(begin, last_q, LANES):
                            _even(LANES, x, start + 2 * q, out, to + q)
                        _even(LANES, x, start + 2 * last_q, out, to + last_q)
                    elif right == 2 and end - begin >= _FEW:
                        last_q = end - _FEW
                        for q in range(begin, last_q, _FEW):
                            _even(_FEW, x, start + 2 * q, out, to + q)
                        _even(_FEW, x, start + 2 * last_q, out, to + last_q)
                    else:
                        for q in range(begin, end):
                            at = np.uint64(start + q * right)
                            out[np.uint64(to + q)] = x[at]


_F, _I = types.float32[::1], types.int64
_TABLES = (types.int64[::1], types.int64[:, ::1])
_STAGE = (_F, _F, *_TABLES, _I, _I)

_read = reader(_STAGE)


@numba.njit(**SERIAL)
def _stage_call(frame):  # type: ignore[no-untyped-def]
    """Copy as a frame says."""
    _stage(*_read(frame))


ENTRIES = (Entry(_stage_call, ((_I,),)),)
