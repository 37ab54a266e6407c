"""Operations that move data and compute nothing, on plain row-major arrays.

Each function takes the node, the data and the *settings* that newer ONNX versions pass
as tensors (axes, pads, target shapes), which must be known when a plan is made. Those
in `VIEWS` return views of their input, so a plan can run them once and for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from nnz_service.engine.graph import Array, Node, Shape

Move = Callable[[Node, Sequence[Array | None]], list[Array]]


class SettingError(ValueError):
    """A setting of a node does not fit its input, or is missing."""


def need(inputs: Sequence[Array | None], index: int, what: str) -> Array:
    """Return input `index`, or say that it is missing.

    Raises:
        SettingError: The node has no such input.
    """
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise SettingError(f"input {index} ({what}) is missing")
    return found


def setting(inputs: Sequence[Array | None], index: int) -> list[int] | None:
    """An integer setting given as input `index`, None when it is left out."""
    found = inputs[index] if index < len(inputs) else None
    return None if found is None else [int(v) for v in np.ravel(found)]


def axis_in(axis: int, rank: int) -> int:
    """Count a negative axis from the end.

    Raises:
        SettingError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise SettingError(f"axis {axis} is outside of rank {rank}")
    return axis % rank


def axes_in(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Normalise a list of axes, each at most once."""
    found = tuple(axis_in(a, rank) for a in axes)
    if len(set(found)) != len(found):
        raise SettingError(f"axes {list(axes)} name one axis twice")
    return found


def target_shape(shape: Shape, wanted: Sequence[int], allow_zero: bool) -> Shape:
    """Resolve the 0 and -1 of a Reshape (ONNX Reshape, opsets 5 to 19)."""
    if len(wanted) > 32 or any(v < -1 for v in wanted):
        raise SettingError(f"{list(wanted)} is not a shape")
    out = []
    for i, v in enumerate(wanted):
        if v == 0 and not allow_zero:
            if i >= len(shape):
                raise SettingError(f"0 at place {i} copies an axis of {list(shape)}")
            out.append(shape[i])
        else:
            out.append(v)
    total = int(np.prod(shape, dtype=object))
    if out.count(-1) > 1:
        raise SettingError(f"{list(wanted)} has more than one -1")
    if -1 in out:
        rest = int(np.prod([v for v in out if v != -1], dtype=object))
        if rest == 0 or total % rest:
            raise SettingError(f"{list(shape)} cannot become {list(wanted)}")
        out[out.index(-1)] = total // rest
    if int(np.prod(out, dtype=object)) != total:
        raise SettingError(f"{list(shape)} cannot become {list(wanted)}")
    return tuple(out)


def _reshape(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    wanted = setting(inputs, 1)
    if wanted is None:
        raise SettingError("the target shape is missing")
    shape = target_shape(x.shape, wanted, bool(node.attrs.get("allowzero", 0)))
    return [x.reshape(shape)]


def _flatten(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    axis = int(node.attrs.get("axis", 1))
    if not -x.ndim <= axis <= x.ndim:
        raise SettingError(f"axis {axis} is outside of rank {x.ndim}")
    axis += x.ndim if axis < 0 else 0
    outer = int(np.prod(x.shape[:axis], dtype=object))
    inner = int(np.prod(x.shape[axis:], dtype=object))
    return [x.reshape(outer, inner)]


def _transpose(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    perm = node.attrs.get("perm")
    if perm is None:
        return [x.transpose()]
    if sorted(perm) != list(range(x.ndim)):
        raise SettingError(f"perm {list(perm)} does not permute rank {x.ndim}")
    return [x.transpose(perm)]


def _swap_last(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    if x.ndim < 2:
        raise SettingError(f"a matrix is needed, got rank {x.ndim}")
    return [x.swapaxes(-1, -2)]


def _squeeze(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    axes = setting(inputs, 1)
    found = (
        tuple(i for i, d in enumerate(x.shape) if d == 1)
        if not axes
        else axes_in(axes, x.ndim)
    )
    wrong = [i for i in found if x.shape[i] != 1]
    if wrong:
        raise SettingError(f"axes {wrong} of {list(x.shape)} are not 1")
    return [x.reshape([d for i, d in enumerate(x.shape) if i not in found])]


def _unsqueeze(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    axes = setting(inputs, 1)
    if axes is None:
        raise SettingError("the axes are missing")
    found = axes_in(axes, x.ndim + len(axes))
    rest = iter(x.shape)
    shape = [1 if i in found else next(rest) for i in range(x.ndim + len(axes))]
    return [x.reshape(shape)]


def _split(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    axis = axis_in(int(node.attrs.get("axis", 0)), x.ndim)
    sizes = setting(inputs, 1)
    parts = len(node.outputs)
    if sizes is None:
        each = -(-x.shape[axis] // parts)
        sizes = [each] * (parts - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    if len(sizes) != parts or min(sizes) < 0 or sum(sizes) != x.shape[axis]:
        raise SettingError(f"{sizes} does not split {x.shape[axis]} into {parts}")
    ends = list(itertools.accumulate(sizes))
    lead = (slice(None),) * axis
    return [
        x[(*lead, slice(end - size, end))]
        for end, size in zip(ends, sizes, strict=True)
    ]


def _slice(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    starts, ends = setting(inputs, 1), setting(inputs, 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise SettingError("starts and ends are missing or of unequal length")
    axes = axes_in(setting(inputs, 3) or range(len(starts)), x.ndim)
    steps = setting(inputs, 4) or [1] * len(starts)
    if not len(axes) == len(steps) == len(starts):
        raise SettingError("starts, ends, axes and steps are of unequal length")
    if 0 in steps:
        raise SettingError("a step is 0")
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cut[axis] = _bounds(start, end, step, x.shape[axis])
    return [x[tuple(cut)]]


def _bounds(start: int, end: int, step: int, size: int) -> slice:
    """Clamp as ONNX Slice does: unlike Python's, an end before the start is below 0."""
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    stop = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if stop < 0 else stop, step)


def _expand(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    wanted = setting(inputs, 1)
    if wanted is None:
        raise SettingError("the target shape is missing")
    return [np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(wanted)))]


def _identity(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    return [need(inputs, 0, "data")]


def _concat(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    parts = [need(inputs, i, "part") for i in range(len(inputs))]
    return [np.concatenate(parts, axis_in(node.attrs["axis"], parts[0].ndim))]


def _gather(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x, index = need(inputs, 0, "data"), need(inputs, 1, "indices")
    axis = axis_in(int(node.attrs.get("axis", 0)), x.ndim)
    check_indices(node, index, x.shape, axis)
    return [np.take(x, index, axis=axis)]


def check_indices(node: Node, index: Array, shape: Shape, axis: int) -> None:
    """Refuse indices that are outside of an axis.

    Raises:
        SettingError: One is.
    """
    size = shape[axis]
    if index.size and (index.min() < -size or index.max() >= size):
        raise SettingError(
            f"{node.label()}: indices {index.min()} to {index.max()} are outside of "
            f"axis {axis} of {list(shape)}"
        )


def _shape(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    start, end = node.attrs.get("start", 0), node.attrs.get("end", x.ndim)
    return [np.array(x.shape[start:end], dtype=np.int64)]


def _size(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    return [np.array(need(inputs, 0, "data").size, dtype=np.int64)]


def _constant_of_shape(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    shape = setting(inputs, 0)
    if shape is None or any(v < 0 for v in shape):
        raise SettingError(f"{shape} is not a shape")
    value = node.attrs.get("value", np.zeros(1, np.float32))
    return [np.broadcast_to(np.ravel(value)[0], shape)]


def _cast(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    return [need(inputs, 0, "data").astype(node.attrs["to"])]


def pad_widths(rank: int, inputs: Sequence[Array | None]) -> list[tuple[int, int]]:
    """Return (before, after) an axis from the pads and axes inputs of a Pad."""
    pads = setting(inputs, 1)
    axes = axes_in(setting(inputs, 3) or range(rank), rank)
    if pads is None or len(pads) != 2 * len(axes):
        raise SettingError(f"{2 * len(axes)} pads are needed, got {pads}")
    widths = [(0, 0)] * rank
    for axis, before, after in zip(
        axes, pads[: len(axes)], pads[len(axes) :], strict=True
    ):
        widths[axis] = (before, after)
    return widths


def _pad(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x = need(inputs, 0, "data")
    widths = pad_widths(x.ndim, inputs)
    # Negative pads crop, which numpy.pad does not do.
    cut = tuple(
        slice(max(-a, 0), d - max(-b, 0))
        for (a, b), d in zip(widths, x.shape, strict=True)
    )
    grow = [(max(a, 0), max(b, 0)) for a, b in widths]
    mode = node.attrs.get("mode", "constant")
    if mode != "constant":
        return [np.pad(x[cut], grow, mode=mode)]
    value = inputs[2] if len(inputs) > 2 else None
    fill = 0 if value is None else np.ravel(value)[0]
    # As numpy.pad would, without the 80 microseconds that its generality takes.
    kept = x[cut]
    shape = [a + d + b for (a, b), d in zip(grow, kept.shape, strict=True)]
    out = np.full(shape, fill, x.dtype)
    out[tuple(slice(a, a + d) for (a, _), d in zip(grow, kept.shape, strict=True))] = (
        kept
    )
    return [out]


def _depth_to_space(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x, b = need(inputs, 0, "data"), int(node.attrs["blocksize"])
    n, c, h, w = x.shape
    if node.attrs.get("mode", "DCR") == "DCR":
        split = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [split.reshape(n, c // (b * b), h * b, w * b)]


def _space_to_depth(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x, b = need(inputs, 0, "data"), int(node.attrs["blocksize"])
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return [split.reshape(n, c * b * b, h // b, w // b)]


def _tile(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    x, repeats = need(inputs, 0, "data"), setting(inputs, 1)
    if repeats is None or len(repeats) != x.ndim:
        raise SettingError(f"{x.ndim} repeats are needed, got {repeats}")
    return [np.tile(x, repeats)]


def _range(node: Node, inputs: Sequence[Array | None]) -> list[Array]:
    start, limit, delta = (need(inputs, i, "bound") for i in range(3))
    return [np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)]


#: Moves that never copy an array whose rows are contiguous.
VIEWS: dict[str, Move] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "SwapLast": _swap_last,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Split": _split,
    "Slice": _slice,
    "Expand": _expand,
    "Identity": _identity,
}

COPIES: dict[str, Move] = {
    "Concat": _concat,
    "Gather": _gather,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Cast": _cast,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
    "Range": _range,
}

MOVES: dict[str, Move] = {**VIEWS, **COPIES}

#: Inputs that are settings: they must be known when a plan is made.
SETTINGS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Split": (1,),
    "Slice": (1, 2, 3, 4),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Pad": (1, 2, 3),
    "Tile": (1,),
    "Range": (0, 1, 2),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "ReduceMax": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceSumSquare": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
}
