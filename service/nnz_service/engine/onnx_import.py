"""Read an ONNX file into a graph, trusting nothing that is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from nnz_service.engine.dependence import Wiring, misplaced
from nnz_service.engine.graph import DTYPES, Array, Graph, Node, TensorInfo, dtype_name
from nnz_service.engine.onnx_ops import RawNode, RefusedError, convert
from nnz_service.errors import InvalidModelError, UnsupportedModelError

#: Bytes of a model file; protobuf itself ends at 2 GiB.
MAX_FILE = (1 << 31) - 1
#: Nodes of one graph; the largest published encoders have a few thousand.
MAX_NODES = 20_000

#: Versions of the operator set whose meaning of each operator is known here.
OPSETS = range(7, 23)

_KINDS = onnx.AttributeProto


def read_model(source: str | Path | bytes) -> onnx.ModelProto:
    """Parse a file or its bytes.

    Raises:
        InvalidModelError: It is too large, empty or not an ONNX model.
    """
    if isinstance(source, bytes):
        raw = source
    else:
        path = Path(source)
        try:
            size = path.stat().st_size
            raw = path.read_bytes() if size <= MAX_FILE else b""
        except OSError as exc:
            raise InvalidModelError(f"{path}: {exc.strerror or exc}") from exc
        if size > MAX_FILE:
            raise InvalidModelError(
                f"{path}: {size} bytes pass the limit of {MAX_FILE}"
            )
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(raw)
    except DecodeError as exc:
        raise InvalidModelError(f"this is not an ONNX file: {exc}") from exc
    if not model.HasField("graph") or not model.opset_import:
        raise InvalidModelError("this is not an ONNX model: it has no graph or opset")
    return model


def import_model(source: str | Path | bytes) -> Graph:
    """Read a model into a graph whose nodes have their newest form.

    Raises:
        InvalidModelError: The file breaks a rule of ONNX; the message says where.
        UnsupportedModelError: The engine cannot run it; all such nodes are named.
    """
    model = read_model(source)
    opset = _opset(model)
    proto = model.graph
    _check_names(proto)
    if len(proto.node) > MAX_NODES:
        raise InvalidModelError(f"{len(proto.node)} nodes pass the limit {MAX_NODES}")
    if proto.sparse_initializer:
        raise UnsupportedModelError("sparse initializers are not supported")
    constants = {
        t.name: tensor(t, f"initializer {t.name!r}") for t in proto.initializer
    }
    inputs, free = _signature(
        [v for v in proto.input if v.name not in constants], "input"
    )
    outputs, _ = _signature(proto.output, "output")
    names = [info.name for info in inputs]
    ordered = _ordered(list(proto.node), {*names, *constants})
    late = misplaced((Wiring(p.op_type, p.input, p.output) for p in ordered), names)
    results = {o.name for o in proto.output}
    nodes = _convert_all(ordered, opset, constants, results, late)
    made = {*names, *constants, *(o for n in nodes for o in n.outputs)}
    for info in outputs:
        if info.name not in made:
            raise InvalidModelError(f"output {info.name!r} is made by no node")
    return Graph(inputs, outputs, nodes, constants, free)


def tensor(proto: onnx.TensorProto, where: str) -> Array:
    """Decode a tensor that is stored in the file itself.

    Raises:
        InvalidModelError: It lies outside of the file, or its data and dims disagree.
    """
    if proto.data_location == onnx.TensorProto.EXTERNAL or proto.external_data:
        raise InvalidModelError(
            f"{where}: its data lies in another file; store the model as one file "
            "(onnx.save with save_as_external_data=False)"
        )
    if any(d < 0 for d in proto.dims):
        raise InvalidModelError(f"{where}: dims {list(proto.dims)} are negative")
    count = int(np.prod(list(proto.dims), dtype=object))
    if count > proto.ByteSize() * 8:
        raise InvalidModelError(
            f"{where}: dims {list(proto.dims)} claim {count} values, but the file "
            f"holds {proto.ByteSize()} bytes of them"
        )
    if proto.data_type == onnx.TensorProto.STRING:
        raise UnsupportedModelError(f"{where}: texts are not supported")
    try:
        return np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, KeyError) as exc:
        raise InvalidModelError(f"{where}: {exc}") from exc


def _check_names(graph: onnx.GraphProto) -> None:
    """Refuse names that are not text: protobuf then gives bytes in their place."""
    names: list[object] = [t.name for t in graph.initializer]
    names += [v.name for v in (*graph.input, *graph.output)]
    names += [d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [a.name for a in node.attribute]
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise InvalidModelError(f"the name {wrong!r} is not UTF-8 text")


def _opset(model: onnx.ModelProto) -> int:
    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not found:
        raise UnsupportedModelError("the model imports no ai.onnx operator set")
    if found[0] not in OPSETS:
        raise UnsupportedModelError(
            f"opset {found[0]}: supported are {OPSETS.start} to {OPSETS.stop - 1}"
        )
    return int(found[0])


def _signature(
    values: Iterable[onnx.ValueInfoProto], what: str
) -> tuple[tuple[TensorInfo, ...], dict[str, tuple[str | None, ...]]]:
    infos: list[TensorInfo] = []
    free: dict[str, tuple[str | None, ...]] = {}
    for value in values:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            raise UnsupportedModelError(f"{what} {value.name!r} is not a tensor")
        if what == "input" and not kind.HasField("shape"):
            raise InvalidModelError(f"input {value.name!r} has no shape")
        dtype = _dtype_name(kind.elem_type, f"{what} {value.name!r}")
        dims = [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]
        free[value.name] = tuple(
            (d.dim_param or f"{value.name}.{axis}") if size is None else None
            for axis, (d, size) in enumerate(zip(kind.shape.dim, dims, strict=True))
        )
        infos.append(TensorInfo(value.name, dtype, tuple(dims)))
    if not infos:
        raise InvalidModelError(f"the model has no {what}")
    repeated = [n for n, times in Counter(i.name for i in infos).items() if times > 1]
    if repeated:
        raise InvalidModelError(f"{what}s {', '.join(repeated)} are named twice")
    return tuple(infos), free


def _dtype_name(kind: int, where: str) -> str:
    try:
        name = dtype_name(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except KeyError as exc:
        raise InvalidModelError(f"{where}: element type {kind} is unknown") from exc
    if name not in DTYPES or name == "FP64":
        raise UnsupportedModelError(
            f"{where} is of type {name}; supported are FP32, INT64, INT32 and BOOL"
        )
    return name


def _ordered(protos: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Sort nodes so that each comes after the makers of its inputs."""
    made = Counter(out for p in protos for out in p.output if out)
    twice = [n for n, times in made.items() if times > 1 or n in known]
    if twice:
        raise InvalidModelError(f"value {twice[0]!r} is made more than once")
    missing = [
        (p, name) for p in protos for name in p.input
        if name and name not in known and name not in made
    ]  # fmt: skip
    if missing:
        proto, name = missing[0]
        raise InvalidModelError(f"{_label(proto)} reads {name!r}, which nothing makes")
    return _makers_first(protos)


def _makers_first(protos: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Visit nodes in the order of the file, each after what it reads is made."""
    makers = {out: i for i, p in enumerate(protos) for out in p.output if out}
    order: list[onnx.NodeProto] = []
    entered: set[int] = set()
    done: set[int] = set()
    stack = list(range(len(protos)))[::-1]
    while stack:
        at = stack[-1]
        if at in done:
            stack.pop()
            continue
        needed = (makers[name] for name in protos[at].input if name in makers)
        waiting = [i for i in needed if i not in done]
        if at not in entered and waiting:
            entered.add(at)
            if not entered.isdisjoint(waiting):
                raise InvalidModelError(f"{_label(protos[at])} is part of a cycle")
            stack += waiting
            continue
        stack.pop()
        done.add(at)
        order.append(protos[at])
    return order


def _convert_all(
    protos: Sequence[onnx.NodeProto],
    opset: int,
    constants: dict[str, Array],
    results: set[str],
    late: Mapping[int, str],
) -> list[Node]:
    """Convert nodes to their newest form; *late* says which wait for data, and why."""
    read = {name for p in protos for name in p.input} | results
    nodes: list[Node] = []
    refused: list[str] = []
    taken: set[str] = set()
    for index, proto in enumerate(protos):
        name = proto.name or f"{proto.op_type}_{index}"
        while name in taken:
            name = f"{name}_{index}"
        taken.add(name)
        try:
            nodes += convert(_raw(proto, name, opset, read), constants)
            if index in late:
                raise RefusedError(late[index])
        except (ValueError, TypeError, KeyError) as exc:
            raise InvalidModelError(f"{_label(proto)}: {exc}") from exc
        except RefusedError as exc:
            domain = proto.domain or "ai.onnx"
            refused.append(f"{name} ({proto.op_type}, {domain} {opset}): {exc}")
    if refused:
        raise UnsupportedModelError(
            f"{len(refused)} nodes cannot run here: " + "; ".join(refused), refused
        )
    return nodes


def _raw(proto: onnx.NodeProto, name: str, opset: int, read: set[str]) -> RawNode:
    if proto.domain not in ("", "ai.onnx"):
        raise RefusedError(f"domain {proto.domain}")
    schema = _schema(proto.op_type, opset)
    attrs = {a.name: a for a in proto.attribute}
    for known in schema.attributes.values() if schema else ():
        if known.required and known.name not in attrs:
            raise InvalidModelError(
                f"{_label(proto)}: attribute {known.name} is missing"
            )
    decoded = {}
    for attr in proto.attribute:
        known = schema.attributes.get(attr.name) if schema else None
        if known is not None and int(known.type) != attr.type:
            raise InvalidModelError(
                f"{_label(proto)}: attribute {attr.name} must be {known.type.name}"
            )
        decoded[attr.name] = _attribute(proto, attr)
    inputs = list(proto.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    outputs = [o if i == 0 or o in read else "" for i, o in enumerate(proto.output)]
    return RawNode(proto.op_type, name, inputs, outputs, decoded, opset)


def _schema(op: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(op, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return None


def _attribute(node: onnx.NodeProto, attr: onnx.AttributeProto) -> Any:
    if attr.type == _KINDS.INT:
        return int(attr.i)
    if attr.type == _KINDS.FLOAT:
        return float(attr.f)
    if attr.type == _KINDS.INTS:
        return [int(v) for v in attr.ints]
    if attr.type == _KINDS.FLOATS:
        return [float(v) for v in attr.floats]
    if attr.type == _KINDS.STRING:
        return attr.s.decode(errors="replace")
    if attr.type == _KINDS.TENSOR:
        return tensor(attr.t, f"{_label(node)}, attribute {attr.name}")
    if attr.type in (_KINDS.GRAPH, _KINDS.GRAPHS, _KINDS.STRINGS):
        return None
    raise RefusedError(f"attribute {attr.name} of a kind that is not supported")


def _label(proto: onnx.NodeProto) -> str:
    return f"node {proto.name or proto.output[:1]!r} ({proto.op_type})"
