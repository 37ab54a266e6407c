"""What a job found, as lines for people or one JSON document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from nnz_service.cli._app import print_json

if TYPE_CHECKING:
    from nnz import Job


def about(job: Job) -> dict[str, Any]:
    """Which job it was, and of which matrix."""
    return {"job": job.id, "matrix": job.info.params["matrix"]}


def facts(found: object, names: Iterable[str]) -> dict[str, Any]:
    """Attributes of a result by name."""
    return {name: getattr(found, name) for name in names}


def show_facts(told: Mapping[str, Any]) -> None:
    """Print a line for each fact that says something, one for each part of several."""
    for name, value in told.items():
        for part in value if isinstance(value, tuple) else (value,):
            if part not in (None, ""):
                text = f"{part:.10g}" if isinstance(part, float) else part
                typer.echo(f"{name.replace('_', ' '):<30}{text}")


def print_facts(told: Mapping[str, Any]) -> None:
    """Print facts as one JSON document, which has no infinity."""
    print_json({name: _finite(value) for name, value in told.items()})


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
