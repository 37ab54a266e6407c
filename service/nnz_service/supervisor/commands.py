"""How each process of a server is started."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from nnz_service.dataplane import Page
from nnz_service.hardware import gpus
from nnz_service.settings import Settings
from nnz_service.supervisor.children import Child

_PYTHON = (sys.executable, "-m")


def workers_of(
    settings: Settings, home: Path, pipe: Path, page: Page
) -> dict[Path, Child]:
    """Return the workers by their sockets: one a GPU, or as many as are asked for."""
    # Without CuPy each of them would be one more worker on the CPU.
    usable = settings.device != "cpu" and importlib.util.find_spec("cupy") is not None
    cards = gpus(os.environ) if usable else ()
    count = settings.workers or max(len(cards), 1)
    given = (
        ("threads", settings.threads),
        ("matrix-bytes", settings.matrix_bytes),
        ("lp-bytes", settings.lp_bytes),
    )
    words = (("--" + name, str(value)) for name, value in given if value is not None)
    more_words = [word for pair in words for word in pair]
    workers = {}
    for number in range(count):
        path = pipe if count == 1 else pipe.with_name(f"{pipe.name}{number}")
        command = [
            *(*_PYTHON, "nnz_service.worker_main", "--home", str(home)),
            *("--socket", str(path), "--number", str(number)),
            *("--page", str(page.fd), "--hang", str(settings.hang_timeout)),
            *("--log-level", settings.log_level, "--device", settings.device),
            *("--precision", settings.precision, *more_words),
            *("--job-ttl", str(settings.job_ttl), "--job-bytes"),
            *(str(settings.job_bytes), "--job-keep", str(settings.job_keep)),
        ]
        # What computes has no business with the key.
        more = {"NNZ_API_KEY": ""}
        if cards:
            more["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
        name = "worker" if count == 1 else f"worker {number}"
        row = page.workers[number]
        workers[path] = Child(name, command, "worker", more, (page.fd,), row)
    return workers


def doors_of(
    settings: Settings, fd: int, grpc: str | None, pipes: list[Path], page: Page
) -> list[Child]:
    """Return the processes that take requests; those of HTTP share one socket."""
    sockets = [word for path in pipes for word in ("--worker", str(path))]
    doors = []
    for number in range(settings.web):
        command = [
            *(*_PYTHON, "nnz_service.web_main", "--fd", str(fd), *sockets),
            *("--page", str(page.fd), "--row", str(number)),
        ]
        name = "web" if settings.web == 1 else f"web {number}"
        row = page.doors[number]
        doors.append(Child(name, command, "web", {}, (fd, page.fd), row))
    if grpc is not None:
        command = [
            *(*_PYTHON, "nnz_service.grpc_main", "--address", grpc, *sockets),
            *("--page", str(page.fd), "--row", str(settings.web)),
        ]
        row = page.doors[settings.web]
        doors.append(Child("grpc", command, "grpc", {}, (page.fd,), row))
    return doors
