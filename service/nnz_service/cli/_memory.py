"""What memory a model takes, measured in processes that do nothing else."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from nnz_service.cli._peers import Problem, open_system
from nnz_service.errors import ImpossibleError

_CHILD = """
import sys
from nnz_service.cli import _memory
_memory.answer(sys.stdin.read())
"""


def memory_of(
    name: str, path: Path, threads: int, problem: Problem
) -> dict[str, int | None]:
    """Measure a system in child processes.

    Args:
        name: Of the system.
        path: The file that it loads.
        threads: That it may use.
        problem: What to run.

    Returns:
        Bytes. ``peak_rss``: most that a process had resident which loads the model and
        runs it. Of nnz alone, and where /proc tells it, also ``resident_weights``: what
        loading and one run added, without the arena, to a process whose kernels are
        ready; and ``resident_weights_trimmed``, the same after malloc gave back the
        pages that it keeps for later. None where it is not known.

    Raises:
        ImpossibleError: The system cannot run the file.
    """
    words = {"path": str(path), "threads": threads}
    shown = {
        "inputs": problem.inputs,
        "outputs": problem.outputs,
        "backend": problem.backend,
    }
    held: dict[str, int | None] = dict.fromkeys(
        ("resident_weights", "resident_weights_trimmed")
    )
    if name == "nnz" and problem.backend == "cpu":
        # First, for it compiles what is missing, which takes memory.
        held = _ask(name, words | {"measure": "weights"})
    return held | _ask(name, words | {"measure": "peak", "name": name} | shown)


def _ask(name: str, question: dict[str, Any]) -> dict[str, int | None]:
    command = [sys.executable, "-P", "-c", _CHILD]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, input=json.dumps(question), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        said = re.sub(r"^[\w.]*Error: ", "", last)
        if said.startswith(f"{name} could not run"):
            raise ImpossibleError(said)
        raise ImpossibleError(f"{name} could not run {question['path']}: {said}")
    answer: dict[str, int | None] = json.loads(done.stdout)
    return answer


def answer(question: str) -> None:
    """Measure what a question of `memory_of` asks for; print JSON. In a child."""
    asked = json.loads(question)
    path, threads = Path(asked["path"]), asked["threads"]
    if asked["measure"] == "weights":
        print(json.dumps(_weights(path, threads)))
        return
    inputs = {name: (kind, tuple(s)) for name, (kind, s) in asked["inputs"].items()}
    outputs, backend = tuple(asked["outputs"]), asked["backend"]
    problem = Problem(inputs, outputs, backend=backend)
    system = open_system(asked["name"], path, threads, problem)
    system.run(problem.zeros())
    print(json.dumps({"peak_rss": peak_memory()}))


def _weights(path: Path, threads: int) -> dict[str, int | None]:
    from nnz_kernels.cpu import catalog
    from nnz_service.engine import load
    from nnz_service.engine.heap import trim

    catalog.warm()
    load(_tiny_model(), "cpu", threads).warm()
    before = resident_memory()
    model = load(path, "cpu", threads)
    model.warm()
    gc.collect()
    after = resident_memory()
    trimmed = resident_memory() if trim() else None
    arena = model.plan.arena_bytes
    return {
        key: None if before is None or now is None else now - before - arena
        for key, now in (
            ("resident_weights", after),
            ("resident_weights_trimmed", trimmed),
        )
    }


def _tiny_model() -> bytes:
    """Return a model of one product, through which everything is imported once."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy"
    )
    weights = numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "tiny", [x], [y], [weights])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def resident_memory() -> int | None:
    """Return the bytes that this process has resident now, None without /proc."""
    return _status("VmRSS")


def peak_memory() -> int:
    """Return the most bytes that this process has had resident.

    From /proc where there is one: `getrusage` also counts what the parent held.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(key: str) -> int | None:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return 1024 * int(line.split()[1])
    return None
