"""How long each fault is tried: seconds in every run, minutes in a soak."""

from __future__ import annotations

import os

#: `make soak` sets it; what a run of the slow tests takes otherwise.
SECONDS = float(os.environ.get("NNZ_SOAK_SECONDS", "7"))
#: Cases of the fuzzers.
CASES = int(os.environ.get("NNZ_SOAK_CASES", "2000"))
#: From which the raw fuzzer makes its cases; another one makes others.
SEED = int(os.environ.get("NNZ_SOAK_SEED", "1"))
