"""The command ``nnz``: one file a command, each registers itself with the app."""

from __future__ import annotations

from nnz_service.cli import (
    bench,
    devices,
    graph,
    health,
    infer,
    inspect,
    keys,
    matrices,
    models,
    op,
    prune,
    serve,
    solve,
    warm,
)
from nnz_service.cli._app import app

__all__ = [
    "app",
    "bench",
    "devices",
    "graph",
    "health",
    "infer",
    "inspect",
    "keys",
    "main",
    "matrices",
    "models",
    "op",
    "prune",
    "serve",
    "solve",
    "warm",
]


def main() -> None:
    """Run the command line; the entry point of ``nnz``."""
    app(prog_name="nnz")
