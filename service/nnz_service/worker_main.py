"""The worker process: one host behind one socket.

Started by the supervisor, `python -m nnz_service.worker_main --home DIR --socket PATH`.
It must not import pydantic, so its settings are arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from nnz_service import logs, scratch, usage
from nnz_service.dataplane import Handler, Listener, Page
from nnz_service.exit_codes import DEVICE_LOST, HUNG, NO_DEVICE
from nnz_service.gateway.controls import follow_log

_BEAT = 1.0  # seconds between signs of life
if TYPE_CHECKING:
    from nnz_service.jobs import Retention
    from nnz_service.worker import Host

#: Seconds in which answers still leave after the device has failed.
LAST_WORDS = 0.3


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    options = _options()
    logs.configure(options.log_level, "worker")
    # numba reads it when it is imported, so everything heavy is imported behind it.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(options.home / "cache" / "numba"))
    return uvloop.run(_serve(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nnz-worker")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--page", type=int)
    parser.add_argument("--hang", type=float, default=120.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--matrix-bytes", type=int, default=_half_of_memory())
    a_quarter = max(_half_of_memory() // 2, 1 << 30)
    parser.add_argument("--lp-bytes", type=int, default=a_quarter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--log-level", default="info")
    for name, kind in (("job-ttl", float), ("job-bytes", int), ("job-keep", int)):
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit code."""
    from nnz_kernels.backends import Backend
    from nnz_kernels.errors import BackendUnavailableError
    from nnz_service.database import catalog_of
    from nnz_service.jobs import SqlStore
    from nnz_service.repository import Repository
    from nnz_service.worker import Host, Sweeper, Toolbox, choose_backend, facts_of

    try:
        backend = choose_backend(options.device)
    except BackendUnavailableError as error:
        print(f"nnz: {error}", file=sys.stderr, flush=True)
        return NO_DEVICE
    logs.logger().info("device", backend=backend.value, **facts_of(backend))
    database = os.environ.get("NNZ_DATABASE_URL")  # a secret: never an argument
    toolbox = Toolbox(
        backend=backend,
        threads=options.threads,
        cache=options.home / "cache",
        matrix_bytes=options.matrix_bytes,
        lp_bytes=options.lp_bytes,
        # The CPU has one; a fall-back to it is no reason to serve nothing.
        precision=options.precision if backend is Backend.CUDA else "fp32",
    )
    page, row = Page(options.page), options.number
    with (
        scratch.below(options.home / "run" / "scratch"),
        closing(Repository(options.home, database_url=database)) as repository,
        closing(SqlStore(catalog_of(options.home, database))) as jobs,
    ):
        host = Host(repository, jobs, toolbox, None, f"worker-{row}", page, row)
        sweeper = Sweeper(repository, jobs, _retention(options))
        if row == 0:
            sweeper.start()
        beat = functools.partial(page.beat, page.workers[row])
        following = asyncio.create_task(follow_log(options.home))
        await _work(host, Listener(options.socket, host), options.hang, beat)
        following.cancel()
        await asyncio.to_thread(sweeper.close)
    return 0


async def _work(
    host: Host, listener: Listener, patience: float, beat: Callable[[], None]
) -> None:
    """Answer until a signal, then end in order; does not return from a lost device."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    listener.start()
    host.start()
    telling = asyncio.create_task(_tell(host))
    beating = asyncio.create_task(_beat(host, patience, beat))

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    host.when_lost(stop)
    await stopped.wait()
    telling.cancel()
    beating.cancel()
    if host.lost:
        await asyncio.sleep(LAST_WORDS)
        # Its context is broken: to take it down in order may fail, or never end.
        sys.stderr.flush()
        os._exit(DEVICE_LOST)
    faulthandler.cancel_dump_traceback_later()
    listener.close()
    await asyncio.to_thread(host.close)


def _half_of_memory() -> int:
    return usage.memory_limit() // 2


def _retention(options: argparse.Namespace) -> Retention:
    from nnz_service.jobs import Retention

    asked = {
        "seconds": options.job_ttl,
        "bytes": options.job_bytes,
        "jobs": options.job_keep,
    }
    return Retention(**{k: v for k, v in asked.items() if v is not None})


async def _beat(host: Host, patience: float, beat: Callable[[], None]) -> None:
    """Show signs of life; end the process when its loop or its device hangs.

    The clock is a thread of C code, so it runs out even when the interpreter is stuck.
    The stacks of all threads go to standard error. A process that is stopped as a whole
    is found by the supervisor, which misses its beat.
    """
    while True:
        if host.busy > patience:
            faulthandler.dump_traceback(all_threads=True)
            os._exit(HUNG)
        faulthandler.dump_traceback_later(patience, exit=True)
        beat()
        await asyncio.sleep(min(_BEAT, patience / 4))


async def _tell(host: Handler) -> None:
    """Say on standard error what the start is busy with, until it is over."""
    started = time.monotonic()
    said = ""
    while not host.ready:
        if host.detail != said and time.monotonic() - started > 1.0:
            said = host.detail
            print(f"nnz: {said}", file=sys.stderr, flush=True)
        await asyncio.sleep(2.0 if said else 0.1)
    seconds = time.monotonic() - started
    print(f"nnz: ready after {seconds:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    # Everything is closed. Taken down with the interpreter, numba's pool of TBB would
    # wait for ever on a machine of one CPU.
    sys.stderr.flush()
    os._exit(code)
