"""Type and shape of what each operation gives, from those of its inputs.

Each rule takes the node, the specs of its inputs, and their values as far as they are
known; it raises `SettingError` or ValueError when they do not fit each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnz_service.engine.graph import Array, Node, Shape, dtype_name
from nnz_service.engine.heads import attention_spec
from nnz_service.engine.moves import (
    MOVES,
    VIEWS,
    SettingError,
    axis_in,
    check_indices,
    pad_widths,
    setting,
)
from nnz_service.engine.rows import (
    BINARY,
    COMPARE,
    REDUCE,
    UNARY,
    WHOLE,
    reduce_axes,
)
from nnz_service.engine.windows import window


@dataclass(frozen=True, slots=True)
class Spec:
    """Type and shape of one value."""

    dtype: np.dtype[Any]
    shape: Shape

    def fake(self) -> Array:
        """An array of this shape that has no memory and must not be read."""
        strides = np.cumprod((self.dtype.itemsize, *self.shape[:0:-1]))[::-1]
        if not self.shape:
            return np.zeros((), self.dtype)
        return np.lib.stride_tricks.as_strided(
            np.zeros(1, self.dtype), self.shape, tuple(int(s) for s in strides)
        )


#: What a rule or an operation raises when a node does not fit its inputs.
FAULTS = (ValueError, KeyError, TypeError, IndexError, ArithmeticError, RuntimeError)

#: Reductions of which nothing has no result.
_NEED_ONE = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSumExp")

Rule = Callable[[Node, Sequence[Spec | None], Sequence[Array | None]], list[Spec]]


def _spec(specs: Sequence[Spec | None], index: int) -> Spec:
    found = specs[index] if index < len(specs) else None
    if found is None:
        raise SettingError(f"input {index} is missing")
    return found


def _float(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _spec(specs, 0)
    whole = node.op in ("Neg", "Abs", "Clip") and x.dtype.kind in "if"
    if x.dtype != np.float32 and not whole:
        raise SettingError(f"FP32 is needed, got {dtype_name(x.dtype)}")
    return [x]


def _along(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs, values)
    axis_in(int(node.attrs["axis"]), len(x.shape))
    return [x]


def _layer_norm(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs[:1], values)
    axis = axis_in(int(node.attrs.get("axis", -1)), len(x.shape))
    for part in specs[1:]:
        if part is not None and (
            part.dtype != x.dtype
            or np.broadcast_shapes(part.shape, x.shape[axis:]) != x.shape[axis:]
        ):
            raise SettingError(
                f"scale and bias must be FP32 {list(x.shape[axis:])}, "
                f"got {dtype_name(part.dtype)} {list(part.shape)}"
            )
    return [x]


def _prelu(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs[:1], values)
    slope = _spec(specs, 1)
    if slope.dtype != x.dtype or np.broadcast_shapes(slope.shape, x.shape) != x.shape:
        raise SettingError(f"slope {list(slope.shape)} does not fit {list(x.shape)}")
    return [x]


def _channel_affine(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs[:1], values)
    channels = _spec(specs, 1).shape
    if x.shape[1:2] != channels:
        raise SettingError(f"{list(channels)} channels do not fit {list(x.shape)}")
    return [x]


def _broadcast(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    parts = [_spec(specs, i) for i in range(len(specs))]
    kinds = {p.dtype for p in (parts[1:] if node.op == "Where" else parts)}
    wanted = "b" if node.op in ("And", "Or", "Not") else "if"
    if node.op not in ("Where", "Equal") and {k.kind for k in kinds} - {*wanted}:
        names = sorted(dtype_name(k) for k in kinds)
        raise SettingError(f"it does not work on {', '.join(names)}")
    if len(kinds) > 1 and node.op != "Pow":
        raise SettingError(f"types differ: {sorted(dtype_name(k) for k in kinds)}")
    shape = np.broadcast_shapes(*(p.shape for p in parts))
    dtype = parts[1].dtype if node.op == "Where" else parts[0].dtype
    return [Spec(np.dtype(np.bool_) if node.op in COMPARE else dtype, shape)]


def _view(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    made = VIEWS[node.op](node, [_spec(specs, 0).fake(), *values[1:]])
    return [Spec(v.dtype, v.shape) for v in made]


def _run(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    return [Spec(v.dtype, v.shape) for v in MOVES[node.op](node, values)]


def _range(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    start, limit, delta = (float(np.ravel(v)[0]) for v in values if v is not None)
    count = math.ceil((limit - start) / delta)
    return [Spec(_spec(specs, 0).dtype, (max(count, 0),))]


def _concat(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    parts = [_spec(specs, i) for i in range(len(specs))]
    first = parts[0]
    axis = axis_in(node.attrs["axis"], len(first.shape))
    shape = list(first.shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    for p in parts:
        rest = [d for i, d in enumerate(p.shape) if i != axis]
        if rest != [d for i, d in enumerate(shape) if i != axis]:
            raise SettingError(
                f"{list(p.shape)} and {list(first.shape)} differ besides axis {axis}"
            )
    return [Spec(first.dtype, tuple(shape))]


def _gather(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x, index = _spec(specs, 0), _spec(specs, 1)
    axis = axis_in(int(node.attrs.get("axis", 0)), len(x.shape))
    if index.dtype.kind != "i":
        raise SettingError(f"integer indices are needed, got {dtype_name(index.dtype)}")
    known = values[1]
    if known is not None:
        check_indices(node, known, x.shape, axis)
    return [Spec(x.dtype, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))]


def _cast(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    return [Spec(np.dtype(node.attrs["to"]), _spec(specs, 0).shape)]


def _constant_of_shape(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    value = node.attrs.get("value", np.zeros(1, np.float32))
    return [Spec(value.dtype, tuple(setting(values, 0) or ()))]


def _pad(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _spec(specs, 0)
    widths = pad_widths(len(x.shape), values)
    shape = tuple(d + a + b for d, (a, b) in zip(x.shape, widths, strict=True))
    if 0 in x.shape and node.attrs.get("mode", "constant") != "constant":
        raise SettingError(f"{list(x.shape)} has nothing to repeat")
    left = [
        d + min(a, 0) + min(b, 0) for d, (a, b) in zip(x.shape, widths, strict=True)
    ]
    if min(left, default=0) < 0:
        raise SettingError(f"pads {widths} leave nothing of {list(x.shape)}")
    return [Spec(x.dtype, shape)]


def _blocks(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x, b = _spec(specs, 0), int(node.attrs["blocksize"])
    n, c, h, w = x.shape
    if node.op == "DepthToSpace":
        if b < 1 or c % (b * b):
            raise SettingError(f"{c} channels do not split into blocks of {b}x{b}")
        return [Spec(x.dtype, (n, c // (b * b), h * b, w * b))]
    if b < 1 or h % b or w % b:
        raise SettingError(f"an image of {h}x{w} does not split into blocks of {b}")
    return [Spec(x.dtype, (n, c * b * b, h // b, w // b))]


def _tile(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x, repeats = _spec(specs, 0), setting(values, 1) or []
    if min(repeats, default=0) < 0:
        raise SettingError(f"repeats {repeats} are negative")
    return [Spec(x.dtype, tuple(d * r for d, r in zip(x.shape, repeats, strict=True)))]


def _matmul(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    a, b = _spec(specs, 0), _spec(specs, 1)
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    if not a.shape or not b.shape or left[-1] != right[-2]:
        raise SettingError(f"{list(a.shape)} times {list(b.shape)} is no product")
    if a.dtype != b.dtype or a.dtype.kind not in "if":
        kinds = f"{dtype_name(a.dtype)} times {dtype_name(b.dtype)}"
        raise SettingError(f"{kinds} is no product")
    shape = (
        *np.broadcast_shapes(left[:-2], right[:-2]),
        *(left[-2:-1] if len(a.shape) > 1 else ()),
        *(right[-1:] if len(b.shape) > 1 else ()),
    )
    return [Spec(a.dtype, shape)]


def _gemm(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    wrong = [dtype_name(s.dtype) for s in specs if s and s.dtype != np.float32]
    if wrong:
        raise SettingError(f"FP32 is needed, got {', '.join(wrong)}")
    a, b = _spec(specs, 0).shape, _spec(specs, 1).shape
    if len(a) != 2 or len(b) != 2:
        raise SettingError(f"matrices are needed, got {list(a)} and {list(b)}")
    m, k = a[::-1] if node.attrs.get("transA", 0) else a
    depth, n = b[::-1] if node.attrs.get("transB", 0) else b
    if k != depth:
        raise SettingError(f"{list(a)} times {list(b)} is no product")
    c = specs[2] if len(specs) > 2 else None
    if c is not None and np.broadcast_shapes(c.shape, (m, n)) != (m, n):
        raise SettingError(f"C {list(c.shape)} does not broadcast to {[m, n]}")
    return [Spec(_spec(specs, 0).dtype, (m, n))]


def _reduce(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _spec(specs, 0)
    axes = reduce_axes(node, len(x.shape), values[1] if len(values) > 1 else None)
    if x.dtype != np.float32 and (x.dtype.kind not in "if" or node.op not in WHOLE):
        raise SettingError(f"FP32 is needed, got {dtype_name(x.dtype)}")
    if 0 in x.shape and node.op in _NEED_ONE:
        raise SettingError(f"{list(x.shape)} is empty")
    if node.attrs.get("keepdims", 1) == 1:
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    else:
        shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return [Spec(x.dtype, shape)]


def _global(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs, values)
    if len(x.shape) < 3:
        raise SettingError(f"an image is needed, got {list(x.shape)}")
    return [Spec(x.dtype, (*x.shape[:2], *(1,) * (len(x.shape) - 2)))]


def _image(specs: Sequence[Spec | None]) -> Spec:
    x = _spec(specs, 0)
    if x.dtype != np.float32 or not 3 <= len(x.shape) <= 4 or 0 in x.shape:
        raise SettingError(
            f"a 1-D or 2-D image in FP32 is needed, got {dtype_name(x.dtype)} "
            f"{list(x.shape)}"
        )
    return x


def _conv(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _image(specs)
    oc, ic, *_ = node.attrs["weight_shape"]
    if len(x.shape) != len(node.attrs["weight_shape"]):
        raise SettingError(
            f"weights {list(node.attrs['weight_shape'])} do not fit {list(x.shape)}"
        )
    if x.shape[1] != ic * node.attrs["group"]:
        raise SettingError(
            f"{ic * node.attrs['group']} channels are needed, got {x.shape[1]}"
        )
    found = Spec(x.dtype, (x.shape[0], oc, *window(node, x.shape[2:]).sizes))
    return [_with_residual(found, specs)]


def _linear(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    [x] = _float(node, specs, values)
    oc, ic = node.attrs["weight_shape"]
    if not x.shape or x.shape[-1] != ic:
        raise SettingError(f"{ic} features are needed, got {list(x.shape)}")
    return [_with_residual(Spec(x.dtype, (*x.shape[:-1], oc)), specs)]


def _with_residual(found: Spec, specs: Sequence[Spec | None]) -> Spec:
    if len(specs) > 1 and specs[1] is not None and specs[1].shape != found.shape:
        raise SettingError(
            f"{list(specs[1].shape)} is added to {list(found.shape)}; free axes that "
            "were equal when the model was loaded must stay so"
        )
    return found


def _pool(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _image(specs)
    return [Spec(x.dtype, (*x.shape[:2], *window(node, x.shape[2:]).sizes))]


def _attention(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    parts = [_spec(specs, i) for i in range(len(specs))]
    sizes = attention_spec(node, [part.shape for part in parts])
    features = sizes.heads * sizes.value_dim
    return [Spec(parts[0].dtype, (sizes.batch, sizes.queries, features))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _float),
    **dict.fromkeys(BINARY, _broadcast),
    **dict.fromkeys(COMPARE, _broadcast),
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(("Shape", "Size"), _run),
    "Range": _range,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along),
    "Clip": _float,
    "LayerNormalization": _layer_norm,
    "PRelu": _prelu,
    "ChannelAffine": _channel_affine,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    "Not": _broadcast,
    "Where": _broadcast,
    "Concat": _concat,
    "Gather": _gather,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Pad": _pad,
    "Tile": _tile,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "Linear": _linear,
    "Attention": _attention,
}
