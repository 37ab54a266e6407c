"""The table of ONNX operators: which attributes each may have, and what it becomes.

A converter turns one ONNX node into nodes of the newest form, so that everything after
the import knows one meaning of each operation, whatever the file's opset.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from nnz_service.engine.graph import DTYPES, Array, Node
from nnz_service.engine.rows import BINARY, COMPARE, REDUCE, UNARY


class RefusedError(Exception):
    """This form of a node is not supported; the text says why."""


@dataclass(frozen=True, slots=True)
class RawNode:
    """One node as the file has it, with its attributes decoded."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    opset: int


Constants = MutableMapping[str, Array]
Convert = Callable[[RawNode, Constants], list[Node]]


@dataclass(frozen=True, slots=True)
class OnnxOp:
    """How one operator is imported.

    Args:
        inputs: Fewest and most inputs.
        attrs: Attributes that it may have in any opset.
        convert: What it becomes.
        outputs: Most outputs whose values may be used.
    """

    inputs: tuple[int, int]
    attrs: frozenset[str]
    convert: Convert
    outputs: int = 1


def _node(raw: RawNode, inputs: list[str], **attrs: Any) -> list[Node]:
    return [Node(raw.op, raw.name, inputs, raw.outputs, attrs)]


def _keep(raw: RawNode, constants: Constants) -> list[Node]:
    return [Node(raw.op, raw.name, raw.inputs, raw.outputs, dict(raw.attrs))]


def _identity(raw: RawNode, constants: Constants) -> list[Node]:
    return [Node("Identity", raw.name, raw.inputs[:1], raw.outputs[:1])]


def _dropout(raw: RawNode, constants: Constants) -> list[Node]:
    mode = raw.inputs[2] if len(raw.inputs) > 2 else ""
    if mode and (mode not in constants or bool(np.any(constants[mode]))):
        raise RefusedError("training mode")
    return _identity(raw, constants)


def _defaults(**defaults: Any) -> Convert:
    def convert(raw: RawNode, constants: Constants) -> list[Node]:
        return _node(raw, raw.inputs, **{**defaults, **raw.attrs})

    return convert


def _fold_many(raw: RawNode, constants: Constants) -> list[Node]:
    """Turn Sum, Min and Max of many inputs into a chain of binary ones."""
    op = "Add" if raw.op == "Sum" else raw.op
    if len(raw.inputs) == 1:
        return _identity(raw, constants)
    nodes, left = [], raw.inputs[0]
    for i, right in enumerate(raw.inputs[1:], 1):
        last = i == len(raw.inputs) - 1
        out = raw.outputs[0] if last else f"{raw.outputs[0]}:{i}"
        name = raw.name if last else f"{raw.name}:{i}"
        nodes.append(Node(op, name, [left, right], [out]))
        left = out
    return nodes


def _settings(*names: str) -> Convert:
    """Turn attributes that newer opsets take as inputs into constant inputs."""

    def convert(raw: RawNode, constants: Constants) -> list[Node]:
        inputs = list(raw.inputs)
        attrs = dict(raw.attrs)
        for place, name in enumerate(names, 1):
            if name not in attrs:
                continue
            value = attrs.pop(name)
            inputs += [""] * (place + 1 - len(inputs))
            inputs[place] = f"{raw.name}:{name}"
            constants[inputs[place]] = (
                np.asarray(value, np.float32)
                if isinstance(value, float)
                else np.asarray(value, np.int64)
            )
        return _node(raw, inputs, **attrs)

    return convert


def _clip(raw: RawNode, constants: Constants) -> list[Node]:
    names = [*raw.inputs[1:3], "", ""][:2]
    if all(not name or name in constants for name in names):
        lo = constants[names[0]] if names[0] else raw.attrs.get("min", -np.inf)
        hi = constants[names[1]] if names[1] else raw.attrs.get("max", np.inf)
        if np.size(lo) != 1 or np.size(hi) != 1:
            raise RefusedError("min and max must be scalars")
        return _node(
            raw, raw.inputs[:1], lo=float(np.ravel(lo)[0]), hi=float(np.ravel(hi)[0])
        )
    nodes, x = [], raw.inputs[0]
    steps = [(op, n) for op, n in zip(("Max", "Min"), names, strict=True) if n]
    for i, (op, bound) in enumerate(steps):
        out = raw.outputs[0] if i == len(steps) - 1 else f"{raw.outputs[0]}:{op}"
        nodes.append(Node(op, f"{raw.name}:{op}", [x, bound], [out]))
        x = out
    return nodes


def _softmax(raw: RawNode, constants: Constants) -> list[Node]:
    old = raw.opset < 13
    axis = raw.attrs.get("axis", 1 if old else -1)
    return _node(raw, raw.inputs, axis=axis, coerce=old)


def _batch_norm(raw: RawNode, constants: Constants) -> list[Node]:
    if raw.attrs.get("training_mode", 0):
        raise RefusedError("training mode")
    if raw.attrs.get("spatial", 1) != 1:
        raise RefusedError("spatial=0")
    return _node(raw, raw.inputs, epsilon=raw.attrs.get("epsilon", 1e-5))


def _cast(raw: RawNode, constants: Constants) -> list[Node]:
    kind = onnx.helper.tensor_dtype_to_np_dtype(raw.attrs["to"])
    if kind not in DTYPES.values():
        raise RefusedError(f"to {kind}")
    return _node(raw, raw.inputs, to=kind)


def _pad(raw: RawNode, constants: Constants) -> list[Node]:
    mode = raw.attrs.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise RefusedError(f"mode {mode!r}")
    return _settings("pads", "value")(raw, constants)


def _pool(raw: RawNode, constants: Constants) -> list[Node]:
    _check_window(raw)
    if "kernel_shape" not in raw.attrs:
        raise RefusedError("kernel_shape is missing")
    return _keep(raw, constants)


def _conv(raw: RawNode, constants: Constants) -> list[Node]:
    _check_window(raw)
    return _keep(raw, constants)


def _check_window(raw: RawNode) -> None:
    auto = raw.attrs.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise RefusedError(f"auto_pad {auto!r}")
    if len(raw.attrs.get("kernel_shape", (1,))) > 2:
        raise RefusedError("windows of more than two axes")


def _constant(raw: RawNode, constants: Constants) -> list[Node]:
    value = next(iter(raw.attrs.values()), None)
    if value is None:
        raise RefusedError("no value")
    kind = np.int64 if "int" in next(iter(raw.attrs)) else np.float32
    array = value if isinstance(value, np.ndarray) else np.asarray(value, kind)
    constants[raw.outputs[0]] = array
    return []


def _op(
    inputs: int | tuple[int, int],
    attrs: str = "",
    convert: Convert = _keep,
    outputs: int = 1,
) -> OnnxOp:
    span = (inputs, inputs) if isinstance(inputs, int) else inputs
    return OnnxOp(span, frozenset(attrs.split()), convert, outputs)


_MANY = 1 << 16
_WINDOW = "kernel_shape strides pads auto_pad dilations"

OPS: dict[str, OnnxOp] = {
    **{op: _op(1) for op in UNARY if op != "Silu"},
    **{op: _op(2) for op in (*BINARY, *COMPARE)},
    **{op: _op((1, _MANY), "", _fold_many) for op in ("Sum", "Min", "Max")},
    **{
        op: _op((1, 2), "axes keepdims noop_with_empty_axes", _settings("axes"))
        for op in REDUCE
    },
    "LeakyRelu": _op(1, "alpha", _defaults(alpha=0.01)),
    "HardSigmoid": _op(1, "alpha beta", _defaults(alpha=0.2, beta=0.5)),
    "Gelu": _op(1, "approximate"),
    "Clip": _op((1, 3), "min max", _clip),
    "PRelu": _op(2),
    "Not": _op(1),
    "Where": _op(3),
    "Identity": _op(1),
    "Dropout": _op((1, 3), "ratio seed is_test", _dropout),
    "Constant": _op(
        0, "value value_float value_floats value_int value_ints", _constant
    ),
    "Conv": _op((2, 3), _WINDOW + " group", _conv),
    "MaxPool": _op(1, _WINDOW + " ceil_mode storage_order", _pool),
    "AveragePool": _op(1, _WINDOW + " ceil_mode count_include_pad", _pool),
    "GlobalAveragePool": _op(1),
    "GlobalMaxPool": _op(1),
    "BatchNormalization": _op(5, "epsilon momentum spatial training_mode", _batch_norm),
    "LayerNormalization": _op((2, 3), "axis epsilon stash_type"),
    "Gemm": _op((2, 3), "alpha beta transA transB"),
    "MatMul": _op(2),
    "Softmax": _op(1, "axis", _softmax),
    "LogSoftmax": _op(1, "axis", _softmax),
    "Flatten": _op(1, "axis"),
    "Reshape": _op(2, "allowzero"),
    "Transpose": _op(1, "perm"),
    "Squeeze": _op((1, 2), "axes", _settings("axes")),
    "Unsqueeze": _op((1, 2), "axes", _settings("axes")),
    "Concat": _op((1, _MANY), "axis"),
    "Split": _op((1, 2), "axis split num_outputs", _settings("split"), _MANY),
    "Slice": _op((1, 5), "starts ends axes", _settings("starts", "ends", "axes")),
    "Expand": _op(2),
    "Gather": _op(2, "axis"),
    "Shape": _op(1, "start end"),
    "Size": _op(1),
    "ConstantOfShape": _op(1, "value"),
    "Cast": _op(1, "to saturate", _cast),
    "Pad": _op((1, 4), "mode pads value", _pad),
    "DepthToSpace": _op(1, "blocksize mode"),
    "SpaceToDepth": _op(1, "blocksize"),
    "Tile": _op(2),
    "Range": _op(3),
}


def convert(raw: RawNode, constants: Constants) -> list[Node]:
    """Turn one ONNX node into nodes of the graph; new settings join `constants`.

    Raises:
        RefusedError: The operator, or this form of it, is not supported.
    """
    op = OPS.get(raw.op)
    if op is None:
        raise RefusedError("no such operator in this engine")
    fewest, most = op.inputs
    if not fewest <= len(raw.inputs) <= most:
        raise RefusedError(f"{len(raw.inputs)} inputs, {fewest} to {most} are known")
    unknown = sorted(set(raw.attrs) - op.attrs)
    if unknown:
        raise RefusedError(f"attributes {', '.join(unknown)}")
    extra = [name for name in raw.outputs[op.outputs :] if name]
    if extra:
        raise RefusedError(f"outputs {', '.join(extra)}")
    if not raw.outputs or not raw.outputs[0]:
        raise RefusedError("it has no output")
    if "" in raw.inputs[:fewest]:
        raise RefusedError("a required input is left out")
    raw.outputs[op.outputs :] = []
    return op.convert(raw, constants)
