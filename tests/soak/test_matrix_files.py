"""Matrix files that are broken anywhere, by the thousand: a matrix or a clear refusal.

The readers are called directly, in this process: what would crash one ends the test.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from service.algebra.broken_files import check_refusal, look_at, spoil, whole_files
from soak.duration import CASES, SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + CASES / 20)]

#: Of all cases.
SHARE = CASES // 2
#: Seconds that no file of a few hundred bytes may take.
BOUND = 10.0


def test_broken_files(folder: Path) -> None:
    files, path = whole_files(), folder / "file"
    read: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    slowest = 0.0

    for number in range(SHARE):
        rng = Random(f"{SEED}:{number}")  # noqa: S311 - no secret
        kind, content = rng.choice(files)
        broken = spoil(rng, content)
        path.write_bytes(broken)
        began = time.monotonic()
        try:
            fault = look_at(path, kind)
            if fault is not None:
                check_refusal(fault, kind)
        except Exception as error:
            about = f"seed {SEED}, case {number}, {kind}, {broken!r}"
            raise AssertionError(about) from error
        (read if fault is None else refused)[kind.partition(";")[0]] += 1
        slowest = max(slowest, time.monotonic() - began)

    print(f"seed {SEED}: {read} read, {refused} refused, slowest {slowest:.2f} s")
    assert refused.total() > SHARE // 4
    assert read.total() > SHARE // 50
    assert read.keys() == refused.keys()
    assert slowest < BOUND
