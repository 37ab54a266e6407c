"""Who looks at the clock of the wall, which somebody may set, and why they must."""

from __future__ import annotations

import re
from pathlib import Path

import nnz_service

#: Everything else measures time by `time.monotonic` or `perf_counter`.
REASONS = {
    "cli/_machine.py": "the date of a report",
    "cli/keys.py": "whether a key that is listed has expired",
    "jobs/memory.py": "dates of jobs, for callers",
    "jobs/sql.py": "dates of jobs, which outlive the machine's uptime",
    "keys/audit.py": "dates of lines",
    "keys/file.py": "dates of keys; rows of expired ones are used again",
    "keys/keyring.py": "keys expire at a date",
    "repository/blobs.py": "ages of files; the sweeper notices when the clock was set",
    "repository/catalog.py": "dates of models and matrices",
    "repository/uploads.py": "age of what comes in pieces, from its file's date",
    "supervisor/places.py": "age of a folder that nobody holds, at the start",
    "web/job_views.py": "the date at which a job may be finished",
    "worker/statistics.py": "the date of the last inference, as the protocol has it",
    "worker/sweeper.py": "results are kept until a date; it notices jumps",
}
WALL = re.compile(
    r"\btime\.time\b|\btime_ns\(\)|\bdatetime\.|\bst_mtime\b|CLOCK_REALTIME|func\.now"
    r"|CURRENT_TIMESTAMP|\blocaltime\b|\bgmtime\b"
)
#: A count of the processor, not of the wall.
NOT_WALL = re.compile(r"(perf_counter|monotonic)_ns\(\)")


def test_every_look_at_the_wall_is_known() -> None:
    """A new one is written down here with its reason, or takes the other clock."""
    root = Path(nnz_service.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if WALL.search(NOT_WALL.sub("", path.read_text()))
    }

    assert found == set(REASONS)
