"""Operations on resident matrices, as servables of one request each."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import load_sparse
from nnz_kernels.formats import Csr
from nnz_service.algebra import sparse_ops
from nnz_service.algebra.operands import Estimate, Operands
from nnz_service.algebra.operator import MAX_RESULT, MatrixOperator
from nnz_service.algebra.ops import run_op
from nnz_service.algebra.pairs import to_pairs
from nnz_service.algebra.row_parts import BY_ROWS, cuts_of, rows_of, settled
from nnz_service.algebra.semiring_vectors import applied
from nnz_service.algebra.sparse_ops import Answer
from nnz_service.errors import ImpossibleError, InvalidInputError, TooLargeError
from nnz_service.servable import Tensors, TensorSpec

T = TypeVar("T")

#: Predicted seconds from which on an operation holds the device for too long.
MAX_SECONDS = 20.0

#: Parameters that name matrices, in their order; a mask comes with another matrix.
MATRICES = ("matrix", "other", "mask")

#: Operations that multiply with something dense.
PRODUCTS = ("spmv", "spmm")

#: Seconds of a part of a long operation: what a request behind it waits for.
PART = 0.05

#: What a column of a product over a semiring costs besides its entries, in entries.
_COLUMN = 10_000

#: Nanoseconds that the smallest operation is said to take: what it does is found out as
#: it runs, and nobody who takes requests may wait for it.
_LEAST = 100_000

#: Nanoseconds for an entry or a product, until the first operation has been timed.
_ENTRY_NS = 4.0
#: Weight of the last operation among those timed.
_NEW = 0.3
#: Times that an operation may take longer than those before it, to be believed.
_ODD = 4.0
#: Work below which the time is that of everything else.
_TIMED = 100_000


class Known:
    """What is found out on the way: canonical forms of matrices, times of operations.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rates: dict[str, float] = {}
        self._canonical: weakref.WeakKeyDictionary[MatrixOperator, Csr[HostArray]] = (
            weakref.WeakKeyDictionary()
        )

    def canonical(self, operator: MatrixOperator) -> Csr[HostArray]:
        """Return the matrix with sorted rows that store no column twice."""
        with self._lock:
            found = self._canonical.get(operator)
        if found is None:
            found = load_sparse(operator.backend).canonical(operator.matrix)
            with self._lock:
                self._canonical[operator] = found
        return found

    def seconds(self, op: str, work: int) -> float:
        """Predict how long an operation takes, from those before it."""
        return self._rates.get(op, _ENTRY_NS) * work * 1e-9

    def computed(self, op: str, given: Operands, work: int) -> Answer:
        """Do an operation, and take in how long it takes."""
        return self.timed(op, work, lambda: sparse_ops.compute(op, given))

    def timed(self, op: str, work: int, run: Callable[[], T]) -> T:
        """Run something, and take in how long it takes."""
        began = time.monotonic()
        answer = run()
        if work >= _TIMED:
            rate = (time.monotonic() - began) * 1e9 / work
            with self._lock:
                before = self._rates.get(op, _ENTRY_NS)
                # What took so much longer had to wait for something else.
                rate = min(rate, _ODD * before)
                self._rates[op] = (1 - _NEW) * before + _NEW * rate
        return answer

    def check_time(self, op: str, work: int, flops: int) -> float:
        """Return the predicted seconds of an operation.

        Raises:
            ImpossibleError: They are too many.
        """
        seconds = self.seconds(op, work)
        if seconds > MAX_SECONDS:
            raise ImpossibleError(
                f"{op} would take about {seconds:.0f} s ({flops} floating-point "
                f"operations); the limit is {MAX_SECONDS:g} s"
            )
        return seconds


class SparseOperation:
    """One operation on resident matrices; runs alone.

    After `run` the answer is in `matrix` or in the tensors. Where rows can be computed
    apart, a long one is in `parts` instead, runs of rows that are still to be computed,
    so that others need not wait for all of it. With the parameter ``preflight`` there
    is only `estimate`.

    Args:
        known: Keeps rates and canonical forms.
        op: Its name.
        params: Of the request.
        tensors: Dense operands.
        operators: The matrices: the first, the other, the mask.
    """

    kind = "op"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch = 0
    plans = False
    steady = False
    bitwise = True
    nbytes = 0

    def __init__(
        self,
        known: Known,
        op: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        operators: list[MatrixOperator],
    ) -> None:
        self._known = known
        self.op = op
        self._operators = operators
        self._params = params
        self.tensors = tensors
        self.matrix: Csr[HostArray] | None = None
        self.parts: list[Part] = []
        self.estimate: dict[str, Any] = {}

    def check(self, tensors: Tensors) -> None:
        """See `Servable`; `run` checks everything, and has no mates to harm."""

    def work(self, rows: int) -> int:
        """See `Servable`; in nanoseconds."""
        sizes = [one.matrix.nnz + sum(one.matrix.shape) for one in self._operators]
        return int(self._known.seconds(self.op, sum(sizes)) * 1e9) + _LEAST

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`.

        Raises:
            TooLargeError: The result would not fit.
            ImpossibleError: It would take too long; both with numbers.
        """
        given = self._operands()
        preflight = self._params.get("preflight")
        # A bound first: to count what a product stores takes half of its time.
        uncounted = {**self._params, "preflight": bool(preflight)}
        cost = sparse_ops.estimate(self.op, replace(given, params=uncounted))
        if preflight:
            short = self._known.seconds(self.op, cost.work) <= MAX_SECONDS
            if preflight == "exact" and short:
                cost = sparse_ops.estimate(self.op, given)
            self._describe(cost)
            return {}
        if cost.exact:  # and need not be counted: bytes say more than a time
            sparse_ops.admit(self.op, given, found=cost)
        seconds = self._known.check_time(self.op, cost.work, cost.flops)
        sparse_ops.admit(self.op, given, found=cost)
        if self.op in BY_ROWS and seconds > 2 * PART and given.a.shape[0]:
            self.parts = self._cut(given, cost.work, math.ceil(seconds / PART))
            return {}
        answer = self._known.computed(self.op, given, cost.work)
        if isinstance(answer, Csr):
            self.matrix = answer
            return {}
        return {
            name: to_pairs(x) if x.dtype.kind == "c" else x
            for name, x in answer.items()
        }

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        return []

    def _operands(self) -> Operands:
        first = self._operators[0]
        matrices = [self._known.canonical(each) for each in self._operators]
        return Operands(
            matrices[0],
            matrices[1] if len(matrices) > 1 else None,
            self.tensors,
            self._params,
            load_sparse(first.backend),
            first.threads,
            matrices[2] if len(matrices) > 2 else None,
        )

    def _cut(self, given: Operands, work: int, count: int) -> list[Part]:
        """Return so many parts; what does not fit is refused before it is cut."""
        given = settled(self.op, given)
        sparse_ops.check(self.op, given)
        cuts = cuts_of(self.op, given, count)
        each = work // len(cuts)
        return [
            Part(self._known, self.op, rows_of(self.op, given, cut), each)
            for cut in cuts
        ]

    def _describe(self, cost: Estimate) -> None:
        seconds = self._known.seconds(self.op, cost.work)
        self.estimate = cost.to_json() | {
            "seconds": seconds,
            "fits": cost.nbytes <= MAX_RESULT and seconds <= MAX_SECONDS,
            "limit_bytes": MAX_RESULT,
            "limit_seconds": MAX_SECONDS,
            "device": str(self._operators[0].backend),
        }


class Part(SparseOperation):
    """A run of rows of a result that was admitted; `matrix` has it after `run`.

    Args:
        known: Keeps rates.
        op: One of `BY_ROWS`.
        given: The operands.
        work: Products and entries.
    """

    def __init__(self, known: Known, op: str, given: Operands, work: int) -> None:
        super().__init__(known, op, {}, {}, [])
        self._given = given
        self._size = work

    def work(self, rows: int) -> int:
        """See `Servable`; in nanoseconds."""
        return int(self._known.seconds(self.op, self._size) * 1e9) + _LEAST

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        answer = self._known.computed(self.op, self._given, self._size)
        self.matrix = answer if isinstance(answer, Csr) else None
        return {}


class Product(SparseOperation):
    """`spmv` or `spmm` over a semiring, or as one of several operations; runs alone."""

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`.

        Raises:
            InvalidInputError: The matrix is complex.
            TooLargeError: The result would not fit.
            ImpossibleError: It would take too long; both with numbers.
        """
        operator, x = self._operators[0], self.tensors.get("x", np.empty(0))
        semiring = self._params.get("semiring", "plus_times")
        self._check_real(semiring)
        a = operator.matrix
        width = x.shape[1] if x.ndim == 2 else 1
        each, nbytes = a.nnz + sum(a.shape), width * max(a.shape) * 8
        if nbytes > MAX_RESULT:
            raise TooLargeError(
                f"{self.op}: {width} columns take up to {nbytes} bytes; the limit is "
                f"{MAX_RESULT}"
            )
        if semiring == "plus_times":
            run = partial(run_op, self.op, self._params, self.tensors, operator)
            return self._timed(self.op, width * each, run)
        given = self._operands()
        passes = width + (self._params.get("transpose") is True)
        work = each * passes + _COLUMN * width
        name = f"{self.op} over {semiring}"
        return self._timed(name, work, lambda: {"y": applied(self.op, given)})

    def _timed(self, name: str, work: int, run: Callable[[], Tensors]) -> Tensors:
        self._known.check_time(name, work, 2 * work)
        return self._known.timed(name, work, run)

    def _check_real(self, semiring: str) -> None:
        if self._operators[0].matrix.data.dtype.kind != "c":
            return
        why = (
            "is no step of a chain, but an operation of its own"
            if semiring == "plus_times"
            else f"has no semiring {semiring}: that is for real ones"
        )
        raise InvalidInputError(f"{self.op} of a complex matrix {why}")
