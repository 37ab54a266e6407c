"""Every error of the kernels.

* KernelError
  - BackendUnavailableError: its library, driver or device is missing
  - ShapeError (also a ValueError): sizes that do not fit each other
  - DTypeError (also a TypeError): an element type that no kernel takes
  - StructureError (also a ValueError): a format's ``check`` failed
"""

from __future__ import annotations


class KernelError(Exception):
    """Base class of what this package raises."""


class BackendUnavailableError(KernelError):
    """The back-end cannot run here; the message says what is missing."""


class ShapeError(KernelError, ValueError):
    """Shapes or sizes that do not fit each other."""


class DTypeError(KernelError, TypeError):
    """An element type that the op does not take."""


class StructureError(KernelError, ValueError):
    """A sparse container breaks a rule of its format."""
