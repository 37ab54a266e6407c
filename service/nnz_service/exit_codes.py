"""How a worker ends when it cannot go on, for the supervisor to know what to do."""

from __future__ import annotations

#: Its device failed, or does not come back from a kernel: another worker may succeed.
DEVICE_LOST, HUNG = 70, 71
#: It cannot have the device that it was told to use, and another would say the same.
NO_DEVICE = 78
