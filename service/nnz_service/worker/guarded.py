"""Files are loaded unless that has ended the worker too often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnz_kernels.errors import DeviceLostError
from nnz_service.errors import ImpossibleError
from nnz_service.servable import Servable
from nnz_service.worker.batches import lost
from nnz_service.worker.quarantine import PATIENCE, Quarantine
from nnz_service.worker.toolbox import Toolbox

#: What is said of such a file.
LEFT_OUT = (
    f"the worker ended {PATIENCE} times while it loaded this file, which is left out "
    "until the server starts again"
)


class Guarded:
    """Loads files, and notes when that ends the worker.

    Args:
        toolbox: How to load.
        notes: Where ends are counted.
        lose: Called when the device fails under a load.
    """

    def __init__(self, toolbox: Toolbox, notes: Path, lose: Callable[[], None]) -> None:
        self._toolbox = toolbox
        self._quarantine = Quarantine(notes)
        self._lose = lose

    def refuses(self, path: Path) -> bool:
        """Whether a file has ended the worker too often."""
        return self._quarantine.holds(path)

    def load(self, kind: str, path: Path) -> Servable:
        """Load a file.

        Raises:
            ImpossibleError: It has ended the worker too often.
            ServiceError: Why it cannot be loaded.
        """
        if self.refuses(path):
            raise ImpossibleError(LEFT_OUT)
        self._quarantine.enter(path)
        try:
            servable = self._toolbox.load(kind, path)
        except DeviceLostError as error:  # as if it had ended the worker itself
            self._lose()
            raise lost(error) from error
        except BaseException:
            self._quarantine.leave()
            raise
        self._quarantine.leave()
        return servable

    def leave(self) -> None:
        """Say that the worker ends in order."""
        self._quarantine.leave()
