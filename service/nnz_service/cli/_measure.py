"""What `nnz bench` measures: answers, times and memory, of the engine and of a peer."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, InvalidInputError

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]

#: Largest relative difference (2-norm) between two systems that compute the same.
TOLERANCE = 1e-4
#: Seconds between two timed runs: long enough for the threads of the one before to
#: stop spinning for more work, which would take cores from the one after.
PAUSE = 0.004

#: Protocol names of element types, and what ONNX Runtime calls the same.
_DTYPES: dict[str, type[np.generic]] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_PEER_DTYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
}

_CHILD = """
import sys
from nnz_service.cli import _measure
_measure.run_once(*sys.argv[1:])
print(_measure.peak_memory())
"""


@dataclass(frozen=True, slots=True)
class System:
    """A loaded model: `inputs` maps names to (dtype, shape with None for free axes)."""

    run: Callable[[Arrays], Mapping[str, NDArray[Any]]]
    inputs: dict[str, tuple[str, tuple[int | None, ...]]]
    weight_bytes: int | None


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_system(name: str, path: str, threads: int) -> System:
    """Load a model file in ``nnz`` or in the peer ``onnxruntime``."""
    return _onnxruntime(path, threads) if name == "onnxruntime" else _nnz(path, threads)


def _nnz(path: str, threads: int) -> System:
    from nnz_service.engine import load

    model = load(Path(path), threads=threads)
    inputs = {i.name: (i.dtype, tuple(i.shape)) for i in model.inputs}
    return System(model.run, inputs, model.nbytes)


def _onnxruntime(path: str, threads: int) -> System:
    try:
        import onnxruntime
    except ImportError:
        raise ImpossibleError(
            "the peer onnxruntime is not installed: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, feeds), strict=True))

    inputs = {
        i.name: (
            _PEER_DTYPES.get(i.type, i.type),
            tuple(n if isinstance(n, int) else None for n in i.shape),
        )
        for i in session.get_inputs()
    }
    return System(run, inputs, None)


def input_shapes(system: System, batch: int, given: Sequence[str]) -> Shapes:
    """Choose the shape of every input.

    Args:
        system: Says what is free.
        batch: Extent of a free first axis.
        given: ``name=1x3x8x8`` for inputs with other free axes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, extents = text.rpartition("=")
        if name not in system.inputs:
            known = ", ".join(system.inputs)
            raise InvalidInputError(f"no input {name!r} in {text!r}; there are {known}")
        if not all(e.isdecimal() and int(e) > 0 for e in extents.split("x")):
            raise InvalidInputError(f"{text!r}: extents are positive numbers, 1x3x8x8")
        shapes[name] = tuple(int(extent) for extent in extents.split("x"))
    for name, (_, shape) in system.inputs.items():
        first = batch if shape and shape[0] is None else None
        chosen = (first, *shape[1:]) if first else shape
        if name not in shapes and None in chosen:
            raise InvalidInputError(
                f"input {name} has free axes, {list(shape)}; choose with --shape "
                f"{name}=" + "x".join("8" if n is None else str(n) for n in chosen)
            )
        shapes.setdefault(name, tuple(n for n in chosen if n is not None))
    return shapes


def draw(system: System, shapes: Shapes, seed: int) -> Arrays:
    """Make inputs that no round before has seen; integers are 0 or 1."""
    rng = np.random.default_rng(seed)
    feeds: Arrays = {}
    for name, (dtype, _) in system.inputs.items():
        if dtype not in _DTYPES:
            raise InvalidInputError(f"cannot draw input {name} of type {dtype}")
        kind, shape = np.dtype(_DTYPES[dtype]), shapes[name]
        values = (
            rng.standard_normal(shape)
            if kind.kind == "f"
            else rng.integers(0, 2, shape)
        )
        feeds[name] = values.astype(kind)
    return feeds


def difference(
    ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]
) -> float:
    """Return the largest relative difference (2-norm) over the outputs; NaN differs."""
    worst = 0.0
    for name, expected in theirs.items():
        want = np.asarray(expected, dtype=np.float64)
        got = np.asarray(ours[name], dtype=np.float64)
        if got.shape != want.shape:
            return float("inf")
        scale = float(np.linalg.norm(want)) or 1.0
        gap = float(np.linalg.norm(got - want)) / scale
        worst = max(worst, gap if np.isfinite(gap) else float("inf"))
    return worst


def compare(systems: Sequence[System], shapes: Shapes, seeds: Sequence[int]) -> float:
    """Run all systems on the same inputs; return the largest difference to the first.

    Args:
        systems: At least one; alone it agrees with itself.
        shapes: Of the inputs.
        seeds: One set of inputs each.
    """
    worst = 0.0
    for seed in seeds:
        feeds = draw(systems[0], shapes, seed)
        answers = [system.run(feeds) for system in systems]
        worst = max([worst, *(difference(answers[0], other) for other in answers[1:])])
    return worst


def verdict(
    gap: float, ours: Sequence[float], theirs: Sequence[float]
) -> dict[str, Any]:
    """Say how many times as long the peer takes, if it computes the same.

    Args:
        gap: Largest relative difference of the answers.
        ours: Milliseconds of each round.
        theirs: The same of the peer.
    """
    agrees = gap <= TOLERANCE
    ratio = statistics.median(theirs) / statistics.median(ours) if agrees else None
    return {"max_relative_difference": gap, "agrees": agrees, "ratio": ratio}


def interleave(
    systems: Sequence[System], shapes: Shapes, rounds: int
) -> list[list[float]]:
    """Time the systems in turn, on the same fresh inputs each round.

    Who goes first changes from round to round, so that neither always finds the
    inputs in the cache.

    Returns:
        Milliseconds: a list a system, a number a round.
    """
    times: list[list[float]] = [[] for _ in systems]
    for number in range(rounds):
        feeds = draw(systems[0], shapes, 1000 + number)
        turns = list(range(len(systems)))
        for which in turns if number % 2 == 0 else reversed(turns):
            time.sleep(PAUSE)
            began = time.perf_counter()
            systems[which].run(feeds)
            times[which].append(1e3 * (time.perf_counter() - began))
    return times


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the tenth and ninetieth percentiles."""
    p10, median, p90 = np.percentile(milliseconds, [10, 50, 90])
    return {"median_ms": float(median), "p10_ms": float(p10), "p90_ms": float(p90)}


def memory_of(
    name: str, path: str, threads: int, batch: int, shapes: Sequence[str]
) -> int:
    """Return the peak resident bytes of a process that loads the model and runs it."""
    words = (name, path, str(threads), str(batch), *shapes)
    command = [sys.executable, "-P", "-c", _CHILD, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        said = re.sub(r"^[\w.]*Error: ", "", last)
        raise ImpossibleError(f"{name} could not run {path}: {said}")
    return int(done.stdout)


def run_once(name: str, path: str, threads: str, batch: str, *shapes: str) -> None:
    """Load and run a model once, in a process of its own."""
    system = open_system(name, path, int(threads))
    system.run(draw(system, input_shapes(system, int(batch), shapes), 0))


def peak_memory() -> int:
    """Return the most bytes that this process has had resident.

    From /proc where there is one: `getrusage` also counts what the parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
