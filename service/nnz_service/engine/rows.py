"""Operations on plain row-major arrays: the math table, and one call for any of them.

Float32 goes through the kernels of a back-end; other types, which only occur in shape
arithmetic and masks, through NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_service.engine.graph import Array, Node
from nnz_service.engine.moves import (
    MOVES,
    SettingError,
    axes_in,
    axis_in,
    need,
    setting,
)

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

RowOp = Callable[["Kernels[Array]", Node, Sequence[Array | None]], Array]

#: ONNX names of the element by element ops of one input, and the kernels' names.
UNARY: dict[str, str] = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Erf": "erf",
    "Gelu": "gelu",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Neg": "neg",
    "Abs": "abs",
    "Reciprocal": "reciprocal",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Silu": "silu",
}

BINARY: dict[str, str] = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Pow": "pow",
    "Min": "min",
    "Max": "max",
}


def _divide(a: Array, b: Array) -> Array:
    """Divide; integers round toward zero, as in C."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    down = a // b
    return np.asarray(down + ((a % b != 0) & (down < 0)))


#: The same without kernels. Powers of integers go through floats, as in ONNX Runtime.
_NUMPY_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": lambda a, b: np.power(a.astype(np.float64), b).astype(a.dtype),
    "Min": np.minimum,
    "Max": np.maximum,
}

_NUMPY_UNARY: dict[str, Callable[[Array], Array]] = {"Neg": np.negative, "Abs": np.abs}

COMPARE: dict[str, Callable[..., Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}

REDUCE: dict[str, str] = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceSumSquare": "sum_square",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}


#: Reductions that also take integers.
WHOLE = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"})


def is_float(x: Array) -> bool:
    """Whether the kernels take this array."""
    return x.dtype == np.float32


def unary_settings(node: Node) -> tuple[str, float, float]:
    """Return the kernel's name of a unary node, and its alpha and beta."""
    kind = UNARY[node.op]
    if kind == "gelu" and node.attrs.get("approximate") == "tanh":
        kind = "gelu_tanh"
    return kind, node.attrs.get("alpha", 0.0), node.attrs.get("beta", 0.0)


def reduce_axes(node: Node, rank: int, axes: Array | None) -> tuple[int, ...]:
    """Return the axes of a reduction, counted from the front."""
    found = setting([axes], 0)
    if not found:
        nothing = node.attrs.get("noop_with_empty_axes", 0) == 1
        return () if nothing else tuple(range(rank))
    return axes_in(found, rank)


def _unary(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x = need(inputs, 0, "X")
    if not is_float(x):
        return _NUMPY_UNARY[node.op](x)
    kind, alpha, beta = unary_settings(node)
    out = np.empty(x.shape, np.float32)
    x = np.ascontiguousarray(x)
    # kind is one of the table's names, but typed as text
    kernels.unary(kind, x, out, alpha=alpha, beta=beta)  # type: ignore[arg-type]
    return out


def _clip(kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]) -> Array:
    x = need(inputs, 0, "X")
    lo, hi = node.attrs["lo"], node.attrs["hi"]
    if not is_float(x):
        return np.clip(x, lo, hi).astype(x.dtype)
    out = np.empty(x.shape, np.float32)
    kernels.unary("clip", np.ascontiguousarray(x), out, alpha=lo, beta=hi)
    return out


def _binary(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    a, b = need(inputs, 0, "A"), need(inputs, 1, "B")
    if is_float(a) and is_float(b):
        kind: Any = BINARY[node.op]
        return kernels.binary(kind, a, b)
    if node.op == "Pow" and is_float(a):
        return kernels.binary("pow", a, b.astype(np.float32))
    found: Array = _NUMPY_BINARY[node.op](a, b)
    return found


def _compare(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    return np.asarray(COMPARE[node.op](need(inputs, 0, "A"), need(inputs, 1, "B")))


def _not(kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]) -> Array:
    return np.asarray(np.logical_not(need(inputs, 0, "X")))


def _where(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    parts = [need(inputs, i, "operand") for i in range(3)]
    return np.asarray(np.where(parts[0], parts[1], parts[2]))


def _prelu(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x, slope = need(inputs, 0, "X"), need(inputs, 1, "slope")
    return np.where(x >= 0, x, x * slope)


def _affine(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x, scale, shift = (need(inputs, i, "operand") for i in range(3))
    shape = (-1,) + (1,) * (x.ndim - 2)
    return x * scale.reshape(shape) + shift.reshape(shape)


def _matmul(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    a, b = need(inputs, 0, "A"), need(inputs, 1, "B")
    if is_float(a) and is_float(b):
        return kernels.matmul(a, b)
    return np.asarray(np.matmul(a, b))


def _gemm(kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]) -> Array:
    a, b = need(inputs, 0, "A"), need(inputs, 1, "B")
    a = a.T if node.attrs.get("transA", 0) else a
    b = b.T if node.attrs.get("transB", 0) else b
    out = kernels.matmul(a, b)
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    if alpha != 1.0:
        out *= np.float32(alpha)
    c = inputs[2] if len(inputs) > 2 else None
    if c is not None and beta != 0.0:
        out += np.float32(beta) * c
    return out


def _softmax(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x = need(inputs, 0, "X")
    run = kernels.softmax if node.op == "Softmax" else kernels.log_softmax
    axis = axis_in(int(node.attrs["axis"]), x.ndim)
    if not node.attrs["coerce"]:
        return run(x, axis)
    # Before opset 13 the axes from `axis` on were one (ONNX Softmax-11).
    rows = int(np.prod(x.shape[:axis]))
    return run(x.reshape(rows, -1), 1).reshape(x.shape)


def _layer_norm(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x, gamma = need(inputs, 0, "X"), need(inputs, 1, "Scale")
    beta = inputs[2] if len(inputs) > 2 else None
    axis = axis_in(int(node.attrs.get("axis", -1)), x.ndim)
    gamma = np.broadcast_to(gamma, x.shape[axis:])
    beta = None if beta is None else np.broadcast_to(beta, x.shape[axis:])
    return kernels.layer_norm(x, gamma, beta, node.attrs.get("epsilon", 1e-5))


def _reduce(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x = need(inputs, 0, "data")
    axes = reduce_axes(node, x.ndim, inputs[1] if len(inputs) > 1 else None)
    keep = node.attrs.get("keepdims", 1) == 1
    kind: Any = REDUCE[node.op]
    if is_float(x):
        return kernels.reduce(kind, x, axes, keep)
    plain: Any = getattr(np, kind)
    return np.asarray(plain(x, axis=axes, keepdims=keep)).astype(x.dtype)


def _global_pool(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> Array:
    x = need(inputs, 0, "X")
    kind: Any = "mean" if node.op == "GlobalAveragePool" else "max"
    return kernels.reduce(kind, x, tuple(range(2, x.ndim)), True)


MATH: dict[str, RowOp] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(COMPARE, _compare),
    **dict.fromkeys(REDUCE, _reduce),
    "Clip": _clip,
    "Not": _not,
    "Where": _where,
    "PRelu": _prelu,
    "ChannelAffine": _affine,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "LayerNormalization": _layer_norm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
}


def compute(
    kernels: Kernels[Array], node: Node, inputs: Sequence[Array | None]
) -> list[Array]:
    """Run one node on plain arrays; the answers may be views of the inputs.

    Raises:
        SettingError: A setting does not fit the inputs.
    """
    if node.op in MOVES:
        return MOVES[node.op](node, inputs)
    if node.op in MATH:
        return [MATH[node.op](kernels, node, inputs)]
    raise SettingError(f"{node.op} has no plain form")
