"""Traces of single requests in a file, as the protocol's trace extension has them.

One of every `trace_rate` inferences leaves two records in `NNZ_HOME/traces`: who it
was, and when it passed each station. The form is that of Triton's trace mode
`triton`; the file is a whole JSON array after every record.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from nnz_service import logs
from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.shared_file import SharedFile

_DEFAULTS: dict[str, Any] = {
    "trace_file": "trace.json",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
#: The least value of each number; a count of -1 is one without end.
_NUMBERS = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}
_MOST = 2**31 - 1
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
#: Where the number of the last trace is kept, among the models; no model's name.
_NEXT = " "
_MAX_FILE = 64 << 20  # bytes: some 200,000 requests
_END = b"\n]\n"
#: Where a request is after each stage of the worker.
_STATIONS = {
    "queue": "COMPUTE_START",
    "join": "COMPUTE_INPUT_END",
    "compute": "COMPUTE_OUTPUT_START",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """When a request passed, in nanoseconds of `time.perf_counter_ns`.

    Args:
        arrived: Its first byte.
        asked: When the worker was asked.
        answered: When the worker's answer was there.
        timings: Seconds of the worker's stages: queue, join, compute.
    """

    arrived: int
    asked: int
    answered: int
    timings: Mapping[str, float]

    def timestamps(self, ended: int) -> list[dict[str, Any]]:
        """Return the protocol's stations; the way back counts as output."""
        stations = {"REQUEST_START": self.arrived, "QUEUE_START": self.asked}
        at = self.asked
        for stage, name in _STATIONS.items():
            spent = int(self.timings.get(stage, 0.0) * 1e9)
            at = stations[name] = min(at + spent, self.answered)
        stations["COMPUTE_END"] = self.answered
        stations["REQUEST_END"] = max(ended, self.answered)
        return [{"name": name, "ns": ns} for name, ns in stations.items()]


class Tracing:
    """The trace settings of one server, the same in all of its front doors.

    Args:
        file: Where changes of settings are written down.
        folder: Where traces go; made for the first one.

    Attributes:
        active: Whether any request might be traced. Nothing else need be looked at
            while it is false.
    """

    def __init__(self, file: SharedFile, folder: Path) -> None:
        self.active = False
        self._file = file
        self._folder = folder
        self._followed: Mapping[str, Any] = {}
        self._rates: dict[str, int] = {}  # by model, "" for all others; 0: never
        self._seen: dict[str, int] = {}

    def settings(self, model: str = "") -> dict[str, Any]:
        """Return all settings of one model, or those of all without their own."""
        layers = self._file.read()
        return {**_DEFAULTS, **layers.get("", {}), **(layers.get(model, {}))}

    def change(self, model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Change some settings, of one model or ("") of all; returns all of them.

        Null clears: a model's goes back to that of all, one of all to its default.
        Blocks for a moment.

        Raises:
            MalformedError: A value is not of the setting's form.
            ImpossibleError: There is no such setting or value.
        """
        usable = {name: _checked(name, value) for name, value in asked.items()}
        with self._file.change() as layers:
            layer = layers.setdefault(model, {})
            for name, value in usable.items():
                layer[name] = value
                if value is None:
                    del layer[name]
            if not layer:
                del layers[model]
        self.follow()
        return self.settings(model)

    def follow(self) -> None:
        """Take over what was last asked for, here or in another process."""
        layers = self._file.read()
        if layers == self._followed:
            return
        self._followed = layers
        self._rates = {
            model: _rate(self.settings(model)) for model in {"", *layers} - {_NEXT}
        }
        self._seen = {model: self._seen.get(model, 0) for model in self._rates}
        self.active = any(self._rates.values())

    def samples(self, model: str) -> bool:
        """Count one inference; says whether it is the one to be traced."""
        owner = model if model in self._rates else ""
        rate = self._rates.get(owner, 0)
        if not rate:
            return False
        self._seen[owner] = seen = self._seen.get(owner, 0) + 1
        return seen % rate == 0

    def record(self, model: str, version: str, request: str, passed: Passage) -> None:
        """Write one trace down, unless the count is used up; blocks, never raises."""
        ended = time.perf_counter_ns()
        who = {
            "model_name": model,
            "model_version": int(version),
            "request_id": request,
        }
        try:
            self._write(who, passed.timestamps(ended))
            self.follow()
        except Exception as error:  # a request must not fail for its trace
            logs.logger().warning("a trace was not written", error=str(error))

    def _write(self, who: dict[str, Any], stamps: list[dict[str, Any]]) -> None:
        model = who["model_name"]
        with self._file.change() as layers:
            settings = self.settings(model)
            if not _take_one(layers, model, int(settings["trace_count"])):
                return
            number = layers[_NEXT] = layers.get(_NEXT, 0) + 1
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / settings["trace_file"]
            _append(path, {"id": number, **who}, {"id": number, "timestamps": stamps})


def _take_one(layers: dict[str, Any], model: str, left: int) -> bool:
    """Take one from the count, where it is set; returns whether there was one."""
    if left > 0:
        owner = model if "trace_count" in layers.get(model, {}) else ""
        layers[owner]["trace_count"] = str(left - 1)
    return left != 0


def _rate(settings: Mapping[str, Any]) -> int:
    on = "TIMESTAMPS" in settings["trace_level"] and settings["trace_count"] != "0"
    return int(settings["trace_rate"]) if on else 0


def _append(path: Path, *records: Mapping[str, Any]) -> None:
    """Put records behind the last of a JSON array.

    Raises:
        ImpossibleError: The file is full, or nothing that was written here.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    try:
        size = os.fstat(handle).st_size
        text = b",\n".join(orjson.dumps(record) for record in records) + _END
        if size > _MAX_FILE:
            raise ImpossibleError(f"{path} has reached {_MAX_FILE} bytes; remove it")
        if not size:
            os.pwrite(handle, b"[\n" + text, 0)
            return
        at = size - len(_END)
        if at < 0 or os.pread(handle, len(_END), at) != _END:
            raise ImpossibleError(f"{path} is not a file of traces; remove it")
        # In one piece, so that the array is whole whenever this process ends.
        os.pwrite(handle, b",\n" + text, at)
    finally:
        os.close(handle)


def _checked(name: str, value: object) -> Any:
    """Return a setting in the form in which it is kept.

    Raises:
        MalformedError, ImpossibleError: As `Tracing.change`.
    """
    if name not in _DEFAULTS:
        raise ImpossibleError(
            f"there is no setting {name[:80]!r}; there are {', '.join(_DEFAULTS)}"
        )
    if isinstance(value, list) and len(value) == 1 and name != "trace_level":
        value = value[0]  # some clients send every value as a list
    if value is None:
        return None
    if name in _NUMBERS:
        return _number(name, value)
    if name == "trace_level":
        return _level(value)
    if name == "trace_mode" and value != "triton":
        raise ImpossibleError(
            f"trace_mode is {str(value)[:40]!r}; only triton is switched on here, "
            "OpenTelemetry by NNZ_OTEL_ENDPOINT"
        )
    if name == "trace_file" and not (isinstance(value, str) and _FILE.fullmatch(value)):
        raise ImpossibleError(
            f"trace_file is {str(value)[:80]!r}; it must be a file name of letters, "
            "digits and ._- alone, which is put into the server's folder of traces"
        )
    return value


def _number(name: str, value: object) -> str:
    text = str(value) if isinstance(value, int | str) else ""
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise MalformedError(f"{name} is {str(value)[:40]!r}; it must be a number")
    most = 0 if name == "log_frequency" else _MOST
    if not _NUMBERS[name] <= int(text) <= most:
        raise ImpossibleError(
            f"{name} is {text}; it can be {_NUMBERS[name]} to {most} here"
        )
    return str(int(text))


def _level(value: object) -> list[str]:
    levels = [value] if isinstance(value, str) else value
    if not isinstance(levels, list) or not all(isinstance(v, str) for v in levels):
        raise MalformedError("trace_level must be a list of names")
    if not levels or not set(levels) <= {"OFF", "TIMESTAMPS"}:
        raise ImpossibleError(
            f"trace_level is {str(levels)[:80]}; there are OFF and TIMESTAMPS"
        )
    return ["TIMESTAMPS"] if "TIMESTAMPS" in levels else ["OFF"]
