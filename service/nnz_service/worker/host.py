"""The worker itself: answers the calls of the dataplane, in a process or inline."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from nnz_kernels.backends import Backend
from nnz_kernels.errors import DeviceLostError
from nnz_service import logs, usage
from nnz_service.dataplane import Page, Pending, Reply, Tensors, is_big
from nnz_service.errors import (
    DatabaseAwayError,
    MalformedError,
    NotFoundError,
    NotLoadedError,
    UnavailableError,
)
from nnz_service.jobs import JobStore
from nnz_service.repository import MatrixRecord, Repository, is_matrix_id
from nnz_service.servable import Servable
from nnz_service.worker.batcher import Limits
from nnz_service.worker.calls import Params, check_tensors, text_of
from nnz_service.worker.chains import sparse_answers
from nnz_service.worker.computing import KINDS, Computing, target
from nnz_service.worker.guarded import LEFT_OUT, Guarded
from nnz_service.worker.health import Watch
from nnz_service.worker.matrix_calls import MatrixCalls
from nnz_service.worker.meter import Meter
from nnz_service.worker.runner import JobRunner
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.servables import Entry, Registry, State, metadata
from nnz_service.worker.sparse_calls import recorded
from nnz_service.worker.toolbox import Toolbox

#: Nanoseconds of work for which no thread is woken.
_QUICK = 100_000
T = TypeVar("T")
Answer = Callable[[Params, Tensors, float | None], Awaitable[Reply]]


class Host:
    """Resident servables, the queue and the jobs of one device.

    Args:
        repository: What is stored.
        jobs: Where jobs are.
        toolbox: How to load and compute.
        limits: Bounds on a batch.
        name: What claims of jobs carry; a new host of that name takes them over.
        page: Where to say what waits and what runs; its own when nobody looks.
        row: Of this worker on the page.
    """

    def __init__(
        self,
        repository: Repository,
        jobs: JobStore,
        toolbox: Toolbox,
        limits: Limits | None = None,
        name: str = "worker-0",
        page: Page | None = None,
        row: int = 0,
    ) -> None:
        self._page = page or Page()
        self._row = row
        self._page.mark(row, ())
        self._repository = repository
        self._toolbox = toolbox
        # A device of its own has a thread of its own.
        quick = _QUICK if toolbox.backend is Backend.CPU else 0
        self._scheduler = Scheduler(limits, quick=quick)
        notes = repository.home / "run" / f"loads-{name}.json"
        self._guarded = Guarded(toolbox, notes, self._scheduler.lose)
        self._registry = Registry(self._guarded.load, toolbox.matrix_bytes)
        self._computing = Computing(toolbox)
        self._meter = Meter(self._page, repository.home)
        self._runner = JobRunner(
            jobs, repository.blobs, toolbox, self._scheduler, self._matrix,
            partial(recorded, repository), name, partial(self._meter.charge, "jobs"),
        )  # fmt: skip
        self._watch = Watch(self._scheduler, toolbox.check)
        self._lost = threading.Event()
        self._tell_lost: Callable[[], None] = lambda: None
        self._scheduler.on_lost = self._lose
        self._scheduler.on_queue = self._publish_waiting
        self._scheduler.on_change = self._publish
        self._scheduler.on_work = partial(self._meter.charge, "requests")
        self._state = "starting"
        self._closing = threading.Event()
        self._settled = threading.Event()
        self._starter = threading.Thread(target=self._start_up, name="start-up")
        self._answers: dict[str, Answer] = {
            "ping": self._ping,
            "devices": self._devices,
            "load": self._load,
            "unload": self._unload,
            "index": self._index,
            "infer": partial(self._compute, "infer"),
            "metadata": self._metadata,
            "explain": self._explain,
            "op": partial(self._compute, "op"),
            **sparse_answers(self._entry, self._scheduler, repository.blobs),
            "stats": self._stats,
            "wake": self._wake,
            **MatrixCalls(self._entry, self._registry).answers,
        }

    # Life

    @property
    def ready(self) -> bool:
        """Whether kernels are compiled and everything wanted was tried to load."""
        return self._state == "ready"

    @property
    def lost(self) -> bool:
        """Whether the device failed for good: another process has to take over."""
        return self._lost.is_set()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have *tell* called, from any thread, when the device fails for good."""
        self._tell_lost = tell
        if self.lost:
            tell()

    @property
    def detail(self) -> str:
        """What it is doing, for people."""
        return self._state

    def wait(self, seconds: float) -> bool:
        """Wait until the start is over; returns whether it is ready."""
        self._settled.wait(seconds)
        return self.ready

    def start(self) -> None:
        """Start the device thread and, behind it, the rest; returns at once."""
        self._scheduler.start()
        self._starter.start()

    def close(self) -> None:
        """Checkpoint jobs, fail what waits, end every thread."""
        self._state = "stopping"
        self._guarded.leave()
        self._closing.set()
        if self._starter.ident is not None:
            self._starter.join()
        self._state = "stopped"
        self._watch.close()
        self._runner.close()
        self._scheduler.close()
        self._registry.close()

    def _start_up(self) -> None:
        try:
            self._toolbox.warm(self._report)
            for record in self._patiently(self._repository.models):
                if self._closing.is_set() or self.lost:
                    return
                self._begun(record.name, record.version)
            for matrix in self._patiently(self._repository.pinned):
                self._stored(matrix)
            if not self._closing.is_set() and not self.lost:
                if self._toolbox.compile_first:  # else the first check would
                    self._toolbox.check()
                    self._watch.start()
                self._runner.start()
                self._state = "ready"
        except DeviceLostError:
            logs.logger().exception("the device is lost")
            self._scheduler.lose()
        except Exception:  # say so and stay not ready, so that somebody can look
            if not self._closing.is_set():
                self._state = "start-up failed, see the log of the worker"
                logs.logger().exception("start-up failed")
        finally:
            self._settled.set()

    @property
    def busy(self) -> float:
        """Seconds that the work on the device has taken so far; 0 when it is idle."""
        return self._scheduler.busy

    def _publish(self, tokens: Sequence[int]) -> None:
        self._page.mark(self._row, tokens)
        self._publish_waiting()

    def _publish_waiting(self) -> None:
        self._page.wait(self._row, self._scheduler.depth, self._scheduler.backlog)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do what needs the database, as soon as it can be reached."""
        while True:
            try:
                return work()
            except DatabaseAwayError as error:
                self._state = str(error)
                if self._closing.wait(1.0):
                    raise

    def _lose(self) -> None:
        self._state = "the device failed"
        self._lost.set()
        self._tell_lost()

    def _begun(self, name: str, version: str) -> None:
        """Begin to load a model; what is the matter with one is none of the others'."""
        try:
            self._patiently(partial(self._begin, name, version))
        except NotFoundError:
            return  # removed meanwhile
        except (DeviceLostError, DatabaseAwayError):
            raise
        except Exception as error:
            logs.logger().exception("not loaded", name=name, version=version)
            self._registry.refuse("model", name, version, f"not loaded: {error}")

    def _begin(self, name: str, version: str) -> None:
        record = self._repository.model(name, version)
        if record.reason is not None:
            self._registry.refuse("model", name, version, record.reason)
        elif record.wanted and self._guarded.refuses(record.path):
            self._registry.refuse("model", name, version, LEFT_OUT)
            logs.logger().error("left out", name=name, version=version)
        elif record.wanted:
            self._state = f"loading {name} version {version}"
            entry = self._registry.load("model", name, version, record.path)
            if (error := entry.loaded.exception()) is not None:
                logs.logger().warning("not loaded", name=name, reason=str(error))

    def _report(self, done: int, total: int, name: str) -> None:
        if self._closing.is_set():
            raise UnavailableError("the server is stopping")
        self._state = f"compiling kernels, {done} of {total} ready ({name})"

    # Calls

    async def handle(
        self, kind: str, params: Params, tensors: Tensors, deadline: float | None
    ) -> Reply:
        """Answer one call; see `Dataplane` for the kinds.

        Raises:
            ServiceError: what the caller did wrong, or why it cannot be done now.
        """
        answer = self._answers.get(kind)
        if answer is None:
            raise NotFoundError(f"there is no call {kind!r}; {[*self._answers]} are")
        return await answer(params, tensors, deadline)

    async def _ping(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        return Reply({"ready": self.ready, "detail": self.detail, "pid": os.getpid()})

    async def _devices(
        self, params: Params, tensors: Tensors, _: float | None
    ) -> Reply:
        return Reply({"devices": await asyncio.to_thread(self._toolbox.devices)})

    async def _load(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        kind, name = text_of(params, "kind"), text_of(params, "name")
        version, path = text_of(params, "version"), Path(text_of(params, "path"))
        if kind not in {"model", "matrix"} or not version.isdecimal():
            raise MalformedError(f"cannot load a {kind!r} of version {version!r}")
        pinned = params.get("pinned", False) is True
        entry = self._registry.load(kind, name, version, path, pinned=pinned)
        await asyncio.shield(asyncio.wrap_future(entry.loaded))
        return Reply(metadata(entry, self._versions(name)))

    async def _unload(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        count = self._registry.unload(text_of(params, "name"), params.get("version"))
        return Reply({"unloaded": count})

    async def _index(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        return Reply({"models": [entry.to_json() for entry in self._registry.index()]})

    async def _metadata(
        self, params: Params, tensors: Tensors, _: float | None
    ) -> Reply:
        entry = await self._entry(params)
        return Reply(metadata(entry, self._versions(entry.name)))

    async def _explain(
        self, params: Params, tensors: Tensors, _: float | None
    ) -> Reply:
        entry = await self._entry(params)
        return Reply({"rows": await asyncio.to_thread(entry.ready.explain)})

    async def _stats(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        name, version = params.get("name"), params.get("version")
        if name is not None:
            self._registry.find(name, version)  # refuse what is not there
        rows = [
            entry.counters.to_json(entry.name, entry.version, entry.nbytes)
            | {"pending": self._scheduler.waiting(entry.counters)}
            for entry in self._registry.index()
            if name in (None, entry.name) and version in (None, entry.version)
        ]
        scheduler = {
            "queued": self._scheduler.depth,
            "backlog_ns": self._scheduler.backlog,
            "jobs": self._runner.running,
        }
        facts = usage.process_facts() | {"gpu": self._toolbox.gpu_memory()}
        return Reply(
            {
                "model_stats": rows,
                "scheduler": scheduler,
                "processes": [facts],
                "resident": self._registry.residents(),
                "usage": self._meter.to_json(),
            }
        )

    async def _wake(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        self._runner.wake()
        return Reply()

    def begin(
        self, kind: str, params: Params, tensors: Tensors, deadline: float | None
    ) -> Pending | None:
        """See `Handler`: what is small and for something resident need not wait."""
        if kind not in KINDS or is_big(tensors):
            return None
        entry = None
        if (named := target(kind, params)) is not None:
            entry = self._registry.resident(named["name"], named.get("version"))
            if entry is None:
                return None
        work = self._computing.work(kind, params, tensors, entry, deadline)
        work.ticket.servable.check(work.ticket.tensors)
        return Pending(self._scheduler.submit(work.ticket), work.reply)

    async def _compute(
        self, kind: str, params: Params, tensors: Tensors, deadline: float | None
    ) -> Reply:
        named = target(kind, params)
        entry = None if named is None else await self._entry(named)
        work = self._computing.work(kind, params, tensors, entry, deadline)
        await check_tensors(work.ticket.servable, work.ticket.tensors)
        future = self._scheduler.submit(work.ticket)
        return work.reply(await asyncio.wrap_future(future))

    async def _entry(self, params: Params) -> Entry:
        name, version = text_of(params, "name"), params.get("version")
        try:
            entry = self._registry.find(name, version)
        except NotFoundError:
            entry = await asyncio.to_thread(self._find_stored, name, version)
        else:
            # A start takes long, a change of models does not: then who asks may wait.
            waits = entry.kind == "matrix" or self.ready
            if entry.may_recover:
                entry = await asyncio.to_thread(self._find_stored, name, version)
            elif entry.state is not State.LOADING or not waits:
                return entry
        while not self._registry.join(entry):
            entry = await asyncio.to_thread(self._find_stored, name, version)
        try:
            await asyncio.shield(asyncio.wrap_future(entry.loaded))
        finally:
            self._registry.leave(entry)
        return entry

    def _find_stored(self, name: str, version: str | None) -> Entry:
        """Start to load a stored matrix; say why a stored model is not resident."""
        if is_matrix_id(name) and version in (None, "1"):
            return self._stored(self._repository.matrix(name))
        record = self._repository.model(name, version)
        error = NotLoadedError if self.ready else UnavailableError
        raise error(
            f"model {name!r} version {record.version} is not loaded; "
            f"POST /v2/repository/models/{name}/load loads it"
        )

    def _stored(self, matrix: MatrixRecord) -> Entry:
        pinned = bool(matrix.pinned)
        return self._registry.load(
            "matrix", matrix.id, "1", matrix.path, pinned=pinned, passing=not pinned
        )

    def _matrix(self, name: str) -> Servable:
        """A resident matrix, loaded when it is not; blocks."""
        entry = None
        while entry is None or not self._registry.join(entry):
            entry = self._stored(self._repository.matrix(name))
        try:
            entry.loaded.result()
        finally:
            self._registry.leave(entry)
        return entry.ready

    def _versions(self, name: str) -> list[str]:
        return [e.version for e in self._registry.index() if e.name == name]
