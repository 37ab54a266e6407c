"""How `nnz bench` compares systems: the same inputs, answers checked, times in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.cli._peers import DTYPES, Arrays, Problem, System
from nnz_service.errors import InvalidInputError

#: Largest relative difference (2-norm) between two systems that compute the same.
TOLERANCE = 1e-4
#: Seconds between two timed runs on several threads: long enough for those of the one
#: before to stop spinning for more work, which would take cores from the one after.
PAUSE = 0.004

#: By the name of a system, nnz first.
Systems = Mapping[str, System]


@dataclass(frozen=True, slots=True)
class Terms:
    """How to compare: with whom, threads of each system, timed runs of each."""

    peers: tuple[str, ...]
    threads: int
    rounds: int


def problem_of(path: Path, batch: int, given: Sequence[str]) -> Problem:
    """Read what a model takes and choose the shape of every input.

    Args:
        path: ONNX file.
        batch: Extent of a free first axis.
        given: ``name=1x3x8x8`` for inputs with other free axes.

    Raises:
        InvalidInputError: A shape is missing, malformed or of no input.
    """
    from nnz_service.engine import inspect

    found = inspect(path)
    kinds = {i["name"]: i["datatype"] for i in found["inputs"]}
    free = {
        i["name"]: tuple(None if n == -1 else n for n in i["shape"])
        for i in found["inputs"]
    }
    shapes = input_shapes(free, batch, given)
    for name, kind in kinds.items():
        if kind not in DTYPES:
            raise InvalidInputError(f"cannot draw input {name} of type {kind}")
    first = next(iter(free), None)
    counted = first is not None and free[first][:1] == (None,)
    return Problem(
        {name: (kinds[name], shapes[name]) for name in free},
        tuple(o["name"] for o in found["outputs"]),
        shapes[first][0] if first is not None and counted else None,
    )


def input_shapes(
    inputs: Mapping[str, tuple[int | None, ...]], batch: int, given: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Choose the shape of every input; see `problem_of`. None is a free axis."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, extents = text.rpartition("=")
        if name not in inputs:
            known = ", ".join(inputs)
            raise InvalidInputError(f"no input {name!r} in {text!r}; there are {known}")
        if not all(e.isdecimal() and int(e) > 0 for e in extents.split("x")):
            raise InvalidInputError(f"{text!r}: extents are positive numbers, 1x3x8x8")
        shapes[name] = tuple(int(extent) for extent in extents.split("x"))
    for name, shape in inputs.items():
        first = batch if shape and shape[0] is None else None
        chosen = (first, *shape[1:]) if first else shape
        if name not in shapes and None in chosen:
            raise InvalidInputError(
                f"input {name} has free axes, {list(shape)}; choose with --shape "
                f"{name}=" + "x".join("8" if n is None else str(n) for n in chosen)
            )
        shapes.setdefault(name, tuple(n for n in chosen if n is not None))
    return shapes


def draw(problem: Problem, seed: int) -> Arrays:
    """Make inputs that no round before has seen; integers are 0 or 1."""
    rng = np.random.default_rng(seed)
    feeds: Arrays = {}
    for name, (kind, shape) in problem.inputs.items():
        dtype = np.dtype(DTYPES[kind])
        values = (
            rng.standard_normal(shape)
            if dtype.kind == "f"
            else rng.integers(0, 2, shape)
        )
        feeds[name] = np.asarray(values).astype(dtype)
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


def compare(
    systems: Systems, problem: Problem, seeds: Sequence[int]
) -> dict[str, float]:
    """Run all systems on the same inputs, a set a seed.

    Returns:
        The largest difference of each peer from nnz.
    """
    gaps = {name: 0.0 for name in systems if name != "nnz"}
    for seed in seeds:
        feeds = draw(problem, seed)
        ours = systems["nnz"].run(feeds)
        for name, gap in gaps.items():
            gaps[name] = max(gap, difference(ours, systems[name].run(feeds)))
    return gaps


def interleave(
    systems: Systems, problem: Problem, terms: Terms
) -> dict[str, list[float]]:
    """Time the systems in turn, on the same fresh inputs each round.

    Who goes first rotates from round to round and the order turns around after each
    full circle, so that nobody always finds the inputs in the cache, or always comes
    after the same other.

    Returns:
        Milliseconds, a number a round.
    """
    times: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(terms.rounds):
        feeds = draw(problem, 1000 + number)
        for name in turns(list(systems), number):
            if terms.threads > 1:
                time.sleep(PAUSE)
            began = time.perf_counter()
            systems[name].run(feeds)
            times[name].append(1e3 * (time.perf_counter() - began))
    return times


def turns(names: Sequence[str], number: int) -> list[str]:
    """Return the order of the systems in a round."""
    first = number % len(names)
    order = [*names[first:], *names[:first]]
    backwards = number // len(names) % 2 == 1
    return [order[0], *reversed(order[1:])] if backwards else order


def race(
    timed: Systems, checked: Systems, problem: Problem, terms: Terms
) -> dict[str, Any]:
    """Check the answers, time, and check again.

    Args:
        timed: Systems to time.
        checked: Systems whose answers must be those of nnz; mostly the same ones.
        problem: What to run.
        terms: Threads of each system, and timed runs.

    Returns:
        systems: ``median_ms``, ``p10_ms``, ``p90_ms``, ``weight_bytes`` of each, and
        ``images_per_second`` where the first axis is a batch; peers: see `verdict`.
    """
    gaps = compare(checked, problem, seeds=(0, 1))
    times = interleave(timed, problem, terms)
    again = compare(checked, problem, seeds=(2, 3))
    systems = {}
    for name, milliseconds in times.items():
        systems[name] = summary(milliseconds, problem.batch)
        systems[name]["weight_bytes"] = timed[name].weight_bytes
    peers = {
        name: verdict(max(gap, again[name]), times["nnz"], times[name])
        for name, gap in gaps.items()
    }
    return {"systems": systems, "peers": peers}


def summary(milliseconds: Sequence[float], batch: int | None) -> dict[str, Any]:
    """Return the median, the tenth and ninetieth percentiles, and images a second."""
    p10, median, p90 = map(float, np.percentile(milliseconds, [10, 50, 90]))
    found = {"median_ms": median, "p10_ms": p10, "p90_ms": p90}
    return found | ({"images_per_second": 1e3 * batch / median} if batch else {})


def verdict(
    gap: float, ours: Sequence[float], theirs: Sequence[float]
) -> dict[str, Any]:
    """Say how many times as long the peer takes, if it computes the same.

    Args:
        gap: Largest relative difference of the answers.
        ours: Milliseconds of each round.
        theirs: The same of the peer.

    Returns:
        ``max_relative_difference``, None if it has no bound; ``agrees``; ``ratio`` of
        the medians; ``ratio_p10`` and ``ratio_p90`` of the ratios of single rounds.
        Ratios are None where the answers differ.
    """
    known = gap if math.isfinite(gap) else None
    agrees = gap <= TOLERANCE
    found: dict[str, Any] = {"max_relative_difference": known, "agrees": agrees}
    if not agrees:
        return found | dict.fromkeys(("ratio", "ratio_p10", "ratio_p90"))
    p10, p90 = map(float, np.percentile(np.divide(theirs, ours), [10, 90]))
    ratio = float(np.median(theirs) / np.median(ours))
    return found | {"ratio": ratio, "ratio_p10": p10, "ratio_p90": p90}
