"""The systems that `nnz bench` times, nnz and its peers, behind one shape."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.cli import _mnn
from nnz_service.errors import ImpossibleError

Arrays = dict[str, NDArray[Any]]

#: Element types by their names in the protocol.
DTYPES: dict[str, type[np.generic]] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What every system is asked to compute.

    Args:
        inputs: Names to (type by its protocol name, shape).
        outputs: Names, in the model's order.
        batch: Extent that was chosen for a free first axis, or None.
        backend: Of nnz; peers compute on the CPU.
    """

    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: tuple[str, ...]
    batch: int | None = None
    backend: str = "cpu"

    def zeros(self) -> Arrays:
        """Return inputs that are zero, valid as indices too."""
        return {n: np.zeros(s, DTYPES[kind]) for n, (kind, s) in self.inputs.items()}


@dataclass(frozen=True, slots=True)
class System:
    """A loaded model; `weight_bytes` is what it says it holds, None if it does not."""

    run: Callable[[Arrays], Mapping[str, NDArray[Any]]]
    weight_bytes: int | None


def require(peer: str) -> None:
    """Raise ImpossibleError, with the command that helps, if a peer is not here."""
    package = PACKAGES[peer]
    if importlib.util.find_spec(package) is None:
        raise ImpossibleError(
            f"the peer {peer} is not installed: pip install {package}"
        )


def version(peer: str) -> str:
    """Return the version of the peer's package."""
    return importlib.metadata.version(PACKAGES[peer])


def convert(name: str, path: Path, folder: Path) -> Path:
    """Return the file that a system loads: the ONNX file, or one made in *folder*."""
    return _mnn.convert(path, folder) if name == "mnn" else path


def open_system(name: str, path: Path, threads: int, problem: Problem) -> System:
    """Load what `convert` returned and run it once on zeros.

    Raises:
        ImpossibleError: The peer cannot load or run it; its own words are told.
    """

    def opened() -> System:
        system = OPENERS[name](str(path), threads, problem)
        system.run(problem.zeros())
        return system

    if name == "nnz":
        return opened()
    try:
        with _mnn.quiet():
            return opened()
    except Exception as exc:  # peers raise types of their own
        said = (str(exc).strip().splitlines() or [type(exc).__name__])[-1]
        raise ImpossibleError(f"{name} could not run {path.name}: {said}") from exc


def _nnz(path: str, threads: int, problem: Problem) -> System:
    from nnz_service.engine import load

    model = load(Path(path), problem.backend, threads)
    return System(model.run, model.nbytes)


def _onnxruntime(path: str, threads: int, problem: Problem) -> System:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    names = list(problem.outputs)

    def run(feeds: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return System(run, None)


def _openvino(path: str, threads: int, problem: Problem) -> System:
    # Importing it would send usage statistics, without a question, from a process and
    # threads of its own beside the measurement; without this package it does not. None
    # bars an import, of which the stubs do not know.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if model.is_dynamic():  # it is faster when it knows the shapes beforehand
        model.reshape({name: list(s) for name, (_, s) in problem.inputs.items()})
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(feeds: Arrays) -> Arrays:
        results = request.infer(feeds)
        return {name: results[name] for name in problem.outputs}

    return System(run, None)


def _open_mnn(path: str, threads: int, problem: Problem) -> System:
    import MNN.expr
    import MNN.nn

    # Anything but high precision may pick a path that has no sparse kernels.
    settings = {
        "backend": "CPU",
        "numThread": threads,
        "precision": "high",
        "memory": "normal",
        "power": "high",
    }
    manager = MNN.nn.create_runtime_manager((settings,))
    names = list(problem.inputs)
    net = MNN.nn.load_module_from_file(
        path, names, list(problem.outputs), runtime_manager=manager
    )
    # It has 32-bit types alone: its converter turns all others into these.
    kinds = [
        np.dtype(np.float32 if kind in ("FP32", "FP64") else np.int32)
        for kind, _ in problem.inputs.values()
    ]
    types = {"f": MNN.expr.float, "i": MNN.expr.int}
    layout = MNN.expr.NCHW
    held = [
        MNN.expr.placeholder(list(shape), layout, types[kind.kind])
        for kind, (_, shape) in zip(kinds, problem.inputs.values(), strict=True)
    ]

    def run(feeds: Arrays) -> Arrays:
        for name, kind, variable in zip(names, kinds, held, strict=True):
            variable.write(np.ascontiguousarray(feeds[name], dtype=kind))
        answers = [MNN.expr.convert(y, layout).read() for y in net.forward(held)]
        # What it returns is its own memory, and reading is what waits for the end.
        copies = map(np.array, answers)
        return dict(zip(problem.outputs, copies, strict=True))

    return System(run, None)


#: Packages to import and install, by the name of the peer.
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN"}
#: Who loads a file, by the name of the system.
OPENERS: dict[str, Callable[[str, int, Problem], System]] = {
    "nnz": _nnz,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "mnn": _open_mnn,
}
