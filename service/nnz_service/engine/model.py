"""A loaded model: what it takes and gives, and how to run it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_kernels.backends import Backend, choices_folder, choose, use_cache
from nnz_kernels.backends import load as load_kernels
from nnz_kernels.errors import (
    BackendUnavailableError,
    DeviceMemoryError,
    ShapeError,
)
from nnz_service.engine.batching import is_batchable
from nnz_service.engine.choices import Choices
from nnz_service.engine.executor import Executor
from nnz_service.engine.explain import describe
from nnz_service.engine.feeds import Feeds
from nnz_service.engine.graph import DTYPES, Array, Graph, Shape, TensorInfo
from nnz_service.engine.heap import trim
from nnz_service.engine.moves import SettingError
from nnz_service.engine.onnx_import import import_model
from nnz_service.engine.operations import lower
from nnz_service.engine.passes import normalise, optimise
from nnz_service.engine.passes.geometry import layer_specs
from nnz_service.engine.passes.sparsify import Layer
from nnz_service.engine.plan import Plan
from nnz_service.engine.probes import Probes, probe, signature
from nnz_service.engine.shapes import Facts, Spec, infer
from nnz_service.engine.tuning import Tuner
from nnz_service.errors import (
    DeviceFullError,
    ImpossibleError,
    InvalidInputError,
    InvalidModelError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

#: Seconds that a load may spend on measuring kernels.
TUNING_S = 10.0

#: Shapes of all inputs, in their order.
Key = tuple[Shape, ...]

#: Sets of input shapes whose plans are kept, and bytes of arena that these may take.
BOUND, BOUND_BYTES = 16, 1 << 30
#: Bytes of arena of one plan; more is a broken or hostile file, or too large an input.
MAX_ARENA = 4 << 30

#: Bytes of arena that the rows of a batch of images may take together.
PIECE_BYTES = 1 << 20

#: Bytes of arena up to which requests may be joined, and rows of a joined batch.
BATCH_BYTES, BATCH_ROWS = 512 << 20, 128

#: Dense weights of a model from which on memory is given back after its load.
TRIM_BYTES = 1 << 20


def load(
    source: str | Path | bytes,
    backend: str = "auto",
    threads: int | None = 1,
    precision: str = "fp32",
    cache_dir: str | Path | None = None,
    tuning_seconds: float = TUNING_S,
) -> Model:
    """Load an ONNX model.

    Args:
        source: A file, or the bytes of one.
        backend: ``cpu``, ``cuda``, ``reference`` (slow, for comparison) or ``auto``:
            CUDA where a device can be used, else the CPU.
        threads: Threads that one run may use; None for all cores.
        precision: ``fp32``; on ``cuda`` also ``fp16`` and ``bf16``: weights and
            activations of 16 bits, sums of 32. Inputs and outputs stay float32. A
            layer's answer then differs by up to 4e-3 and 3e-2 of its norm.
        cache_dir: Folder for compiled kernels; by default $NUMBA_CACHE_DIR or the
            user's cache folder. It counts for the first model of a process. Measured
            choices of kernels are kept there too.
        tuning_seconds: Time that may be spent on measuring which kernel is fastest for
            each layer; 0 leaves that to a cost model. What was measured before on this
            machine costs nothing.

    Raises:
        InvalidModelError: The file is broken; the message says where.
        UnsupportedModelError: The engine cannot run it; all such nodes are named.
        ImpossibleError: There is no such back-end or precision here.
        DeviceFullError: The device has not enough memory left.
    """
    try:
        return _load(source, backend, threads, precision, cache_dir, tuning_seconds)
    except DeviceMemoryError as exc:
        raise DeviceFullError(str(exc)) from exc


def _load(
    source: str | Path | bytes,
    backend: str,
    threads: int | None,
    precision: str,
    cache_dir: str | Path | None,
    tuning_seconds: float,
) -> Model:
    if threads is not None and threads < 1:
        raise ImpossibleError(f"threads must be at least 1 or None, got {threads}")
    if cache_dir is not None:
        use_cache(Path(cache_dir) / "numba")
    graph = import_model(source)
    kernels = _kernels(backend, precision)
    exact = load_kernels(Backend.REFERENCE)
    # Weights may be anything: what overflows is infinite here as in any runtime.
    with np.errstate(all="ignore"):
        normalise(graph, exact)
        count = threads or _cores()
        tuner = None
        if kernels is not exact:
            choices = Choices(choices_folder(), kernels.identity())
            tuner = Tuner(kernels, count, choices, tuning_seconds)
        layers = optimise(graph, kernels, exact, lambda g: probe(g, exact).all(), tuner)
        if tuner is not None:
            tuner.choices.save()
        model = Model(graph, layers, kernels, exact, count)
    if kernels is not exact:
        model.warm()
    # It looks at every object of the process: not for what a small model leaves.
    if sum(layer.dense_bytes for layer in layers.values()) >= TRIM_BYTES:
        trim()
    return model


def inspect(source: str | Path | bytes) -> dict[str, Any]:
    """Look at a model without packing its weights or loading a back-end.

    Returns:
        inputs and outputs, each a list of {name, datatype, shape} with -1 for a free
        axis; nodes, their number; parameters, the number of weights.

    Raises:
        InvalidModelError: The file is broken.
        UnsupportedModelError: The engine cannot run it; all such nodes are named.
    """
    graph = import_model(source)
    nodes = len(graph.nodes)
    parameters = sum(a.size for a in graph.constants.values() if a.dtype.kind == "f")
    exact = load_kernels(Backend.REFERENCE)
    with np.errstate(all="ignore"):
        normalise(graph, exact)
        probes = probe(graph, exact)
        layer_specs(graph, probes.all())
        outputs = signature(graph, probes)
    return {
        "inputs": [_as_json(info) for info in graph.inputs],
        "outputs": [_as_json(info) for info in outputs],
        "nodes": nodes,
        "parameters": int(parameters),
    }


class Model:
    """A model that is ready to run; made by `load`.

    Args:
        graph: Optimised.
        layers: Packed layers.
        kernels: The back-end that runs it.
        exact: The reference back-end.
        threads: Threads of one run.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Mapping[str, Layer],
        kernels: Kernels[Array],
        exact: Kernels[Array],
        threads: int,
    ) -> None:
        self._graph = graph
        self._layers = layers
        self._kernels = kernels
        self._exact = exact
        self._threads = threads
        self._bound: OrderedDict[Key, Executor] = OrderedDict()
        self._lock = threading.Lock()
        self._times: dict[str, float] = {}
        probes = probe(graph, exact)
        self.inputs = graph.inputs
        self._feeds = Feeds(graph.inputs, graph.free_axes)
        self.outputs = signature(graph, probes)
        self._main = probes.main
        try:
            self._shown = self._bind(probes.main)
        except ShapeError as exc:
            raise InvalidModelError(str(exc)) from exc
        self._bound[self._key(probes.main.specs)] = self._shown
        self.max_batch = self._largest_batch(probes)
        self._piece = self._rows_together()

    @property
    def nbytes(self) -> int:
        """Bytes held for weights, indices and other constants."""
        packed = sum(layer.prepared.nbytes for layer in self._layers.values())
        return packed + sum(a.nbytes for a in self._graph.constants.values())

    @property
    def fallbacks(self) -> int:
        """Sparse layers that run dense because they failed their check at load."""
        return sum(layer.fell_back for layer in self._layers.values())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; may be called from several threads at once.

        Args:
            feeds: An array for every input, of its type and shape.

        Returns:
            Fresh arrays by the names of the outputs.

        Raises:
            InvalidInputError: An input is missing, unknown, or of another type or
                shape; the message says what is expected.
        """
        arrays = self._feeds.check(feeds)
        rows = len(arrays[self.inputs[0].name]) if self._piece else 0
        try:
            if rows <= self._piece:
                return self._executor(arrays).run(arrays)
            return self._run_pieces(arrays, rows)
        except SettingError as exc:  # an index that only the data could tell
            raise InvalidInputError(str(exc)) from exc
        except DeviceMemoryError as exc:
            raise DeviceFullError(str(exc)) from exc

    def _run_pieces(self, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
        found = []
        for at in range(0, rows, self._piece):
            some = {
                name: array[at : at + self._piece] for name, array in arrays.items()
            }
            found.append(self._executor(some).run(some))
        return {
            name: np.concatenate([part[name] for part in found]) for name in found[0]
        }

    @property
    def plan(self) -> Plan:
        """The plan for batch 1 that `explain` describes."""
        return self._shown.plan

    def warm(self) -> None:
        """Run once on zeros, so that no request waits for a compiler."""
        self._shown.run(
            {
                info.name: np.zeros(self._main.shape(info.name), DTYPES[info.dtype])
                for info in self.inputs
            }
        )

    def measure(self, feeds: Mapping[str, Array], rounds: int = 5) -> None:
        """Time every step for `explain`: the median of some runs on these inputs."""
        arrays = self._feeds.check(feeds)
        executor = self._executor(arrays)
        executor.timed(arrays)
        runs = [executor.timed(arrays) for _ in range(rounds)]
        self._times = {}
        for step, took in zip(
            executor.plan.steps, zip(*runs, strict=True), strict=True
        ):
            key = f"{step.name}:{step.kernel}"
            self._times[key] = self._times.get(key, 0.0) + float(np.median(took))

    def explain(self) -> list[dict[str, Any]]:
        """Describe every step of a plan, one row each, for batch 1.

        Returns:
            Rows of name, op, shape (of the result), weights (their shape), density,
            block, blocks_found, bytes, dense_bytes, kernel, candidates (ms of each
            kernel that was measured at load), reason and ms, the measured time, None
            before `measure`. Steps without weights have None there.
        """
        rows = []
        made = {node.name: node.output for node in self._graph.nodes}
        for step in self._shown.plan.steps:
            layer = self._layers.get(step.name)
            layer = layer if step.op in ("Conv", "Linear") else None
            times = self._times.get(f"{step.name}:{step.kernel}")
            # A step that brings a value into another form has the name of the value.
            shape = list(self._main.shape(made.get(step.name, step.name)))
            rows.append(describe(step, layer, shape, times))
        return rows

    # -- plans ----------------------------------------------------------------------

    def _executor(self, arrays: Mapping[str, Array]) -> Executor:
        key = self._key(arrays)
        with self._lock:
            found = self._bound.get(key)
            if found is not None:
                self._bound.move_to_end(key)
                return found
        specs = {name: Spec(a.dtype, a.shape) for name, a in arrays.items()}
        try:
            with np.errstate(all="ignore"):
                made = self._bind(infer(self._graph, specs, self._exact))
        except (InvalidModelError, UnsupportedModelError, ShapeError) as exc:
            raise InvalidInputError(
                f"the model cannot run on inputs of shapes {list(key)}: {exc}"
            ) from exc
        with self._lock:
            self._bound[key] = made
            while len(self._bound) > 1 and self._is_full():
                self._bound.popitem(last=False)
        return made

    def _is_full(self) -> bool:
        held = sum(executor.plan.arena_bytes for executor in self._bound.values())
        return len(self._bound) > BOUND or held > BOUND_BYTES

    def _key(self, shaped: Mapping[str, Array] | Mapping[str, Spec]) -> Key:
        return tuple(shaped[info.name].shape for info in self.inputs)

    def _bind(self, facts: Facts) -> Executor:
        plan = lower(self._graph, facts, self._layers, self._kernels, self._threads)
        if plan.arena_bytes > MAX_ARENA:
            raise InvalidModelError(
                f"its values take {plan.arena_bytes} bytes at once; the limit is "
                f"{MAX_ARENA}"
            )
        return Executor(plan, device=self._kernels.DEVICE)

    def _rows_together(self) -> int:
        """Rows of a batch that run at once, 0 for all of them.

        What an image leaves in the cache from one layer to the next is worth more than
        weights that are read once for several images; small networks gain by the calls
        that they save.
        """
        if self._kernels.DEVICE is not None:
            return 0  # a device is filled by many images, not kept warm by few
        images = any(node.op == "Conv" for node in self._graph.nodes)
        each = max(self._shown.plan.arena_bytes, 1)
        return max(1, PIECE_BYTES // each) if images and self.max_batch else 0

    def _largest_batch(self, probes: Probes) -> int:
        if probes.batches is None:
            return 0
        # A graph may ask whether the batch is 1: compare one and two, two and three.
        few, many = probes.batches
        pairs = ((probes.main, few), (few, many))
        if not all(is_batchable(self._graph, *pair) for pair in pairs):
            return 0
        each = max(self._shown.plan.arena_bytes, 1)
        return max(1, min(BATCH_ROWS, BATCH_BYTES // each))


def _kernels(backend: str, precision: str) -> Kernels[Array]:
    try:
        return load_kernels(choose(backend), precision)
    except BackendUnavailableError as exc:
        raise ImpossibleError(f"back-end {backend!r} is not available: {exc}") from exc
    except ValueError as exc:
        if backend in ("auto", *Backend):
            raise ImpossibleError(str(exc)) from exc
        names = ", ".join(["auto", *Backend])
        raise ImpossibleError(f"back-end {backend!r}: there are {names}") from exc


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _as_json(info: TensorInfo) -> dict[str, Any]:
    shape = [-1 if d is None else d for d in info.shape]
    return {"name": info.name, "datatype": info.dtype, "shape": shape}
