"""A process that has imported what tasks need, and does each in a copy of itself.

For what may end with a crash, or needs a sanitizer's runtime in the process: to start
Python and import everything takes longer than most of these tasks.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple, Self

#: Exit statuses of a task: it found something wrong, or could not do its work.
FOUND, FAILED = 3, 4

_FAULTS = (
    signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV,
)  # fmt: skip

#: Seconds of a task.
PATIENCE = 250


class Done(NamedTuple):
    """How a task ended: its status, or minus the signal's number; and what it said."""

    status: int
    said: str

    @property
    def crashed(self) -> bool:
        """Whether a fault ended it; to take too long is none."""
        return -self.status in _FAULTS


class Forge:
    """The process, from outside.

    Args:
        module: Whose functions are the tasks; each takes strings.
        environment: Added to this process's own.
    """

    def __init__(self, module: str, **environment: str) -> None:
        root = Path(__file__).parents[2]
        paths = (root / "tests", root / "kernels", root / "service")
        code = "import sys; from cuda_emulator.forge import serve; serve(sys.argv[1])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, module],
            env={
                **os.environ, "PYTHONPATH": ":".join(map(str, paths)),
                "OPENBLAS_NUM_THREADS": "1", **environment,
            },
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def run(self, *task: str) -> Done:
        """Do a task: the name of a function and its arguments."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)
        return Done(*json.loads(self._process.stdout.readline()))


def serve(module: str) -> None:
    """Do what comes in lines, one after the other."""
    tasks = importlib.import_module(module)
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as said:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                _do(tasks, *json.loads(line))
            _, status = os.waitpid(child, 0)
            said.seek(0)
            answer = os.waitstatus_to_exitcode(status), said.read()
        print(json.dumps(answer), flush=True)


def _do(tasks: object, name: str, *arguments: str) -> None:
    signal.alarm(PATIENCE)
    status = 0
    try:
        getattr(tasks, name)(*arguments)
    except AssertionError as exc:
        print(exc)
        status = FOUND
    except BaseException:  # whatever it is, the copy must end here
        traceback.print_exc()
        status = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
