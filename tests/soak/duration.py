"""How long each fault is tried: seconds in every run, minutes in a soak."""

from __future__ import annotations

import os

#: `make soak` sets it; what a run of the slow tests takes otherwise.
SECONDS = float(os.environ.get("NNZ_SOAK_SECONDS", "7"))
#: Cases of all fuzzers together: half of them files that are read, a quarter each bytes
#: and calls that a server gets, and besides some files on their whole way through it.
CASES = int(os.environ.get("NNZ_SOAK_CASES", "2000"))
LIVES = max(10, CASES // 200)
#: From which the raw fuzzer makes its cases; another one makes others.
SEED = int(os.environ.get("NNZ_SOAK_SEED", "1"))
