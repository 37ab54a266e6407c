"""Steps of chains: what each names, what becomes of it, what all may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MAX_RESULT, MatrixOperator
from nnz_service.errors import ServiceError, TooLargeError
from nnz_service.worker.sparse import MATRICES


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a chain.

    Args:
        name: Of its result.
        op: What it does.
        matrices: Ids, or names of earlier steps.
        inputs: Dense operands: names of tensors of the call, or of earlier steps.
        params: Of the operation.
        keep: Whether its result is part of the answer.
    """

    name: str
    op: str
    matrices: tuple[str, ...]
    inputs: Mapping[str, str]
    params: Mapping[str, Any]
    keep: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Step:
        """Read what the web side has checked."""
        matrices = tuple(row[key] for key in MATRICES if key in row)
        return cls(
            row["as"], row["op"], matrices, row["inputs"], row["params"], row["keep"]
        )

    @property
    def uses(self) -> tuple[str, ...]:
        """Everything that it names."""
        return (*self.matrices, *self.inputs.values())


@contextmanager
def named(step: Step) -> Iterator[None]:
    """Say in which step something went wrong."""
    try:
        yield
    except ServiceError as error:
        fields = error.to_dict()
        told = f"step {step.name!r} ({step.op}): {error}"
        raise ServiceError.from_dict(fields | {"message": told}) from error


def on_host(
    matrix: Csr[HostArray], backend: Backend, threads: int | None
) -> MatrixOperator:
    """Return what a step made, which lies in the host's memory and stays there.

    Args:
        matrix: It.
        backend: Of the matrices that it was made from.
        threads: Likewise.
    """
    reference = backend is Backend.REFERENCE
    return MatrixOperator(
        matrix, Backend.REFERENCE if reference else Backend.CPU, threads
    )


def check_held(results: Iterable[Csr[HostArray] | HostArray]) -> None:
    """Refuse to hold more than one operation may give; what comes twice counts once.

    Raises:
        TooLargeError: With the numbers.
    """
    held = {id(x): x.nbytes for x in results}
    if (total := sum(held.values())) > MAX_RESULT:
        raise TooLargeError(
            f"results so far take {total} bytes; the limit is {MAX_RESULT}"
        )
