"""Element by element ops on planes, and the way into and out of planes."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar, get_args

from nnz_kernels.arrays import AnyArray
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid

Array_contra = TypeVar("Array_contra", contravariant=True)

UnaryKind = Literal[
    "identity", "relu", "clip", "leaky_relu", "sigmoid", "tanh", "erf", "gelu",
    "gelu_tanh", "exp", "log", "sqrt", "neg", "abs", "reciprocal", "hard_sigmoid",
    "hard_swish", "silu",
]  # fmt: skip

#: Every kind of ``unary``.
UNARY_KINDS: tuple[UnaryKind, ...] = get_args(UnaryKind)

#: Kinds with f(0) = 0, after which the border of planes is still zero; ``clip`` is one
#: too when its bounds enclose zero.
ZERO_KEEPING_KINDS = frozenset(
    {
        "identity", "relu", "leaky_relu", "tanh", "erf", "gelu", "gelu_tanh", "sqrt",
        "neg", "abs", "hard_swish", "silu",
    }
)  # fmt: skip


def check_unary(kind: str, x: AnyArray, y: AnyArray) -> None:
    """Check what ``unary`` is given.

    Raises:
        ShapeError: The sizes differ.
        ValueError: No such kind.
    """
    if kind not in UNARY_KINDS:
        raise ValueError(f"unary has no kind {kind!r}; it has {', '.join(UNARY_KINDS)}")
    if x.size != y.size:
        raise ShapeError(f"x and y must be of one size, got {x.shape} and {y.shape}")


def check_layout(name: str, x: AnyArray, shape: tuple[int, ...]) -> None:
    """Check a shape in which -1 stands for any size.

    Raises:
        ShapeError: It differs.
    """
    fits = len(shape) == x.ndim and all(
        wanted in (-1, size) for wanted, size in zip(shape, x.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"{name} must be {shape} (-1: any), got {x.shape}")


class PointwiseOps(Protocol[Array_contra]):
    """Element by element ops; arrays are float32, C order, written in place of ``y``.

    ``y`` may be the input itself. NaN always passes through.
    """

    def unary(
        self,
        kind: UnaryKind,
        x: Array_contra,
        y: Array_contra,
        /,
        *,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> None:
        """Write ``y = f(x)`` for arrays of one size and any shape.

        ``clip`` bounds by alpha and beta; ``leaky_relu`` multiplies negatives by alpha;
        ``hard_sigmoid`` is ``clip(alpha x + beta, 0, 1)``; ``hard_swish`` is ``x clip(x
        / 6 + 1/2, 0, 1)``; ``gelu`` is exact (erf), ``gelu_tanh`` the approximation. On
        planes, kinds outside ``ZERO_KEEPING_KINDS`` need ``zero_border`` after.

        Raises:
            ShapeError: The sizes differ.
            ValueError: No such kind.
        """
        ...

    def channel_affine(
        self,
        x: Array_contra,
        scale: Array_contra,
        shift: Array_contra,
        lo: float,
        hi: float,
        y: Array_contra,
        grid: Grid,
        channels: int,
        /,
    ) -> None:
        """Write ``y[c] = clamp(x[c] * scale[c] + shift[c], lo, hi)``, border zero."""
        ...

    def add_planes(
        self, a: Array_contra, b: Array_contra, y: Array_contra, lo: float, hi: float, /
    ) -> None:
        """Write ``y = clamp(a + b, lo, hi)`` over whole buffers of one size.

        Borders stay zero when ``lo <= 0 <= hi``; else ``zero_border`` must follow.
        """
        ...

    def prelu(
        self,
        x: Array_contra,
        slope: Array_contra,
        y: Array_contra,
        grid: Grid,
        channels: int,
        /,
    ) -> None:
        """Write ``y[c] = x[c] if x[c] >= 0 else slope[c] * x[c]``; slope ``(c,)``."""
        ...

    def zero_border(self, y: Array_contra, grid: Grid, channels: int, /) -> None:
        """Write zero to every float of planes that is not a pixel."""
        ...

    def to_planes(self, x: Array_contra, y: Array_contra, grid: Grid, /) -> None:
        """Lay ``x`` ``(n, c, h, w)`` out as planes; writes all of ``y``.

        Raises:
            ShapeError: ``x`` is not of the grid's size or ``y`` is too short.
        """
        ...

    def from_planes(
        self, x: Array_contra, grid: Grid, channels: int, out: Array_contra, /
    ) -> None:
        """Collect planes into ``out`` ``(n, c, h, w)``."""
        ...

    def to_tokens(self, x: Array_contra, y: Array_contra, grid: Grid, /) -> None:
        """Lay ``x`` ``(tokens, features)`` out as planes: features become channels.

        The grid has as many pixels as there are tokens, in the same order.
        """
        ...

    def from_tokens(
        self, x: Array_contra, grid: Grid, features: int, out: Array_contra, /
    ) -> None:
        """Collect planes into ``out`` ``(tokens, features)``."""
        ...
