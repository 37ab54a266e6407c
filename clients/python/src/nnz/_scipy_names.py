"""Names that scipy's sparse matrices have beside the operators."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, Protocol, TypeVar

M_co = TypeVar("M_co", covariant=True)


class _Turns(Protocol[M_co]):
    @property
    def T(self) -> M_co: ...  # noqa: N802 (numpy's name)


class _Multiplies(Protocol):
    def __matmul__(self, x: Any) -> Any: ...


class AsyncScipyNames:
    """Those of an asynchronous handle."""

    __slots__ = ()

    def transpose(self: _Turns[M_co]) -> M_co:
        """The same as ``T``."""
        return self.T

    async def dot(self: _Multiplies, x: Any) -> Any:
        """The same as ``A @ x``: x is a vector, columns or a matrix, never a number."""
        found = self @ x
        return await found if isawaitable(found) else found


class ScipyNames:
    """Those of a handle, or of an expression."""

    __slots__ = ()

    def transpose(self: _Turns[M_co]) -> M_co:
        """The same as ``T``."""
        return self.T

    def dot(self: _Multiplies, x: Any) -> Any:
        """The same as ``A @ x``: x is a vector, columns or a matrix, never a number."""
        return self @ x
