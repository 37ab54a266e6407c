"""What crosses between a web process and a worker, and how it is written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one call.

    Args:
        result: Plain JSON.
        tensors: Arrays by name; they may be read-only views of shared memory.
        timings: Seconds spent in each stage, by name (queue, compute, ...).
    """

    result: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer that another thread will give.

    Args:
        future: Ends with an outcome; cancelling it drops the call while it waits.
        reply: Makes a reply of the outcome; quick, on any thread.
    """

    future: Future[Any]
    reply: Callable[[Any], Reply]
