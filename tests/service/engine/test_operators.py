"""Every operator, in the forms of several opsets, against ONNX Runtime."""
# ruff: noqa: E501 - one case a line is a table that can be read

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node, poisoned

from nnz_service.engine import load

F, I64 = np.float32, np.int64
IMAGE = {"x": (F, ("n", 6, 9, 11))}
ROWS = {"x": (F, ("n", 5, 8))}


@dataclass(frozen=True)
class Case:
    """One model: `nodes` on inputs `x` (and others), with constants."""

    name: str
    nodes: list[Any]
    inputs: dict[str, Any] = field(default_factory=lambda: IMAGE)
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: str = "y"
    result: Any = F
    tolerance: float = 2e-6


def _floats(*shape: int, seed: int = 1) -> Any:
    return draw(F, shape, seed)


def _ints(*values: int) -> Any:
    return np.array(values, I64)


def _conv(name: str, w: Any, bias: bool = False, **attrs: Any) -> Case:
    constants = {"w": w}
    if bias:
        constants["b"] = _floats(w.shape[0], seed=2)
    return Case(
        name, [node("Conv", "x w b" if bias else "x w", **attrs)], IMAGE, constants
    )


def _unary(op: str, opset: int = 17, **attrs: Any) -> list[Case]:
    """On plain rows, and behind a convolution, where values are planes."""
    w = {"w": _floats(4, 6, 1, 1)}
    # Near a pole the last bit of the convolution becomes many.
    tolerance = 1e-4 if op == "Reciprocal" else 2e-6
    return [
        Case(f"{op} of rows", [node(op, "x", **attrs)], ROWS, opset=opset),
        Case(
            f"{op} of planes",
            [node("Conv", "x w", "c"), node(op, "c", **attrs)],
            constants=w,
            opset=opset,
            tolerance=tolerance,
        ),
    ]


CONVS = [
    _conv("1x1", _floats(5, 6, 1, 1)),
    _conv("3x3 padded", _floats(5, 6, 3, 3), bias=True, pads=[1, 1, 1, 1]),
    _conv("3x3 valid", _floats(5, 6, 3, 3)),
    _conv("stride 2", _floats(5, 6, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    _conv("uneven pads", _floats(5, 6, 3, 2), pads=[0, 1, 2, 0], strides=[2, 1]),
    _conv("dilated", _floats(5, 6, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]),
    _conv("grouped", _floats(8, 3, 3, 3), pads=[1, 1, 1, 1], group=2),
    _conv("depthwise", _floats(6, 1, 3, 3), True, pads=[1, 1, 1, 1], group=6),
    _conv(
        "depthwise stride 2", _floats(6, 1, 5, 5), pads=[2] * 4, strides=[2, 2], group=6
    ),
    _conv("multiplier", _floats(12, 1, 3, 3), pads=[1, 1, 1, 1], group=6),
    _conv("same upper", _floats(5, 6, 4, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    _conv("same lower", _floats(5, 6, 4, 4), auto_pad="SAME_LOWER"),
    _conv("auto valid", _floats(5, 6, 2, 3), auto_pad="VALID"),
    _conv("whole image", _floats(7, 6, 9, 11)),
    Case(
        "conv 1-D",
        [node("Conv", "x w b", pads=[2, 2], dilations=[2])],
        {"x": (F, ("n", 6, 20))},
        {"w": _floats(4, 6, 3), "b": _floats(4)},
    ),
    Case(
        "depthwise 1-D stride 2",
        [node("Conv", "x w", pads=[7, 7], strides=[2], group=6)],
        {"x": (F, ("n", 6, 20))},
        {"w": _floats(6, 1, 15)},
    ),
    Case(
        "sparse 3x3 then sparse 1x1",
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Conv", "c v")],
        constants={
            "w": _floats(8, 6, 3, 3)
            * (_floats(2, 1, 6, 3, 3, seed=3) > 1).repeat(4, 1).reshape(8, 6, 3, 3),
            "v": _floats(9, 8, 1, 1) * (_floats(9, 8, 1, 1, seed=4) > 1),
        },
    ),
]

WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2]}
POOLS = [
    Case("max pool", [node("MaxPool", "x", **WINDOW)]),
    Case("max pool padded", [node("MaxPool", "x", pads=[1, 1, 1, 1], **WINDOW)]),
    Case("max pool ceil", [node("MaxPool", "x", ceil_mode=1, kernel_shape=[2, 2], strides=[2, 2])]),
    Case("max pool dilated", [node("MaxPool", "x", kernel_shape=[3, 3], dilations=[2, 2])]),
    Case("max pool same", [node("MaxPool", "x", auto_pad="SAME_UPPER", **WINDOW)]),
    Case("max pool 1-D", [node("MaxPool", "x", kernel_shape=[3])], ROWS),
    Case("average pool", [node("AveragePool", "x", **WINDOW)]),
    Case("average pool padded", [node("AveragePool", "x", pads=[1, 1, 1, 1], **WINDOW)]),
    Case("average pool counts pads", [node("AveragePool", "x", pads=[1, 1, 1, 1], count_include_pad=1, **WINDOW)]),
    Case("average pool ceil", [node("AveragePool", "x", ceil_mode=1, pads=[1, 0, 0, 1], kernel_shape=[3, 2], strides=[2, 2])]),
    Case("global average pool", [node("GlobalAveragePool", "x")]),
    Case("global max pool", [node("GlobalMaxPool", "x")]),
    Case(
        "head",
        [
            node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "g"),
            node("Flatten", "g", "f"), node("Gemm", "f v b", transB=1),
        ],
        constants={"w": _floats(8, 6, 1, 1), "v": _floats(5, 8), "b": _floats(5)},
    ),
    Case(
        "head of a torch export",
        [
            node("Conv", "x w", "c"), node("ReduceMean", "c", "g", axes=[2, 3], keepdims=0),
            node("MatMul", "g v", "m"), node("Add", "b m"),
        ],
        constants={"w": _floats(8, 6, 1, 1), "v": _floats(8, 5), "b": _floats(5)},
        opset=13,
    ),
    Case(
        "squeeze and excite",
        [
            node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "g"),
            node("Conv", "g v", "e"), node("Sigmoid", "e", "s"), node("Mul", "c s"),
        ],
        constants={"w": _floats(8, 6, 3, 3), "v": _floats(8, 8, 1, 1)},
    ),
]  # fmt: skip

UNARIES = [
    *_unary("Relu"), *_unary("Sigmoid"), *_unary("Tanh"), *_unary("Erf"), *_unary("Exp"),
    *_unary("Neg"), *_unary("Abs"), *_unary("Reciprocal"), *_unary("LeakyRelu", alpha=0.1),
    *_unary("LeakyRelu"), *_unary("HardSigmoid", alpha=0.3, beta=0.4), *_unary("HardSigmoid"),
    *_unary("HardSwish"), *_unary("Gelu", 20), *_unary("Gelu", 20, approximate="tanh"),
    *_unary("Clip", 7, min=-0.5, max=0.75), *_unary("Clip", 7, min=0.25, max=2.0),
    Case("Log", [node("Exp", "x", "e"), node("Log", "e")], ROWS),
    Case("Sqrt", [node("Abs", "x", "a"), node("Sqrt", "a")], ROWS),
    Case("Clip by inputs", [node("Clip", "x lo hi")], ROWS, {"lo": F(-1), "hi": F(0.5)}),
    Case("Clip above", [node("Clip", "x - hi")], ROWS, {"hi": F(0.5)}),
    Case("Clip by data", [node("Clip", "x lo hi")], {**ROWS, "lo": (F, ()), "hi": (F, ())}),
    Case("PRelu", [node("Conv", "x w", "c"), node("PRelu", "c s")], constants={"w": _floats(4, 6, 1, 1), "s": _floats(4, 1, 1)}),
    Case("PRelu of rows", [node("PRelu", "x s")], ROWS, {"s": _floats(8)}),
    Case("Dropout", [node("Dropout", "x", "y m")], ROWS),
    Case("Identity", [node("Identity", "x")], ROWS),
    Case("batch norm of an input", [node("BatchNormalization", "x s b m v")], constants={"s": _floats(6), "b": _floats(6), "m": _floats(6), "v": np.abs(_floats(6))}),
    Case("batch norm after relu", [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("BatchNormalization", "r s b m v")], constants={"w": _floats(6, 6, 3, 3), "s": _floats(6), "b": _floats(6), "m": _floats(6), "v": np.abs(_floats(6))}, opset=9),
]  # fmt: skip


def _pair(op: str) -> list[Case]:
    shapes = {"x": (F, ("n", 5, 8)), "z": (F, ("n", 5, 8))}
    conv = [node("Conv", "x w", "c"), node("Conv", "x v", "d")]
    held = {"w": _floats(6, 6, 1, 1), "v": _floats(6, 6, 1, 1, seed=5)}
    if op == "Pow":
        return [Case("Pow of two", [node("Abs", "x", "a"), node("Pow", "a z")], shapes)]
    return [
        Case(f"{op} of two", [node(op, "x z")], shapes),
        Case(f"{op} spread", [node(op, "x z")], {**shapes, "z": (F, (5, 1))}),
        Case(
            f"{op} of planes",
            [*conv, node("Abs", "d", "e"), node("Add", "e one", "f"), node(op, "c f")],
            constants={**held, "one": F(1)},
        ),
        Case(f"{op} constant", [node(op, "x k")], ROWS, {"k": np.abs(_floats(8))}),
        Case(f"{op} constant first", [node(op, "k x")], ROWS, {"k": F(3)}),
        Case(
            f"{op} constant a channel",
            [conv[0], node("Relu", "c", "r"), node(op, "r k")],
            constants={**held, "k": np.abs(_floats(1, 6, 1, 1))},
        ),
    ]


BINARIES = [
    *_pair("Add"), *_pair("Sub"), *_pair("Mul"), *_pair("Div"), *_pair("Pow"), *_pair("Min"), *_pair("Max"),
    Case("Sum of three", [node("Sum", "x x z")], {**ROWS, "z": (F, (8,))}),
    Case("Min of one", [node("Min", "x")], ROWS),
    Case("Pow by an integer", [node("Pow", "x k")], ROWS, {"k": _ints(2)[0]}),
    Case("Where", [node("Greater", "x k", "c"), node("Where", "c x k")], ROWS, {"k": F(0.1)}),
    Case("Equal", [node("Cast", "x", "i", to=7), node("Equal", "i k")], ROWS, {"k": _ints(1)}, result=np.bool_),
    Case("Not", [node("Less", "x k", "c"), node("Not", "c")], ROWS, {"k": F(0.1)}, result=np.bool_),
]  # fmt: skip

PRODUCTS = [
    Case("Gemm", [node("Gemm", "x w c", alpha=0.5, beta=2.0)], {"x": (F, ("n", 8))}, {"w": _floats(8, 6), "c": _floats(6)}),
    Case("Gemm with a scalar", [node("Gemm", "x w c")], {"x": (F, ("n", 8))}, {"w": _floats(8, 6), "c": F(0.5)}),
    Case("Gemm of a column", [node("Gemm", "x w c", transA=1, transB=1, beta=0.5)], {"x": (F, (8, 3))}, {"w": _floats(6, 8), "c": _floats(3, 1)}),
    Case("Gemm of data", [node("Gemm", "x z c", transB=1, alpha=0.3, beta=0.5)], {"x": (F, ("n", 8)), "z": (F, (4, 8)), "c": (F, (4,))}),
    Case("MatMul", [node("MatMul", "x w")], ROWS, {"w": _floats(8, 6)}),
    Case("MatMul sparse", [node("MatMul", "x w", "m"), node("Add", "m b")], ROWS, {"w": _floats(8, 16) * (_floats(8, 4, seed=7) > 1).repeat(4, 1), "b": _floats(16)}),
    Case("MatMul of a vector", [node("MatMul", "x w")], {"x": (F, (8,))}, {"w": _floats(8, 6)}),
    Case("MatMul constant first", [node("MatMul", "w x")], ROWS, {"w": _floats(7, 5)}),
    Case("MatMul constant first, of a vector", [node("MatMul", "w x")], {"x": (F, (5,))}, {"w": _floats(7, 5)}),
    Case("MatMul of many constants", [node("MatMul", "x w")], ROWS, {"w": _floats(1, 8, 6)}),
    Case("MatMul of data", [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t")], ROWS),
    Case("MatMul residual", [node("MatMul", "x w", "m"), node("Add", "m b", "a"), node("Add", "x a", "r"), node("Relu", "r")], ROWS, {"w": _floats(8, 8), "b": _floats(8)}),
]  # fmt: skip

NORMS = [
    Case("Softmax", [node("Softmax", "x")], ROWS),
    Case("Softmax axis 1", [node("Softmax", "x", axis=1)], ROWS),
    Case("Softmax of opset 11", [node("Softmax", "x", axis=1)], ROWS, opset=11),
    Case("Softmax of opset 11, last", [node("Softmax", "x", axis=2)], ROWS, opset=11),
    Case("LogSoftmax", [node("LogSoftmax", "x", axis=-1)], ROWS),
    Case("LayerNormalization", [node("LayerNormalization", "x g b", epsilon=1e-3)], ROWS, {"g": _floats(8), "b": _floats(8)}),
    Case("LayerNormalization of two axes", [node("LayerNormalization", "x g", axis=1)], ROWS, {"g": _floats(5, 8)}),
    Case("ReduceMean", [node("ReduceMean", "x", axes=[1])], ROWS, opset=13),
    Case("ReduceMean of all", [node("ReduceMean", "x", keepdims=0)], ROWS, opset=13),
    Case("ReduceSum", [node("ReduceSum", "x a", keepdims=0)], ROWS, {"a": _ints(-1)}),
    Case("ReduceMax", [node("ReduceMax", "x", axes=[1, 2])], ROWS, opset=12),
    Case("ReduceMin", [node("ReduceMin", "x a")], ROWS, {"a": _ints(1)}, opset=18),
    Case("ReduceL2", [node("ReduceL2", "x", axes=[-1])], ROWS, opset=11),
]  # fmt: skip

MOVES = [
    Case("Flatten", [node("Flatten", "x", axis=2)]),
    Case("Reshape", [node("Reshape", "x s")], constants={"s": _ints(0, -1, 9)}),
    Case("Transpose", [node("Transpose", "x", perm=[0, 2, 3, 1])]),
    Case("Transpose back", [node("Transpose", "x")], ROWS),
    Case("Squeeze", [node("Unsqueeze", "x", "u", axes=[1]), node("Squeeze", "u", axes=[1])], ROWS, opset=11),
    Case("Squeeze of no axes", [node("Squeeze", "x a")], {"x": (F, (1, 5, 1))}, {"a": _ints()}),
    Case("Unsqueeze", [node("Unsqueeze", "x a")], ROWS, {"a": _ints(0, -1)}),
    Case("Concat of rows", [node("Concat", "x x", axis=2)], ROWS),
    Case("Concat of planes", [node("Conv", "x w", "a"), node("Conv", "x v", "b", pads=[1] * 4), node("Concat", "a b a", axis=1)], constants={"w": _floats(3, 6, 1, 1), "v": _floats(5, 6, 3, 3)}),
    Case("Split", [node("Split", "x s", "y z", axis=2)], ROWS, {"s": _ints(3, 5)}, outputs="y z"),
    Case("Split of opset 11", [node("Split", "x", "y z", axis=-1)], ROWS, opset=11, outputs="y z"),
    Case("Split uneven", [node("Split", "x", "y z", axis=1, num_outputs=2)], ROWS, opset=18, outputs="y z"),
    Case("Slice", [node("Slice", "x s e a t")], constants={"s": _ints(1, 10), "e": _ints(100, -100), "a": _ints(2, 3), "t": _ints(2, -3)}),
    Case("Slice of opset 9", [node("Slice", "x", starts=[-3], ends=[2**31], axes=[2])], opset=9),
    Case("Expand", [node("Expand", "x s")], ROWS, {"s": _ints(2, 1, 1, 1)}),
    Case("Gather", [node("Gather", "x i", axis=1)], ROWS, {"i": np.array([[0, -1], [2, 2]])}),
    Case("Gather of one", [node("Gather", "x i", axis=2)], ROWS, {"i": np.array(3)}),
    Case("Gather of an embedding", [node("Gather", "t x")], {"x": (I64, ("n", 4))}, {"t": _floats(9, 5)}),
    Case("Cast", [node("Cast", "x", to=1)], {"x": (I64, ("n", 4))}),
    Case("Pad", [node("Pad", "x p v")], constants={"p": _ints(0, 1, 2, 0, 0, 0, 1, 3), "v": F(2)}),
    Case("Pad of opset 10", [node("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")], opset=10),
    Case("Pad before a convolution", [node("Pad", "x p", "q"), node("Conv", "q w", strides=[2, 2])], constants={"p": _ints(0, 0, 0, 0, 0, 0, 1, 1), "w": _floats(4, 6, 3, 3)}),
    Case("DepthToSpace", [node("Conv", "x w", "c"), node("DepthToSpace", "c", blocksize=2, mode="CRD")], constants={"w": _floats(12, 6, 1, 1)}),
    Case("DepthToSpace DCR", [node("DepthToSpace", "x", blocksize=2)], {"x": (F, ("n", 8, 3, 5))}),
    Case("SpaceToDepth", [node("SpaceToDepth", "x", blocksize=2)], {"x": (F, ("n", 3, 4, 6))}),
    Case("Tile", [node("Tile", "x r")], ROWS, {"r": _ints(1, 2, 3)}),
    Case("a chain of shapes", [
        node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n front", "m"),
        node("Concat", "m rest", "t", axis=0), node("Reshape", "x t"),
    ], ROWS, {"zero": np.array(0), "front": _ints(0), "rest": _ints(-1)}),
    Case("ConstantOfShape", [node("Shape", "x", "s"), node("ConstantOfShape", "s", "o"), node("Add", "x o")], ROWS),
    Case("a class token", [
        node("Shape", "x", "s", end=1), node("Concat", "s one", "t", axis=0),
        node("Expand", "k t", "e"), node("Concat", "e x", axis=1),
    ], ROWS, {"one": _ints(1, 8), "k": _floats(1, 1, 8)}),
]  # fmt: skip

FUSIONS = [
    Case("batch norm into a convolution", [node("Conv", "x w b", "c"), node("BatchNormalization", "c s t m v", "n"), node("Relu", "n")], constants={"w": _floats(4, 6, 3, 3), "b": _floats(4), "s": _floats(4), "t": _floats(4), "m": _floats(4), "v": np.abs(_floats(4))}),
    Case("scale, shift and clip", [node("Conv", "x w", "c"), node("Mul", "c k", "m"), node("Sub", "s m", "a"), node("Div", "a d", "e"), node("Clip", "e", min=0.0, max=6.0)], constants={"w": _floats(4, 6, 1, 1), "k": _floats(4, 1, 1), "s": _floats(1, 4, 1, 1), "d": F(0.5)}, opset=7),
    Case("residual", [node("Conv", "x w", "c", pads=[1] * 4), node("Add", "x c", "r"), node("Relu", "r")], constants={"w": _floats(6, 6, 3, 3)}),
    Case("residual of two convolutions", [node("Conv", "x w", "c", pads=[1] * 4), node("Conv", "x v", "d"), node("Add", "d c", "r"), node("Relu", "r")], constants={"w": _floats(6, 6, 3, 3), "v": _floats(6, 6, 1, 1)}),
    Case("a sum that is read twice", [node("Conv", "x w", "c"), node("Add", "x c", "r"), node("Relu", "r", "q"), node("Mul", "q r")], constants={"w": _floats(6, 6, 1, 1)}),
    Case("a doubled value", [node("Conv", "x w", "c"), node("Add", "c c")], constants={"w": _floats(6, 6, 1, 1)}),
    Case("two clamps", [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Clip", "r lo hi")], constants={"w": _floats(6, 6, 1, 1), "lo": F(-2), "hi": F(1)}),
    Case("a sum with a spread image", [node("Conv", "x w", "c"), node("Add", "c k")], constants={"w": _floats(6, 6, 1, 1), "k": _floats(9, 11)}),
    Case("an intermediate result", [node("Conv", "x w", "y"), node("Relu", "y", "z")], constants={"w": _floats(6, 6, 1, 1)}, outputs="y z"),
]  # fmt: skip

TYPES = [
    Case("an image and tokens of one size", [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "x v", "c"), node("Relu", "c", "d"), node("Add", "b d")], {"x": (F, ("n", 5, 5))}, {"w": _floats(5, 5, 1), "v": _floats(5, 5)}),
    Case("doubles at load", [node("Div", "p q", "r"), node("Cast", "r", "s", to=1), node("Mul", "x s")], ROWS, {"p": np.array(1.0), "q": np.array(3.0)}),
    Case("integers toward zero", [node("Sub", "x four", "a"), node("Div", "a three")], {"x": (I64, ("n", 8))}, {"four": _ints(4), "three": _ints(3)}, result=I64),
    Case("a negative power of integers", [node("Sub", "x one", "a"), node("Pow", "two a")], {"x": (I64, ("n", 8))}, {"one": _ints(1), "two": _ints(2)}, result=I64),
    Case("a scalar", [node("Relu", "x")], {"x": (F, ())}),
    Case("a scalar index made at load", [node("Add", "one one", "i"), node("Gather", "x i", axis=1)], ROWS, {"one": np.array(1)}),
    Case("L1 of a scalar", [node("ReduceL1", "x")], {"x": (F, ())}),
    Case("ReduceL2 over no axes", [node("ReduceL2", "x", noop_with_empty_axes=1)], ROWS, opset=18),
    Case("keepdims is neither 0 nor 1", [node("ReduceMax", "x", axes=[1], keepdims=2)], ROWS, opset=13),
    Case("Gemm without features", [node("Gemm", "x z")], {"x": (F, ("n", 8))}, {"z": _floats(8, 0)}),
]  # fmt: skip

CASES = [
    *CONVS,
    *POOLS,
    *UNARIES,
    *BINARIES,
    *PRODUCTS,
    *NORMS,
    *MOVES,
    *FUSIONS,
    *TYPES,
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("backend", ["reference", "cpu", "cuda"])
def test_equals_onnxruntime(
    case: Case, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "cuda":
        request.getfixturevalue("emulated_cuda")
    model = graph(
        case.nodes, case.inputs, case.constants, case.outputs, case.opset, case.result
    )

    ours = load(model, backend=backend, tuning_seconds=0 if backend == "cuda" else 10)

    for batch in (1, 3):
        feeds = {
            name: draw(kind, [batch if d == "n" else d for d in shape], batch)
            for name, (kind, shape) in case.inputs.items()
        }
        expected = judge(model, feeds)
        results = [ours.run(feeds)]
        if batch == 1 and backend != "cuda":  # its memory is poisoned as it is
            results.append(poisoned(ours, feeds))
        for found in results:
            assert set(found) == set(expected)
            for name, values in expected.items():
                assert difference(found[name], values) < case.tolerance, name
