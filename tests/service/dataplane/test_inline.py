"""Whose timeout it was: the caller's deadline, or trouble of the handler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from service.dataplane.echo import Echo

from nnz_service.dataplane import Reply, inline
from nnz_service.errors import DeadlineError, ServiceError


class Late(Echo):
    """Fails as a disk or a peer does that takes too long."""

    async def handle(self, *_: Any) -> Reply:
        raise TimeoutError("inner secret")


async def test_a_timer_that_fires_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that has not come to the deadline yet makes no fault of it."""
    monkeypatch.setattr(inline, "time", SimpleNamespace(monotonic=lambda: 0.0))

    with pytest.raises(DeadlineError, match=r"sleep took longer than 0\.01 s"):
        await inline.answer(Echo(), "sleep", {}, {}, 0.01)


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_a_timeout_of_the_handler(seconds: float | None) -> None:
    with pytest.raises(ServiceError) as found:
        await inline.answer(Late(), "infer", {}, {}, seconds)

    assert not isinstance(found.value, DeadlineError)
    assert str(found.value) == "infer failed: TimeoutError"
