"""Whole networks as exporters write them, pruned, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_graphs import Array, difference, draw, graph, judge, node, poisoned

from nnz_service.engine import Model, load

F = np.float32


class Writer:
    """Collects nodes and constants; every method gives the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self._rng = np.random.default_rng(0)

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        out = f"{op}_{len(self.nodes)}"
        self.nodes.append(node(op, " ".join(inputs), out, **attrs))
        return out

    def held(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, *shape: int, block: int = 4, density: float = 0.2) -> str:
        """Weights ``(oc, ic, ...)`` with whole blocks of outputs at zero."""
        oc, *rest = shape
        kept = self._rng.random((oc // block, *rest)) < density
        full = draw(F, shape, len(self.constants)) / np.sqrt(density * np.prod(rest))
        return self.held((full * kept.repeat(block, axis=0)).astype(F))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A product and a bias, as torch exports a Linear of three axes."""
        w = self.weights(outputs, inputs)
        self.constants[w] = np.ascontiguousarray(self.constants[w].T)
        b = self.held(draw(F, (outputs,), 7))
        return self.op("Add", b, self.op("MatMul", x, w))

    def layer_norm(self, x: str, features: int) -> str:
        """The form of opsets below 17."""
        d = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        square = self.op("Pow", d, self.held(F(2)))
        variance = self.op("ReduceMean", square, axes=[-1])
        root = self.op("Sqrt", self.op("Add", variance, self.held(F(1e-5))))
        scaled = self.op(
            "Mul", self.op("Div", d, root), self.held(draw(F, (features,)))
        )
        return self.op("Add", scaled, self.held(draw(F, (features,), 3)))

    def gelu(self, x: str) -> str:
        root = self.op("Div", x, self.held(F(np.sqrt(2))))
        one = self.op("Add", self.op("Erf", root), self.held(F(1)))
        return self.op("Mul", self.op("Mul", x, one), self.held(F(0.5)))

    def attention(self, x: str, features: int, heads: int) -> str:
        size = features // heads
        split = self.held(np.array([0, 0, heads, size]))
        q, k, v = (
            self.op("Reshape", self.linear(x, features, features), split)
            for _ in range(3)
        )
        q, v = (self.op("Transpose", p, perm=[0, 2, 1, 3]) for p in (q, v))
        k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.op("Div", self.op("MatMul", q, k), self.held(F(np.sqrt(size))))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self.op("Reshape", merged, self.held(np.array([0, 0, features])))
        return self.linear(flat, features, features)

    def conv(
        self, x: str, inputs: int, outputs: int, size: int, stride: int = 1
    ) -> str:
        """Convolution and batch norm, as torch exports them in training form."""
        w = self.weights(outputs, inputs, size, size)
        y = self.op("Conv", x, w, pads=[size // 2] * 4, strides=[stride, stride])
        norm = [np.abs(draw(F, (outputs,), i)) + F(0.5) for i in range(4)]
        return self.op("BatchNormalization", y, *map(self.held, norm))

    def finish(self, last: str, inputs: dict[str, Any], opset: int = 13) -> bytes:
        self.nodes.append(node("Identity", last))
        return graph(self.nodes, inputs, self.constants, opset=opset)


def encoder(layers: int = 2, features: int = 32, heads: int = 4) -> bytes:
    w, x = Writer(), "x"
    for _ in range(layers):
        x = w.layer_norm(w.op("Add", x, w.attention(x, features, heads)), features)
        wide = w.gelu(w.linear(x, features, 4 * features))
        x = w.layer_norm(
            w.op("Add", x, w.linear(wide, 4 * features, features)), features
        )
    return w.finish(x, {"x": (F, ("n", "t", features))})


def bottlenecks() -> bytes:
    w = Writer()
    stem = w.op("Relu", w.conv("x", 3, 16, 7, 2))
    x = w.op("MaxPool", stem, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 16
    for middle, stride in ((8, 1), (8, 1), (16, 2)):
        a = w.op("Relu", w.conv(x, inputs, middle, 1))
        a = w.op("Relu", w.conv(a, middle, middle, 3, stride))
        a = w.conv(a, middle, 4 * middle, 1)
        if stride != 1 or inputs != 4 * middle:
            x = w.conv(x, inputs, 4 * middle, 1, stride)
        x = w.op("Relu", w.op("Add", a, x))
        inputs = 4 * middle
    pooled = w.op("GlobalAveragePool", x)
    head = w.weights(12, inputs)
    y = w.op("Gemm", w.op("Flatten", pooled), head, transB=1)
    return w.finish(y, {"x": (F, ("n", 3, "h", "w"))})


def check(model: Model, file: bytes, *shapes: tuple[int, ...]) -> None:
    for shape in shapes:
        feeds = {"x": draw(F, shape, shape[0])}
        theirs = judge(file, feeds)["y"]
        assert difference(model.run(feeds)["y"], theirs) < 5e-6


def test_encoder() -> None:
    file = encoder()
    model = load(file)

    check(model, file, (1, 20, 32), (3, 20, 32), (2, 7, 32))
    ops = [step.op for step in model.plan.steps]
    assert ops.count("Linear") == 12
    assert ops.count("LayerNormalization") == 4
    assert ops.count("Attention") == 2
    # Tokens are planes from the first step to the last.
    assert len(ops) == 12 + 4 + 2 + 1
    assert ops[-1] == "from_tokens"
    # The residual sums, biases and activations are inside the products.
    assert "Add" not in ops
    assert all(row["block"] for row in model.explain() if row["op"] == "Linear")
    assert model.max_batch > 1
    assert model.inputs[0].shape == (None, None, 32)
    assert model.outputs[0].shape == (None, None, 32)


def test_bottlenecks() -> None:
    file = bottlenecks()
    model = load(file)

    check(model, file, (1, 3, 64, 64), (3, 3, 64, 64), (2, 3, 45, 70))
    ops = [step.op for step in model.plan.steps]
    convolutions = 1 + 3 * 3 + 2
    assert ops == [
        "Conv",
        "MaxPool",
        *["Conv"] * (convolutions - 1),
        "GlobalAveragePool",
        "Linear",
        "from_tokens",
    ]
    assert model.max_batch > 1


def test_steps_write_all_that_they_read() -> None:
    for file in (encoder(), bottlenecks()):
        model = load(file)
        shape = tuple(d or 64 for d in model.inputs[0].shape)
        feeds = {"x": draw(F, (1, *shape[1:]))}

        np.testing.assert_array_equal(
            poisoned(model, feeds)["y"], model.run(feeds)["y"]
        )


def test_a_joined_batch_gives_the_same_bits() -> None:
    """An answer does not depend on whose requests it was computed with."""
    for file, shape in ((encoder(), (5, 20, 32)), (bottlenecks(), (5, 3, 64, 64))):
        model = load(file)
        x = draw(F, shape)

        joined = model.run({"x": x})["y"]

        alone = [model.run({"x": x[i : i + 1]})["y"] for i in range(len(x))]
        np.testing.assert_array_equal(joined, np.concatenate(alone))
