"""What the parts of the CUDA benchmark share: problems, checked answers, peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from cuda_timing import Call, as_cupy

from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.formats import Csr

#: Largest relative difference of answers that are compared.
CLOSE = 1e-3

#: Makes a problem whose answer is right.
Make = partial["Problem"]


@dataclass
class Problem:
    """Something to time.

    Attributes:
        name: Of it.
        calls: By name, ours first.
        nbytes: That must move.
        missing: Peers that could not be asked, and why.
    """

    name: str
    calls: dict[str, Call]
    nbytes: int
    missing: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        name: str,
        make: Callable[[], Call],
        answer: Callable[[Any], Any],
        right: Any,
    ) -> None:
        """Add a peer whose answer is right; its failure must not end ours.

        Args:
            name: Of the peer.
            make: Prepares its call.
            answer: Makes an array of NumPy of what the call returned.
            right: What that should be.
        """
        try:
            call = make()
            check(answer(call()), right)
        except (Exception, SystemExit) as exc:  # whatever a foreign library may raise
            self.missing[name] = f"{type(exc).__name__}: {exc}"[:300]
        else:
            self.calls[name] = call


def on_device(kernels: CudaKernels, matrix: Any) -> tuple[Csr[Any], Any]:
    """Return a matrix for our kernels, and the same memory for cuSPARSE."""
    # cuSPARSE is told of indices of 32 bits.
    places = (x.astype(np.int32) for x in (matrix.indptr, matrix.indices))
    arrays = (*places, matrix.data)
    held = [kernels.device.to_device(np.ascontiguousarray(one)) for one in arrays]
    ours = Csr(held[0], held[1], held[2], matrix.shape)
    return ours, (*map(as_cupy, held), matrix.shape)


def check(found: Any, right: Any) -> None:
    """Stop where an answer is wrong: its time would mean nothing."""
    gap = float(np.linalg.norm(found - right) / max(np.linalg.norm(right), 1e-30))
    if not gap < CLOSE:
        raise SystemExit(f"an answer differs by {gap:.1e}")
