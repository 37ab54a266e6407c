"""`nnz serve`: holds the listening sockets, keeps workers and front doors alive.

It computes nothing and parses nothing, so that nothing but a signal ends it. Children
die with it, even when it is killed.
"""

from nnz_service.supervisor.serve import serve

__all__ = ["serve"]
