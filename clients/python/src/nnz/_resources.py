"""The parts of a `Client`: server, models, matrices, operations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from nnz import _calls as calls
from nnz import _chain_calls as chain_calls
from nnz import _matrix_calls as matrix_calls
from nnz import _rules as rules
from nnz._errors import ConnectError, NnzError, UnavailableError
from nnz._handles import Model
from nnz._matrices import MatrixSource, VectorSource, pairs
from nnz._matrix import Matrix
from nnz._matrix_calls import Progress
from nnz._models import MatrixInfo, ModelInfo, ServerInfo, SparseVector
from nnz._sending import Send
from nnz._tensors import Array


class Server:
    """The server itself."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def ready(self) -> bool:
        """Whether it can take work now; False too when nothing answers."""
        try:
            self._send(calls.ready())
        except (ConnectError, UnavailableError):
            return False
        return True

    def metadata(self) -> ServerInfo:
        """Name, version and protocol extensions."""
        return self._send(calls.metadata())

    def stats(self) -> dict[str, Any]:
        """Counters."""
        return self._send(calls.stats())

    def devices(self) -> list[dict[str, Any]]:
        """Where it can compute, and why not elsewhere."""
        return self._send(calls.devices())


class Models:
    """Neural networks, as ONNX files."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def put(
        self,
        name: str,
        source: str | os.PathLike[str] | bytes,
        *,
        version: str | int | None = None,
    ) -> Model:
        """Put a model on the server, ready for `infer` on return.

        Args:
            name: Letters, digits, ``.``, ``_`` and ``-``.
            source: Path of an ONNX file, streamed from disk, or its bytes.
            version: Digits; None takes the next free one.

        Raises:
            ImpossibleError: Not a valid model, or one with operators that the server
                cannot run; the message lists them all.
            TooLargeError: The file passes the server's limit.
        """
        return Model(self._send, self._send(calls.put_model(name, source, version)))

    def get(self, name: str, *, version: str | int | None = None) -> Model:
        """A handle of a model, with its plan; None takes the newest version.

        Raises:
            NotFoundError: There is no such model.
        """
        return Model(self._send, self._send(calls.get_model(name, version)))

    def signature(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Inputs and outputs of a model, or of a matrix by its id."""
        return self._send(calls.get_signature(name, version))

    def list(self) -> list[ModelInfo]:
        """All models."""
        return self._send(calls.list_models())

    def load(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Make it resident again; None takes the newest version."""
        return self._send(calls.load_model(name, version))

    def unload(self, name: str, *, version: str | int | None = None) -> ModelInfo:
        """Free its memory, of all versions when None; files stay."""
        return self._send(calls.unload_model(name, version))

    def delete(self, name: str, *, version: str | int | None = None) -> None:
        """Remove a version, or with None all of them."""
        self._send(calls.delete_model(name, version))


class Matrices:
    """Sparse matrices."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def put(
        self,
        source: MatrixSource,
        *,
        name: str | None = None,
        progress: Progress | None = None,
        resume: str | None = None,
    ) -> Matrix:
        """Put a matrix on the server; the same content has the same id.

        Files of 64 MiB and more go in pieces; after a cut connection only the rest goes
        again.

        Args:
            source: A scipy.sparse matrix or array of any format, or the path of a
                .npz (``scipy.sparse.save_npz``), .mtx or .mtx.gz file. float32 and
                float64 stay as they are; integers become float64, complex numbers
                complex128.
            name: A label for people.
            progress: Called with the bytes that are there and all of them, after each
                piece of a file; then smaller files go in pieces, too.
            resume: Id of an upload that ended with an error, which has it as
                ``details["upload"]``: only the rest of the file is sent.

        Raises:
            TypeError: Not a matrix, or its values are no numbers.
            ImpossibleError: The file breaks the rules of its format.
        """
        if matrix_calls.goes_in_pieces(source, progress, resume):
            plan = matrix_calls.in_pieces(source, name, progress, resume)
            info = _carried(self._send, plan)
        else:
            info = self._send(calls.put_matrix(source, name))
        return Matrix(self._send, info)

    def get(self, matrix_id: str) -> Matrix:
        """A handle of a matrix that is there.

        Raises:
            NotFoundError: There is no such matrix.
        """
        return Matrix(self._send, self._send(calls.get_matrix(matrix_id)))

    def list(self) -> list[MatrixInfo]:
        """All matrices."""
        return self._send(calls.list_matrices())

    def load(self, matrix_id: str) -> MatrixInfo:
        """Make it resident now instead of at its next use."""
        return self._send(matrix_calls.reside(matrix_id, "load"))

    def unload(self, matrix_id: str) -> MatrixInfo:
        """Free its memory; its next use loads it again."""
        return self._send(matrix_calls.reside(matrix_id, "unload"))

    def pin(self, matrix_id: str) -> MatrixInfo:
        """Keep it resident whatever else is loaded; for admins."""
        return self._send(matrix_calls.reside(matrix_id, "pin"))

    def unpin(self, matrix_id: str) -> MatrixInfo:
        """Let it go when others need the memory; for admins."""
        return self._send(matrix_calls.reside(matrix_id, "unpin"))

    def delete(self, matrix_id: str) -> None:
        """Remove one."""
        self._send(calls.delete_matrix(matrix_id))


def _carried(send: Send, plan: matrix_calls.Plan) -> MatrixInfo:
    """Send the calls of a plan and tell it what became of each."""
    try:
        call = next(plan)
        while True:
            try:
                answer = send(call)
            except NnzError as error:
                call = plan.throw(error)
            else:
                call = plan.send(answer)
    except StopIteration as end:
        found: MatrixInfo = end.value
        return found


class Ops:
    """Operations on matrices of the server, and on sparse vectors sent with the call.

    A vector is a pair ``(indices, values)``, in any order, or a scipy sparse vector.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def apply(
        self,
        op: str,
        matrix: Matrix | str,
        other: Matrix | str | None = None,
        *,
        inputs: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> Matrix | dict[str, Array]:
        """Do an operation on matrices of the server, by its name there.

        The operators and methods of `Matrix` do the same in scipy's words.

        Args:
            op: Such as ``spgemm`` or ``norm``.
            matrix: A handle or an id.
            other: The second one, where it takes two.
            inputs: Dense operands by name.
            name: A label for the matrix that it makes.
            **parameters: Of the operation.

        Returns:
            A handle of the matrix that it made, or arrays by output name.

        Raises:
            ValueError: A handle is a view, such as ``A.T``.
        """
        ids = [None if one is None else rules.id_of(one) for one in (matrix, other)]
        made = self._send(
            chain_calls.apply_op(
                op, str(ids[0]), ids[1], inputs or {}, name, parameters
            )
        )
        return Matrix(self._send, made) if isinstance(made, MatrixInfo) else made

    def axpy(
        self,
        u: VectorSource,
        r: float,
        v: VectorSource,
        *,
        zeros: str = "keep",
        duplicates: str = "sum",
    ) -> SparseVector:
        """``u + r v`` in time of their entries, not of their dimension.

        Args:
            u: Its pairs come first in the answer, in their order.
            r: Factor.
            v: Indices that u lacks follow in the order of their first appearance.
            zeros: ``keep`` entries that cancelled, or ``drop_exact`` ones.
            duplicates: ``sum`` them, keep the ``last``, or make them an ``error``.
        """
        parameters = {"zeros": zeros, "duplicates": duplicates}
        return self._send(calls.axpy(pairs(u, "u"), r, pairs(v, "v"), parameters))

    def dot(
        self, u: VectorSource, v: VectorSource, *, duplicates: str = "sum"
    ) -> float:
        """Inner product, summed in float64."""
        parameters = {"duplicates": duplicates}
        return self._send(calls.dot(pairs(u, "u"), pairs(v, "v"), parameters))
