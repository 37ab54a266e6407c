"""Small ONNX models for tests, and ONNX Runtime as the judge of what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nnz_service.engine import Model
from nnz_service.engine.executor import Executor

Array = NDArray[Any]
Shape = Sequence[int | str]

#: Fills an arena so that a float that no step wrote is not a number.
POISON = 0xFF

_KINDS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.bool_): TensorProto.BOOL,
}


def node(op: str, inputs: str, outputs: str = "y", **attrs: Any) -> onnx.NodeProto:
    """A node; names of values are separated by spaces, ``-`` leaves one out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attrs)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[Any, Shape]],
    constants: Mapping[str, Any] | None = None,
    outputs: str = "y",
    opset: int = 17,
    result: Any = np.float32,
) -> bytes:
    """The bytes of a model.

    Args:
        nodes: In order.
        inputs: Type and shape of each; a string is a free axis.
        constants: Initializers.
        outputs: Names of the outputs, separated by spaces; shapes are left out.
        opset: Version of the operator set.
        result: Type of the outputs.
    """
    given = [
        helper.make_tensor_value_info(name, _KINDS[np.dtype(kind)], list(shape))
        for name, (kind, shape) in inputs.items()
    ]
    wanted = [
        helper.make_tensor_value_info(name, _KINDS[np.dtype(result)], None)
        for name in outputs.split()
    ]
    held = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    made = helper.make_graph(list(nodes), "g", given, wanted, held)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def judge(model: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def poisoned(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run the plan for batch 1 in memory full of NaN: what it reads, it must write."""
    return Executor(model.plan, fill=POISON).run(feeds)


def difference(ours: Array, theirs: Array) -> float:
    """Norm of the difference over the norm, for what is finite; 0 for two zeros."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if ours.dtype.kind != "f":
        return float(np.any(ours != theirs))
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(ours[~finite], theirs[~finite])
    gap = np.linalg.norm(ours[finite].astype(np.float64) - theirs[finite])
    return float(gap / max(float(np.linalg.norm(theirs[finite])), 1e-30))


def draw(kind: Any, shape: Sequence[int], seed: int = 0) -> Array:
    """Normal floats, small integers or booleans."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
