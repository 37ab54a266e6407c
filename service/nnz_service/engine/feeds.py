"""Check what a model is given, in full for a set of shapes that is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnz_service.engine.graph import DTYPES, Array, TensorInfo, dtype_name
from nnz_service.errors import InvalidInputError

#: Sets of shapes that are remembered as right.
REMEMBERED = 256


class Feeds:
    """What a model takes.

    Args:
        inputs: In their order.
        free_axes: Of each input the symbol of every axis, None for a fixed one.
    """

    def __init__(
        self,
        inputs: Sequence[TensorInfo],
        free_axes: Mapping[str, Sequence[str | None]],
    ) -> None:
        self._inputs = {info.name: info for info in inputs}
        self._free_axes = free_axes
        self._right: set[tuple[object, ...]] = set()

    def check(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs in C order.

        Raises:
            InvalidInputError: One is missing, unknown, or of another type or shape; the
                message says what is expected.
        """
        if feeds.keys() != self._inputs.keys():
            raise InvalidInputError(
                f"inputs {sorted(feeds)} were given, {sorted(self._inputs)} are "
                "expected"
            )
        # A scalar stays one.
        found = {n: np.asarray(feeds[n], order="C") for n in self._inputs}
        key = tuple((array.dtype, array.shape) for array in found.values())
        if key not in self._right:
            sizes: dict[str, int] = {}
            for name, array in found.items():
                self._check_one(self._inputs[name], array, sizes)
            if len(self._right) >= REMEMBERED:
                self._right.clear()
            self._right.add(key)
        return found

    def _check_one(self, info: TensorInfo, array: Array, sizes: dict[str, int]) -> None:
        shape = ["?" if d is None else d for d in info.shape]
        wanted = f"{info.dtype} {shape}".replace("'", "")
        given = f"{dtype_name(array.dtype)} {list(array.shape)}"
        fits = len(array.shape) == len(info.shape) and all(
            w is None or w == g for w, g in zip(info.shape, array.shape, strict=True)
        )
        if array.dtype != DTYPES[info.dtype] or not fits:
            raise InvalidInputError(
                f"input {info.name!r} is {given}, but must be {wanted}"
            )
        if 0 in array.shape:
            raise InvalidInputError(
                f"input {info.name!r} is empty: {given}; every axis must be at least 1"
            )
        symbols = self._free_axes[info.name]
        for symbol, size in zip(symbols, array.shape, strict=True):
            if symbol is not None and sizes.setdefault(symbol, size) != size:
                raise InvalidInputError(
                    f"input {info.name!r} is {given}, but axis {symbol} is "
                    f"{sizes[symbol]} in another input"
                )
