"""Calls that outlive a worker: asked again of its successor, unless they ended it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from nnz_service import logs
from nnz_service.dataplane.messages import Reply, Tensors
from nnz_service.dataplane.page import Page
from nnz_service.errors import DeadlyRequestError, WorkerLostError

if TYPE_CHECKING:
    from nnz_service.dataplane import Dataplane

#: Calls that change nothing, so that asking twice is as good as asking once.
_REPEATABLE = frozenset(
    {
        "infer", "op", "sparse", "chain", "metadata", "explain", "describe", "spy",
        "revalue", "devices", "index",
    }
)  # fmt: skip
#: Calls that run on the device; only these can be blamed.
_COMPUTING = frozenset({"infer", "op", "sparse", "chain"})
_PATIENCE = 15.0  # seconds in which a lost worker's successor should be ready
_LOOK = 0.02  # seconds between looks at it
_REFUSAL = 600.0  # seconds for which a request that ended two workers is refused
_SOON = 1.0  # Retry-After when nobody knows better


class SteadyDataplane:
    """A `Dataplane` that asks once more what was lost with a worker.

    The worker marks on the page which requests it computes. A request that was computed
    when its worker ended runs alone the second time, so that it can take nobody with it
    again; if that worker ends too the request is refused from then on. The others,
    which only waited, are asked again as they were.

    Args:
        inner: The way to one worker, or to several.
        page: Where workers mark what they compute.
    """

    def __init__(self, inner: Dataplane, page: Page) -> None:
        self._inner = inner
        self._page = page
        self._tokens = itertools.count((os.getpid() << 32) + 1)
        self._began = False  # whether the worker was ever ready

    @property
    def ready(self) -> bool:
        """See `Dataplane`."""
        return self._inner.ready

    @property
    def detail(self) -> str:
        """See `Dataplane`."""
        return self._inner.detail

    async def start(self) -> None:
        """See `Dataplane`."""
        await self._inner.start()

    async def close(self) -> None:
        """See `Dataplane`."""
        await self._inner.close()

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the worker must know it too
    ) -> Reply:
        """See `Dataplane`.

        Raises:
            DeadlyRequestError: The same request has ended two workers.
        """
        until = None if timeout is None else time.monotonic() + timeout
        if kind in _COMPUTING:
            if self._page.refuses:
                await self._refuse_deadly(kind, params, tensors)
            params = {**params, "token": next(self._tokens)}
        self._began = self._began or self.ready
        try:
            return await self._inner.call(kind, params, tensors, timeout=timeout)
        except WorkerLostError:
            if kind not in _REPEATABLE or not self._began:
                raise
            blamed = self._page.marked(params.get("token", 0))
        await self._wait(until)
        if blamed:
            logs.logger().warning("asked again, alone", kind=kind, name=_name(params))
            return await self._alone(kind, params, tensors, until)
        return await self._inner.call(kind, params, tensors, timeout=_left(until))

    async def _alone(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None,
        until: float | None,
    ) -> Reply:
        """Ask once more, joined with nobody: now the end of the worker is its fault."""
        again = {**params, "token": next(self._tokens), "alone": True}
        try:
            return await self._inner.call(kind, again, tensors, timeout=_left(until))
        except WorkerLostError:
            if not self._page.marked(again["token"]):
                raise
        logs.logger().error("refused from now on", kind=kind, name=_name(params))
        fingerprint = await asyncio.to_thread(_fingerprint, kind, params, tensors)
        self._page.refuse(fingerprint, _REFUSAL)
        raise _deadly()

    async def _wait(self, until: float | None) -> None:
        """Wait for the successor.

        Raises:
            WorkerLostError: It takes too long.
        """
        patience = time.monotonic() + _PATIENCE
        limit = patience if until is None else min(patience, until)
        while not self._inner.ready:
            if time.monotonic() > limit:
                raise WorkerLostError(
                    "the worker ended while it held this request, and another is not "
                    "ready yet",
                    retry_after=_SOON,
                )
            await asyncio.sleep(_LOOK)

    async def _refuse_deadly(
        self, kind: str, params: Mapping[str, Any], tensors: Tensors | None
    ) -> None:
        found = await asyncio.to_thread(_fingerprint, kind, params, tensors)
        if self._page.refused(found):
            raise _deadly()


def _deadly() -> DeadlyRequestError:
    return DeadlyRequestError(
        "this request has ended the worker twice; it is refused for "
        f"{_REFUSAL / 60:g} minutes. The server's log has more"
    )


def _fingerprint(kind: str, params: Mapping[str, Any], tensors: Tensors | None) -> int:
    """Hash of what is computed: the same for the same request of anybody."""
    asked = {k: v for k, v in params.items() if k not in {"token", "owner", "priority"}}
    digest = hashlib.blake2b(digest_size=8)
    digest.update(orjson.dumps([kind, asked], option=orjson.OPT_SORT_KEYS))
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(orjson.dumps([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest(), "little")


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _name(params: Mapping[str, Any]) -> str:
    return str(params.get("name") or params.get("matrix") or params.get("op"))
