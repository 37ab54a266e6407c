"""Models of a few layers, and what is zero in their weights; for tests of pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, NDArray[Any]]


def model(nodes: Sequence[onnx.NodeProto], weights: Weights) -> onnx.ModelProto:
    """A valid model of these nodes; its input is ``x``, its output the last value."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"])],
        [
            helper.make_tensor_value_info(
                nodes[-1].output[0], TensorProto.FLOAT, ["n", "k"]
            )
        ],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(op: str, *inputs: str, out: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], name=f"{op}_{out}", **attributes)


def weights_of(proto: onnx.ModelProto, name: str = "w") -> NDArray[Any]:
    return next(
        numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name
    )


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def zero_blocks(matrix: NDArray[Any], block: int) -> float:
    """Share of blocks of `block` rows, one column each, that are all zero; (oc, k)."""
    cut = matrix.reshape(-1, block, matrix.shape[1])
    return float((cut == 0).all(axis=1).mean())
