"""Ops that check their buffers once and are called again and again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Generic, ParamSpec

import numpy as np

from nnz_kernels.api.conv import check_steady

P = ParamSpec("P")

#: A call without arguments that computes from what the buffers hold then.
Call = Callable[[], None]


def in_turn(calls: Sequence[Call]) -> None:
    """Make calls one after the other."""
    for call in calls:
        call()


class Attachable(Generic[P]):
    """An op that is made of two parts: checks, and a call to repeat.

    Args:
        make: Takes the arguments of the op, checks them, and returns the call.
    """

    def __init__(self, make: Callable[P, Call]) -> None:
        self.attach = make
        functools.update_wrapper(self, make)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Check and compute once."""
        self.attach(*args, **kwargs)()


def attach(op: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Call:
    """Return a call that runs an op on these buffers.

    A back-end whose op is `Attachable` checks here and never again; of any other op the
    call is all of it.

    Raises:
        ShapeError: An array has gaps or is not aligned: what a kernel would read in its
            place is a copy, which does not see what is written later.
    """
    for place, array in enumerate(args):
        if isinstance(array, np.ndarray):
            check_steady(f"argument {place}", array)
    if isinstance(op, Attachable):
        made: Call = op.attach(*args, **kwargs)
        return made
    return functools.partial(op, *args, **kwargs)
