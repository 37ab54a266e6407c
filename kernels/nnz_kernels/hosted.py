"""The ops of a device on NumPy arrays: each call travels there and back.

For what is done once: a check while a model is loaded, an op that a plan cannot keep on
the device. The twins of the host are called in the same way, so the same tests do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import BlockCsr, Csr, Ragged, SparseVector

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

_FORMATS = (SparseVector, Ragged, Csr, BlockCsr)

#: Ops that take an array of the host wherever they run: factors, and which argument.
_FACTORS = {"axpy": 1, "axpy_many": 1, "combine": 1}


def hosted(kernels: Kernels[Any]) -> Kernels[HostArray]:
    """Return kernels that take and give NumPy arrays.

    Args:
        kernels: Of a device; those of the host are returned as they are.
    """
    device = kernels.DEVICE
    return kernels if device is None else cast("Any", Hosted(kernels, device))


class Hosted:
    """Every op of *kernels*, with arrays moved on the way in and out."""

    #: Its arrays are NumPy's.
    DEVICE = None

    def __init__(self, kernels: Kernels[Any], device: DeviceMemory[Any]) -> None:
        self._kernels, self._device = kernels, device
        self.FAMILIES, self.PLANES = kernels.FAMILIES, kernels.PLANES

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(self._kernels, name)
        stays = _FACTORS.get(name)
        return lambda *args, **kwargs: self._call(op, stays, args, kwargs)

    def prepare_conv(self, weights: HostArray, *args: Any, **kwargs: Any) -> Any:
        """Prepare on the device: weights are arrays of the host there too."""
        prepared = self._kernels.prepare_conv(weights, *args, **kwargs)
        return HostedConv(prepared, self._device)

    def identity(self) -> str:
        """Return the name of the kernels behind."""
        return self._kernels.identity()

    def _call(
        self,
        op: Callable[..., Any],
        stays: int | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        moved = [
            arg if place == stays else _moved(arg, self._device)
            for place, arg in enumerate(args)
        ]
        result = op(*moved, **{k: _moved(v, self._device) for k, v in kwargs.items()})
        if result is not None:
            return _back(result, self._device)
        for host, there in zip(args, moved, strict=True):
            if isinstance(host, np.ndarray) and host.flags.writeable:
                host[...] = self._device.to_host(there)
        return None


class HostedConv:
    """A prepared convolution whose buffers are NumPy arrays."""

    def __init__(self, prepared: Any, device: DeviceMemory[Any]) -> None:
        self._prepared, self._device = prepared, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prepared, name)

    def retiled(self, tiling: Any, /) -> HostedConv | None:
        """Return the same weights under another tiling."""
        found = self._prepared.retiled(tiling)
        return None if found is None else HostedConv(found, self._device)

    def bind(self, x: Any, y: Any, /, *, threads: int = 1) -> HostedBoundConv:
        """Bind on the device."""
        return HostedBoundConv(self._prepared.bind(x, y, threads=threads), self._device)


class HostedBoundConv:
    """A bound convolution whose buffers are NumPy arrays."""

    def __init__(self, bound: Any, device: DeviceMemory[Any]) -> None:
        self._bound, self._device = bound, device
        self.scratch: int = bound.scratch

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Return a call that moves all buffers, computes, and moves ``y`` back."""

        def call() -> None:
            move = self._device.to_device
            target = move(y)
            # A residual may be the result itself: then it is there too.
            added = target if residual is y else residual
            if residual is not None and residual is not y:
                added = move(residual)
            self._bound.run(move(x), target, added, move(scratch))
            y[...] = self._device.to_host(target)

        return call

    def run(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> None:
        """Attach and compute once."""
        self.attach(x, y, residual, scratch)()


def _moved(value: Any, device: DeviceMemory[Any]) -> Any:
    """Return an argument with its arrays on the device; factors stay where they are."""
    if isinstance(value, np.ndarray | np.generic):
        return device.to_device(np.asarray(value))
    if isinstance(value, _FORMATS):
        moved: Any = value.map(device.to_device)
        return moved
    return value


def _back(value: Any, device: DeviceMemory[Any]) -> Any:
    """Return a result with its arrays on the host."""
    if isinstance(value, _FORMATS):
        there: Any = value.map(device.to_host)
        return there
    is_plain = isinstance(value, (str, float, int, tuple))
    return value if is_plain else device.to_host(value)
