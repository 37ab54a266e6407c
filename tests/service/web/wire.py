"""A tiny client, and the model and matrix that tests send with it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import numpy as np
import scipy.io
import scipy.sparse
from onnx import TensorProto, helper, numpy_helper

LENGTH = "Inference-Header-Content-Length"
WEIGHTS = np.array([[1, 0, 2], [0, 0, -3]], np.float32)


def linear(weights: np.ndarray = WEIGHTS, op: str = "Gemm") -> bytes:
    """A model y = x weights^T for x of shape [n, 3]."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="layer", transB=1)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    content: bytes = model.SerializeToString()
    return content


def send(
    http: httpx2.Client,
    path: str,
    tensors: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> httpx2.Response:
    """Post tensors as bytes."""
    arrays = {key: np.asarray(value) for key, value in tensors.items()}
    types = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "i8": "INT64"}
    inputs = [
        {
            "name": key,
            "shape": list(array.shape),
            "datatype": types[array.dtype.str[1:]],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for key, array in arrays.items()
    ]
    text = json.dumps(
        {**fields, "parameters": parameters or {}, "inputs": inputs}
    ).encode()
    tail = b"".join(array.tobytes() for array in arrays.values())
    given = {LENGTH: str(len(text)), **(headers or {})}
    return http.post(path, content=text + tail, headers=given)


def read(answer: httpx2.Response) -> dict[str, np.ndarray]:
    """Read the tensors of an answer."""
    assert answer.status_code == 200, answer.text
    split = int(answer.headers[LENGTH])
    types = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8"}
    found = {}
    for output in json.loads(answer.content[:split])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        raw = answer.content[split : split + size]
        array = np.frombuffer(raw, types[output["datatype"]])
        found[output["name"]] = array.reshape(output["shape"])
        split += size
    assert split == len(answer.content)
    return found


def infer(
    http: httpx2.Client, target: str, tensors: Mapping[str, Any]
) -> httpx2.Response:
    parameters = {"binary_data_output": True}
    return send(http, f"/v2/models/{target}/infer", tensors, parameters)


MATRIX = scipy.sparse.random_array(
    (7, 5), density=0.4, rng=np.random.default_rng(3), format="csr"
)


def as_npz(matrix: Any = MATRIX) -> bytes:
    file = io.BytesIO()
    scipy.sparse.save_npz(file, matrix)
    return file.getvalue()


def as_mtx(matrix: Any = MATRIX) -> bytes:
    file = io.BytesIO()
    scipy.io.mmwrite(file, matrix, precision=17)
    return file.getvalue()


def put_matrix(http: httpx2.Client, matrix: Any) -> str:
    answer = http.post(
        "/v1/matrices",
        content=as_npz(matrix),
        headers={"Content-Type": "application/x-npz"},
    )
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


def poisson(n: int) -> Any:
    return scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))


def tensor(name: str, values: Any, datatype: str = "FP64") -> dict[str, Any]:
    """One input in JSON."""
    array = np.array(values)
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "data": array.ravel().tolist(),
    }
