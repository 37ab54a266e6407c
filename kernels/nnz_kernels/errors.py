"""Every error of the kernels.

* KernelError
  - BackendUnavailableError: its library, driver or device is missing
  - DeviceError: a device refused or failed
    - DeviceMemoryError (also a MemoryError): it has not enough memory left
    - DeviceLostError: this process cannot use it any more and must be replaced
  - ShapeError (also a ValueError): sizes that do not fit each other
    - DeviceLimitError: sizes that kernels of a device cannot count, but the host's can
  - DTypeError (also a TypeError): an element type that no kernel takes
  - StructureError (also a ValueError): a format's ``check`` failed
"""

from __future__ import annotations


class KernelError(Exception):
    """Base class of what this package raises."""


class BackendUnavailableError(KernelError):
    """The back-end cannot run here; the message says what is missing."""


class DeviceError(KernelError):
    """A device refused or failed."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A device has not enough memory left; the message has the numbers."""


class DeviceLostError(DeviceError):
    """A device that this process cannot use any more: only a new process can."""


class ShapeError(KernelError, ValueError):
    """Shapes or sizes that do not fit each other."""


class DeviceLimitError(ShapeError):
    """Sizes beyond what kernels of a device count; those of the host may do."""


class DTypeError(KernelError, TypeError):
    """An element type that the op does not take."""


class StructureError(KernelError, ValueError):
    """A sparse container breaks a rule of its format."""
