"""Four times as many requests as can be served: as many are served as at the peak."""

from __future__ import annotations

import time

import pytest
import scipy.sparse as sp
from service.processes import living, resident, until
from soak.conftest import Serve, idle, put
from soak.crowd import Crowd, Tally
from soak.duration import SECONDS
from soak.load import callers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 2 + 600)]

#: Callers who together keep the server busy, and slots, which they do not fill.
CALLERS, SLOTS = 16, 20
TIMES = 4
#: Peak and overload in turns, since others may use the machine too.
ROUNDS = 4
#: Goodput, of the peak: when a refused caller waits as it is told, and when it asks
#: again at once, so that the server does hardly anything but refuse.
FLOOR, HAMMERED = (0.85, 0.4) if SECONDS > 60 else (0.7, 0.3)


def test_goodput(serve: Serve, a: sp.csr_array) -> None:
    """The rest is refused at once, nobody waits in vain, and nothing grows."""
    server = serve(max_inflight=SLOTS)
    host, port = server.url.removeprefix("http://").split(":")
    crowd = Crowd((host, int(port)), a, put(server, a))
    seconds = min(SECONDS, 300.0) / ROUNDS
    half, peak, flood, storm = Tally(), Tally(), Tally(), Tally()

    crowd.run(TIMES * CALLERS, 2.0, Tally())  # what grows once has grown
    crowd.run(CALLERS // 2, 2.0, half)
    before = {name: resident(pid) for name, pid in living(server.process.pid)}
    for _ in range(ROUNDS):
        until(lambda: idle(server))  # of those who have just left
        crowd.run(CALLERS, seconds, peak)
        crowd.run(TIMES * CALLERS, seconds, flood, polite=True)
        crowd.run(TIMES * CALLERS, seconds, storm)
    after = {name: resident(pid) for name, pid in living(server.process.pid)}

    goodput, hammered = flood.rate / peak.rate, storm.rate / peak.rate
    growth = {name: round(after[name] / before[name], 3) for name in before}
    print(f"{CALLERS // 2} callers: {half}; {CALLERS}: {peak}")
    print(f"{TIMES * CALLERS} callers: {flood}: goodput {goodput:.2f}")
    print(f"who do not wait: {storm}: goodput {hammered:.2f}; RSS x {growth}")
    for tally in (half, peak, flood, storm):
        assert tally.wrong == tally.late == 0
        assert tally.codes.keys() <= {200, 429, 503, 504}
    assert peak.codes.keys() == {200}
    assert flood.codes[429] > 0
    assert goodput > FLOOR
    assert hammered > HAMMERED
    assert max(growth.values()) < 1.1


def test_a_crowd_that_comes_at_once(serve: Serve, a: sp.csr_array) -> None:
    """While others keep the server busy, many new connections are answered in time."""
    server = serve()
    host, port = server.url.removeprefix("http://").split(":")
    name = put(server, a)
    newcomers = Tally()

    with callers(server.url, a, name, number=CALLERS) as counts:
        time.sleep(1.0)
        Crowd((host, int(port)), a, name).run(100, 4.0, newcomers)

    print(f"100 newcomers: {newcomers}; who was there: {counts}")
    assert newcomers.wrong == newcomers.late == 0
    assert counts.faultless()
