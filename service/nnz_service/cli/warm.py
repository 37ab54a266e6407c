"""``nnz warm``: compile the CPU kernels now rather than at first use."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from nnz_service.cli._app import JsonFlag, app, print_json
from nnz_service.hardware import compiler_environment


@app.command(rich_help_panel="Server")
def warm(
    home: Annotated[
        Path | None,
        typer.Option(help="Fill the cache of the server with this NNZ_HOME."),
    ] = None,
    cpu_target: Annotated[
        str | None,
        typer.Option(
            help="Compile for native, portable, x86-64-v3 or x86-64-v4; NNZ_CPU_TARGET."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compile every CPU kernel into the cache.

    The first start of a server does the same and takes a minute or two; afterwards
    kernels are loaded from the cache. Useful when building an image, and before tests.

    Example: `nnz warm --home ./nnz-home`
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    # numba reads its settings when it is imported, which is below.
    if home is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(home.resolve() / "cache" / "numba")
    target = cpu_target or os.environ.get("NNZ_CPU_TARGET", "native")
    try:
        os.environ.update(compiler_environment(target))
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--cpu-target") from None
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn())
    began = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("starting", total=None)

        def show(done: int, total: int, name: str) -> None:
            progress.update(bar, completed=done, total=total, description=name)

        from nnz_kernels.cpu import catalog

        warmed = catalog.warm(show)
    result = {
        "kernels": warmed.variants,
        "compiled": warmed.compiled,
        "seconds": time.perf_counter() - began,
        "cache": os.environ["NUMBA_CACHE_DIR"],
    }
    if as_json:
        print_json(result)
    else:
        typer.echo(
            f"{warmed.variants} kernels ready, {warmed.compiled} of them compiled now "
            f"({result['seconds']:.1f} s), in {result['cache']}"
        )
