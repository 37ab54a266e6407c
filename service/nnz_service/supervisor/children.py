"""The processes of a server, and keeping them alive.

Signals are taken synchronously, which leaves no race between a child's end and the wait
for it.
"""

from __future__ import annotations

import ctypes
import math
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.dataplane.page import note_start
from nnz_service.exit_codes import NO_DEVICE
from nnz_service.scratch import hold

#: What the supervisor waits for.
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_GRACE = {"web": 10.0, "grpc": 10.0, "worker": 5.0}  # seconds from SIGTERM to SIGKILL
_BACKOFF = (0.2, 10.0)  # seconds before a restart: first, longest
_START = 60.0  # seconds until the first sign of life
_GIVE_UP = 8  # ends in a row without one, and the server ends
_BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM)  # an operator, or the kernel for memory
_LOOK = 1.0  # seconds between looks at the signs of life
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a forked child may not load anything


@dataclass(slots=True)
class Child:
    """One process that is started again when it ends."""

    name: str
    command: list[str]
    kind: str = "worker"
    environment: dict[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    row: Any = None  # of the shared page; its beat is that of the process
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0  # when it is started again
    given_up: bool = False  # killed by us, for it showed no sign of life

    def start(self, environment: dict[str, str]) -> None:
        """Start it in a session of its own: Ctrl-C reaches the supervisor alone."""
        self.started = time.monotonic()
        if self.row is not None:
            note_start(self.row, self.name)
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            self.command,
            pass_fds=self.fds,
            env=environment | self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def hangs(self, patience: float) -> bool:
        """Whether a running process has shown no sign of life for too long."""
        if self.process is None or self.row is None:
            return False
        last = float(self.row["beat"])
        if not last:  # it still imports what it needs
            last, patience = self.started, max(patience, _START)
        return time.monotonic() - last > patience

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it now, and wait until it has."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ended(self) -> int | None:
        """The exit code of a process that ended, once; None otherwise."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        # What has lived, or was ended by somebody, would start well: it is needed again
        # at once, however often that happens.
        lived = self.row is not None and self.row["beat"] != 0
        by_others = code in _BY_OTHERS and not self.given_up
        self.failures = 0 if lived or by_others else self.failures + 1
        self.given_up = False
        self._wait(self.failures)
        return code

    def put_off(self) -> None:
        """Try again later: the machine has no process or memory for it now."""
        self.process = None
        self._wait(_GIVE_UP)

    def _wait(self, failures: int) -> None:
        first, longest = _BACKOFF
        pause = min(first * 2 ** max(0, failures - 1), longest)
        self.due = time.monotonic() + pause


@dataclass(slots=True)
class Supervisor:
    """The children of one server and the environment that they get."""

    children: list[Child]
    environment: dict[str, str]
    runtime: Path
    hang_timeout: float = 120.0
    drain_delay: float = 0.0
    log: Any = field(default_factory=logs.logger)

    def run(self) -> int:
        """Keep the children alive until a signal; returns the exit code."""
        for child in self.children:
            child.start(self.environment)
        while True:
            number = signal.sigtimedwait(SIGNALS, self._pause())
            if number is not None and number.si_signo != signal.SIGCHLD:
                return 0
            self._end_hanging()
            for child in self.children:
                if (code := child.ended()) is not None:
                    self.log.error("process ended", child=child.name, code=code)
                if code == NO_DEVICE:  # it has said why; another would say the same
                    return 1
                if child.failures >= _GIVE_UP:
                    self.log.error("giving up", child=child.name)
                    return 1
            self._restart()

    def stop(self) -> None:
        """End the children: first who takes requests, so that they still are answered.

        A second signal ends all at once.
        """
        doors = [child for child in self.children if child.kind != "worker"]
        workers = [child for child in self.children if child.kind == "worker"]
        hurry = self._end(doors, self.drain_delay, hurry=False)
        self._end(workers, 0.0, hurry=hurry)

    def _end(self, children: list[Child], more: float, *, hurry: bool) -> bool:
        """SIGTERM, then SIGKILL when it lasts; returns whether there is a hurry."""
        running = [child for child in children if child.process is not None]
        for child in running:
            child.signal(signal.SIGTERM)
        grace = max((_GRACE[child.kind] for child in running), default=0.0)
        until = time.monotonic() + grace + more
        while not hurry and any(child.alive for child in running):
            left = until - time.monotonic()
            number = signal.sigtimedwait(SIGNALS, max(left, 0))
            hurry = number is not None and number.si_signo != signal.SIGCHLD
            if left <= 0:
                break
        for child in running:
            if child.alive and not hurry:
                self.log.warning("killed, it did not end", child=child.name)
            child.kill()
        return hurry

    def _end_hanging(self) -> None:
        for child in self.children:
            if child.hangs(self.hang_timeout):
                self.log.error("no sign of life, it is replaced", child=child.name)
                child.given_up = True
                child.signal(signal.SIGKILL)

    def _pause(self) -> float:
        dues = [child.due for child in self.children if child.process is None]
        next_due = min(dues, default=math.inf) - time.monotonic()
        return min(max(0.0, next_due), _LOOK)

    def _restart(self) -> None:
        for child in self.children:
            if child.process is None and time.monotonic() >= child.due:
                try:
                    self._hold_runtime()
                    child.start(self.environment)
                except OSError as error:  # who still runs goes on serving
                    self.log.error("not started", child=child.name, reason=str(error))
                    child.put_off()

    def _hold_runtime(self) -> None:
        """Make the folder again: machines that run for long clean temporary ones."""
        if not self.runtime.is_dir():
            self.runtime.mkdir(mode=0o700)
            hold(self.runtime)


def _die_with_parent() -> None:
    """In the forked child: end when the supervisor ends, and take signals again."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
