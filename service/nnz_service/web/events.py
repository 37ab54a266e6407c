"""Changes of a job as server-sent events (WHATWG HTML, 9.2).

Each event carries the whole job, so that one that was missed is no loss: `status` when
that has changed, `progress` otherwise, and `end` as the last. Their ids are the job's
revisions, which a client sends back as `Last-Event-ID`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nnz_service.errors import NotFoundError
from nnz_service.gateway import Parts
from nnz_service.jobs import Job
from nnz_service.web.job_views import plain

#: Seconds without a change after which a comment shows that both ends are there.
HEARTBEAT = 10.0
#: Milliseconds after which a client may come back to a stream that was cut.
_RETRY = b"retry: 1000\n\n"


class EventStream(StreamingResponse):
    """The answer of a watched job; holds a seat among those who watch.

    Args:
        parts: Where changes come from.
        job: As it is now.
        seen: Revision that the caller knows, 0 for none.
        seconds: After which the stream ends and the caller may come back.
    """

    media_type = "text/event-stream"

    def __init__(self, parts: Parts, job: Job, seen: int, seconds: float) -> None:
        # Proxies must neither keep nor gather it.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_events(parts, job, seen, seconds), headers=headers)
        self._watch = parts.watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the job ends or the client leaves.

        Raises:
            OverloadedError: Too many watch already; nothing was sent.
        """
        with self._watch.seat():
            await super().__call__(scope, receive, send)


async def _events(
    parts: Parts, job: Job, seen: int, seconds: float
) -> AsyncIterator[bytes]:
    until = time.monotonic() + seconds
    status, known = None, job.revision
    if seen >= known:
        yield b":\n\n"  # nothing new: the head of the answer leaves at once
    else:
        yield _event(parts, job, status)
        status = job.status
    while not job.status.ended:
        left = until - time.monotonic()
        if left <= 0 or parts.drain.begun:
            yield _RETRY
            return
        try:
            newer = await parts.watch.change(job.id, known, min(HEARTBEAT, left))
        except NotFoundError:  # deleted, which only an ended job can be
            return
        if newer is None:
            yield b":\n\n"
            continue
        job, known = newer, newer.revision
        yield _event(parts, job, status)
        status = job.status


def _event(parts: Parts, job: Job, before: str | None) -> bytes:
    name = "end" if job.status.ended else "progress"
    if name == "progress" and job.status != before:
        name = "status"
    data = orjson.dumps(plain(parts, job))
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), job.revision, data)
