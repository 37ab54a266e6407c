"""The ops of a device on NumPy arrays: each call travels there and back.

For what is done once: a check while a model is loaded, an op that a plan cannot keep on
the device. The twins of the host are called in the same way, so the same tests do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.api.factors import check_triangle
from nnz_kernels.api.saddle import check_saddle
from nnz_kernels.api.sparse import ProductPlan, ProductSize
from nnz_kernels.arrays import HostArray
from nnz_kernels.copies import Copies, or_host, with_room
from nnz_kernels.formats import BlockCsr, Csr, Ragged, SparseVector
from nnz_kernels.saddle import SaddleProblem, SaddleState

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

_FORMATS = (SparseVector, Ragged, Csr, BlockCsr, ProductPlan)

#: Arguments that stay on the host wherever an op runs: factors, numbers of rows.
_STAY: dict[str, tuple[int, ...]] = {
    "axpy": (1,), "axpy_many": (1,), "combine": (1,),
    "add": (0, 2), "submatrix": (1, 2),
}  # fmt: skip


#: Loads the kernels of the host that have the same ops.
LoadHost = Callable[[], Any]


def hosted(kernels: Kernels[Any], host: LoadHost | None = None) -> Kernels[HostArray]:
    """Return kernels that take and give NumPy arrays.

    Args:
        kernels: Of a device; those of the host are returned as they are.
        host: For what the device has no room or no numbers for; None raises instead.
    """
    device = kernels.DEVICE
    return kernels if device is None else cast("Any", Hosted(kernels, device, host))


def keep(kernels: object, *arrays: HostArray) -> None:
    """Promise that arrays do not change as long as *kernels* are there.

    A device then copies each once and not for every call, while there is room.
    """
    if isinstance(kernels, Hosted):
        kernels.keep(*arrays)


def notes_of(kernels: object) -> list[str]:
    """Return why the host computed what a device was asked for, an op a sentence."""
    return list(kernels.notes.values()) if isinstance(kernels, Hosted) else []


class Hosted:
    """Every op of *kernels*, with arrays moved on the way in and out."""

    #: Its arrays are NumPy's.
    DEVICE = None

    def __init__(
        self,
        kernels: Kernels[Any],
        device: DeviceMemory[Any],
        host: LoadHost | None = None,
    ) -> None:
        self._kernels, self._device, self._host = kernels, device, host
        self.FAMILIES, self.PLANES = kernels.FAMILIES, kernels.PLANES
        self._saddle = HostedSaddle(kernels, host)
        self._copies = Copies(device)
        #: By op, why the host did it; of several times the last.
        self.notes: dict[str, str] = {}

    def keep(self, *arrays: HostArray) -> None:
        """See `keep`."""
        for array in arrays:
            self._copies.add(array)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name == "halpern_pdhg":  # its arguments are containers to write into
            return self._saddle.halpern_pdhg
        op = getattr(self._kernels, name)
        stays = _STAY.get(name, ())

        def call(*args: Any, **kwargs: Any) -> Any:
            there = partial(self._call, op, stays, args, kwargs)
            if (load := self._host) is None:
                return with_room(there)
            return or_host(
                name,
                there,
                lambda: getattr(load(), name)(*args, **kwargs),
                partial(self.notes.__setitem__, name),
            )

        return call

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
        stays: tuple[int, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        moved = [
            arg if place in stays else _moved(arg, self._copies)
            for place, arg in enumerate(args)
        ]
        result = op(*moved, **{k: _moved(v, self._copies) for k, v in kwargs.items()})
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


class HostedFactors:
    """Factors and their triangles on NumPy arrays; the last two triangles stay there.

    Args:
        kernels: Of a device.
        host: For what the device has no room or no numbers for; None raises instead.
    """

    def __init__(self, kernels: Any, host: LoadHost | None = None) -> None:
        self._hosted: Any = hosted(kernels, host)
        self._kernels, self._device = kernels, kernels.DEVICE
        self._host, self._is_here = host, False
        self._there: list[tuple[Csr[Any], HostArray, tuple[Csr[Any], Any]]] = []

    def ilu0(self, a: Csr[HostArray], /) -> tuple[HostArray, int]:
        """Factor there."""
        data, failed = self._hosted.ilu0(a)
        return data, failed

    def ic0(self, lower: Csr[HostArray], /) -> tuple[HostArray, int]:
        """Factor there."""
        data, failed = self._hosted.ic0(lower)
        return data, failed

    def solve_triangle(
        self,
        strict: Csr[HostArray],
        diagonal: HostArray,
        b: HostArray,
        /,
        *,
        upper: bool,
    ) -> HostArray:
        """Move *b* there and x back, and the triangle at its first time."""
        check_triangle(strict, diagonal, b)

        def there() -> HostArray:
            known = self._resident(strict, diagonal)
            moved = self._device.to_device(b)
            x = self._kernels.solve_triangle(*known, moved, upper=upper)
            found: HostArray = self._device.to_host(x)
            return found

        if (load := self._host) is None:
            return there()

        def here() -> HostArray:
            found: HostArray = load().solve_triangle(strict, diagonal, b, upper=upper)
            return found

        if self._is_here:
            return here()
        return or_host("solve_triangle", there, here, self._stay)

    def _stay(self, why: str) -> None:
        """Stay on the host: a triangle that once had no room is not tried again."""
        self._is_here, self._there = True, []

    def _resident(
        self, strict: Csr[HostArray], diagonal: HostArray
    ) -> tuple[Csr[Any], Any]:
        """Return a triangle where it is, or move it there in place of an older one."""
        for known, pivots, there in self._there:
            if known is strict and pivots is diagonal:
                return there
        move = self._device.to_device
        there = strict.map(move), move(diagonal)
        self._there = [*self._there[-1:], (strict, diagonal, there)]
        return there


class HostedSaddle:
    """The iterations of linear programs on NumPy arrays; the last program stays there.

    Args:
        kernels: Of a device.
        host: For programs that the device has no room for; None raises instead.
    """

    def __init__(self, kernels: Any, host: LoadHost | None = None) -> None:
        self._kernels, self._device = kernels, kernels.DEVICE
        self._host, self._is_here = host, False
        self._problem: SaddleProblem[HostArray] | None = None
        self._there: tuple[SaddleProblem[Any], SaddleState[Any]] | None = None

    def halpern_pdhg(
        self,
        problem: SaddleProblem[HostArray],
        state: SaddleState[HostArray],
        tau: float,
        sigma: float,
        done: int,
        count: int,
        /,
        *,
        threads: int | None = None,
    ) -> None:
        """Move the iterates there, and all that was found back."""
        check_saddle(problem, state)
        steps = problem, state, tau, sigma, done, count
        if (load := self._host) is None:
            self._iterate(*steps)
            return

        def here() -> None:
            load().halpern_pdhg(*steps, threads=threads)

        if self._is_here:
            here()
        else:
            or_host("halpern_pdhg", lambda: self._iterate(*steps), here, self._stay)

    def _stay(self, why: str) -> None:
        """Stay on the host: a program that once had no room is not tried again."""
        self._is_here, self._there, self._problem = True, None, None

    def _iterate(
        self,
        problem: SaddleProblem[HostArray],
        state: SaddleState[HostArray],
        tau: float,
        sigma: float,
        done: int,
        count: int,
    ) -> None:
        move, read = self._device.to_device, self._device.to_host
        if self._there is None or problem is not self._problem:
            self._there = problem.map(move), state.map(move)
            self._problem = problem
        known, at = self._there
        for name in ("x", "y", "x0", "y0"):
            move(getattr(state, name), getattr(at, name))
        self._kernels.halpern_pdhg(known, at, tau, sigma, done, count)
        for name in ("x", "y", "xh", "yh", "r", "dx", "dy", "xb"):
            getattr(state, name)[...] = read(getattr(at, name))


def _moved(value: Any, copies: Copies) -> Any:
    """Return an argument with its arrays on the device; factors stay where they are."""
    if isinstance(value, np.ndarray | np.generic):
        return copies.moved(np.asarray(value))
    if isinstance(value, _FORMATS):
        moved: Any = value.map(copies.moved)
        return moved
    return value


def _back(value: Any, device: DeviceMemory[Any]) -> Any:
    """Return a result with its arrays on the host."""
    if isinstance(value, _FORMATS):
        there: Any = value.map(device.to_host)
        return there
    if isinstance(value, tuple):
        return tuple(_back(each, device) for each in value)
    is_plain = isinstance(value, (str, float, int, ProductSize))
    return value if is_plain else device.to_host(value)
