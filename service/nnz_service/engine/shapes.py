"""Types and shapes of every value, and the values that follow from shapes alone.

Inference runs on concrete sizes: once at load on probes, and again for each new set of
input shapes. It therefore also evaluates the chains that exporters build from Shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_service.engine.graph import DTYPES, Array, Graph, Node, Shape, dtype_name
from nnz_service.engine.moves import (
    MOVES,
    SETTINGS,
    VIEWS,
    SettingError,
    axis_in,
    pad_widths,
    setting,
)
from nnz_service.engine.rows import (
    BINARY,
    COMPARE,
    REDUCE,
    UNARY,
    compute,
    reduce_axes,
)
from nnz_service.engine.windows import window
from nnz_service.errors import InvalidModelError, UnsupportedModelError

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

#: Elements of one value; more is a broken or hostile file, not a tensor.
MAX_ELEMENTS = 1 << 31
#: Elements of a value that is computed while shapes are inferred.
MAX_KNOWN = 1 << 22

#: Types that a value may have while a plan runs.
_RUNTIME = tuple(DTYPES[name] for name in ("FP32", "INT64", "INT32", "BOOL"))


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What inference found: a spec for every value, and the values that are known."""

    specs: dict[str, Spec]
    values: dict[str, Array]

    def shape(self, name: str) -> Shape:
        """Shape of a value."""
        return self.specs[name].shape


Rule = Callable[[Node, Sequence[Spec | None], Sequence[Array | None]], list[Spec]]


def infer(graph: Graph, feeds: Mapping[str, Spec], kernels: Kernels[Array]) -> Facts:
    """Find the spec of every value for the given inputs.

    Args:
        graph: The model; constants take part.
        feeds: Spec of every input.
        kernels: Back-end for the few values that are computed on the way.

    Raises:
        InvalidModelError: A node does not fit its inputs; the message names it.
        UnsupportedModelError: A setting depends on data, or a type has no kernels.
    """
    facts = Facts(dict(feeds), dict(graph.constants))
    for name, value in graph.constants.items():
        facts.specs[name] = Spec(value.dtype, value.shape)
    for node in graph.nodes:
        specs = [facts.specs[name] if name else None for name in node.inputs]
        values = [facts.values.get(name) if name else None for name in node.inputs]
        _check_settings(node, values)
        try:
            found = _infer_node(node, specs, values, facts, kernels)
        except (SettingError, ValueError, KeyError, TypeError, IndexError) as exc:
            raise InvalidModelError(f"{node.label()}: {exc}") from exc
        for name, spec in zip(node.outputs, found, strict=False):
            if name:
                _check_spec(node, spec, name in facts.values)
                facts.specs[name] = spec
    return facts


def _infer_node(
    node: Node,
    specs: Sequence[Spec | None],
    values: Sequence[Array | None],
    facts: Facts,
    kernels: Kernels[Array],
) -> list[Spec]:
    if node.op in ("Shape", "Size") and specs[0] is not None:
        values = [specs[0].fake()]
    known = all(
        v is not None or not n for v, n in zip(values, node.inputs, strict=True)
    )
    found = RULES[node.op](node, specs, values)
    small = all(np.prod(s.shape, dtype=object) <= MAX_KNOWN for s in found)
    if known and small and node.op not in ("Conv", "Linear", "MaxPool", "AveragePool"):
        made = compute(kernels, node, values)
        for name, value in zip(node.outputs, made, strict=False):
            facts.values[name] = value
        return [Spec(v.dtype, v.shape) for v in made]
    return found


def _check_settings(node: Node, values: Sequence[Array | None]) -> None:
    for index in SETTINGS.get(node.op, ()):
        if index < len(values) and node.inputs[index] and values[index] is None:
            reason = f"its input {index} ({node.inputs[index]}) depends on data"
            raise UnsupportedModelError(
                f"{node.label()}: {reason}", nodes=(f"{node.label()}: {reason}",)
            )


def _check_spec(node: Node, spec: Spec, known: bool) -> None:
    if np.prod(spec.shape, dtype=object) > MAX_ELEMENTS:
        raise InvalidModelError(
            f"{node.label()}: its result {list(spec.shape)} passes {MAX_ELEMENTS} "
            "elements"
        )
    if spec.dtype not in _RUNTIME and not known:
        reason = f"it computes in {dtype_name(spec.dtype)}; the engine has FP32"
        raise UnsupportedModelError(
            f"{node.label()}: {reason}", nodes=(f"{node.label()}: {reason}",)
        )


def _spec(specs: Sequence[Spec | None], index: int) -> Spec:
    found = specs[index] if index < len(specs) else None
    if found is None:
        raise SettingError(f"input {index} is missing")
    return found


def _float(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _spec(specs, 0)
    if x.dtype != np.float32 and node.op not in ("Neg", "Abs", "Clip"):
        raise SettingError(f"FP32 is needed, got {dtype_name(x.dtype)}")
    return [x]


def _broadcast(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    parts = [_spec(specs, i) for i in range(len(specs))]
    kinds = {p.dtype for p in (parts[1:] if node.op == "Where" else parts)}
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
    if min(shape) < 0:
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
    shape = (
        *np.broadcast_shapes(left[:-2], right[:-2]),
        *(left[-2:-1] if len(a.shape) > 1 else ()),
        *(right[-1:] if len(b.shape) > 1 else ()),
    )
    return [Spec(a.dtype, shape)]


def _gemm(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
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
    if node.attrs.get("keepdims", 1):
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    else:
        shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return [Spec(x.dtype, shape)]


def _global(
    node: Node, specs: Sequence[Spec | None], values: Sequence[Array | None]
) -> list[Spec]:
    x = _spec(specs, 0)
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


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _float),
    **dict.fromkeys(BINARY, _broadcast),
    **dict.fromkeys(COMPARE, _broadcast),
    **dict.fromkeys(REDUCE, _reduce),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(("Shape", "Size", "Range"), _run),
    **dict.fromkeys(("Clip", "Softmax", "LogSoftmax", "LayerNormalization"), _float),
    **dict.fromkeys(("PRelu", "ChannelAffine"), _float),
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
}
