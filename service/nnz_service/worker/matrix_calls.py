"""Calls about one resident matrix: facts, a picture, other values, a fixed place."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Servable
from nnz_service.worker.calls import Params, text_of
from nnz_service.worker.looks import described, drawn
from nnz_service.worker.servables import Entry, Registry
from nnz_service.worker.values import revalued

#: Calls that look at all entries at the same time: each takes memory like its matrix.
AT_ONCE = 2
_Answer = Callable[[Params, Tensors, float | None], Awaitable[Reply]]


class MatrixCalls:
    """What a worker answers about matrices.

    Args:
        find: Gives a servable by the parameters of a call, loaded when it is not.
        registry: Where matrices are pinned.
    """

    def __init__(
        self, find: Callable[[Params], Awaitable[Entry]], registry: Registry
    ) -> None:
        self._find = find
        self._registry = registry
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look")
        self.answers: dict[str, _Answer] = {
            "describe": self._apart(lambda one, params, _: described(one, params)),
            "spy": self._apart(lambda one, params, _: drawn(one, params)),
            "revalue": self._apart(revalued),
            "pin": self._pin,
        }

    def _apart(self, work: Callable[[Servable, Params, Tensors], Reply]) -> _Answer:
        """Answer by work that takes a while, and memory, on a thread."""

        async def answer(params: Params, tensors: Tensors, _: float | None) -> Reply:
            entry = await self._find(params)
            run = contextvars.copy_context().run
            asked = partial(run, work, entry.ready, params, tensors)
            return await asyncio.get_running_loop().run_in_executor(self._pool, asked)

        return answer

    async def _pin(self, params: Params, tensors: Tensors, _: float | None) -> Reply:
        on = params.get("pinned")
        if not isinstance(on, bool):
            raise InvalidInputError(f"pinned is {on!r}, but must be true or false")
        if on:
            await self._find(params)
        self._registry.pin(text_of(params, "name"), on)
        return Reply()
