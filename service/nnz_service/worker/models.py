"""A loaded ONNX model as a servable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nnz_service.engine import Model, TensorInfo
from nnz_service.errors import InvalidInputError
from nnz_service.servable import DATATYPES, Tensors, TensorSpec, datatype

_BYTE_NS = 1  # a guess per byte of weights and row, until the first run has been timed


class ModelServable:
    """Runs of one model; axis 0 is the batch when the model has a free one.

    Args:
        model: What runs.
        bitwise: Whether its back-end gives a row the same bits in any batch.
    """

    kind = "model"
    plans = True
    steady = True

    def __init__(self, model: Model, *, bitwise: bool = True) -> None:
        self._model = model
        self.inputs = _specs(model.inputs)
        self.outputs = _specs(model.outputs)
        self.max_batch = model.max_batch
        self.nbytes = model.nbytes
        self.bitwise = bitwise

    def check(self, tensors: Tensors) -> None:
        """See `Servable`."""
        wanted = {spec.name: spec for spec in self.inputs}
        if missing := [name for name in wanted if name not in tensors]:
            raise InvalidInputError(f"inputs {missing} are missing; needs {[*wanted]}")
        if unknown := [name for name in tensors if name not in wanted]:
            raise InvalidInputError(f"inputs {unknown} are unknown; needs {[*wanted]}")
        for name, spec in wanted.items():
            check_tensor(spec, tensors[name])
        if self.max_batch:
            rows = {name: tensor.shape[0] for name, tensor in tensors.items()}
            if len(set(rows.values())) > 1:
                raise InvalidInputError(
                    f"inputs differ in their batch (axis 0): {rows}"
                )
            if max(rows.values(), default=0) > self.max_batch:
                raise InvalidInputError(
                    f"batch of {max(rows.values())} rows; at most {self.max_batch} fit"
                )

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return rows * self.nbytes * _BYTE_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        answer = self._model.run(dict(tensors))
        return answer if outputs is None else {name: answer[name] for name in outputs}

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        return self._model.explain()


def _specs(infos: Iterable[TensorInfo]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(info.name, DATATYPES[info.dtype], info.shape) for info in infos
    )


def check_tensor(spec: TensorSpec, tensor: Any) -> None:
    """Compare type and shape of one input with what the model says.

    Raises:
        InvalidInputError: naming the input and what would be right.
    """
    if tensor.dtype != spec.dtype:
        raise InvalidInputError(
            f"input {spec.name!r} is {datatype(tensor.dtype)}, "
            f"but must be {datatype(spec.dtype)}"
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        wanted is None or wanted == given
        for wanted, given in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        shape = [-1 if axis is None else axis for axis in spec.shape]
        raise InvalidInputError(
            f"input {spec.name!r} has shape {[*tensor.shape]}, but must be {shape} "
            "(-1: any)"
        )
    if not tensor.size:
        raise InvalidInputError(f"input {spec.name!r} is empty: {[*tensor.shape]}")
