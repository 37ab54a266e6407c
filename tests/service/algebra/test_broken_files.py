"""Readers of matrix files under broken ones; `soak` has more of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

from service.algebra.broken_files import check_refusal, look_at, spoil, whole_files

CASES = 400


def test_each_is_read_or_refused(tmp_path: Path) -> None:
    """A refusal says which line, entry or member is at fault."""
    files, path = whole_files(), tmp_path / "file"
    for kind, content in files:
        path.write_bytes(content)
        assert look_at(path, kind) is None, kind
    refused = 0
    for number in range(CASES):
        rng = Random(number)  # noqa: S311 - no secret
        kind, content = rng.choice(files)
        path.write_bytes(spoil(rng, content))
        if (fault := look_at(path, kind)) is not None:
            refused += 1
            check_refusal(fault, kind)
    assert CASES // 4 < refused < CASES
