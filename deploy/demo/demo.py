"""The main job, end to end: a pruned network and a sparse system, on one server.

Starts a server unless ``--url`` names one that is running, classifies held-out digits
with a dense and with a pruned network, multiplies by a matrix of 250,000 rows and
solves with it, and checks every answer on this side. Exit code 0 means that all of it
was right.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import digits
import numpy as np
import scipy.sparse
from local_server import ServerFailedError, running, wait_until_ready
from rich.console import Console
from rich.table import Table

from nnz import Client, Model, NnzError

BATCH, ROUNDS = 90, 21
GRID = 500  # points a side of the membrane: 250,000 unknowns
TOLERANCE = 1e-8
#: What the digits must reach: the dense network, and how far the pruned may be behind.
LEAST_ACCURACY, LARGEST_LOSS = 0.98, 0.01
SOLVE_LIMIT = 120.0  # seconds
URL_PATIENCE = 3.0  # seconds in which a server that somebody else runs must answer
LOG_EVERY = 5.0  # seconds between lines of progress where there is no terminal

DIGITS_TITLE = f"450 held-out digits, in batches of {BATCH}"
SOLVE_TITLE = f"a membrane of {GRID} x {GRID} points, 250,000 unknowns"

console = Console()
began = time.perf_counter()


class WrongAnswerError(Exception):
    """Something that the server said is not right."""


@dataclass(frozen=True)
class Network:
    """What came out for one network."""

    name: str
    accuracy: float
    weight_bytes: int
    dense_bytes: int
    sparse_layers: int
    microseconds: float  # an image, round trip, median


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    console.print(f"[dim]{time.perf_counter() - began:6.1f} s[/dim]  {text}")


class Progress:
    """Shows what is going on: in place on a terminal, in a log a line now and then."""

    def __init__(self) -> None:
        self._status = console.status("")
        self._due = 0.0

    def __call__(self, text: str) -> None:
        """Show this from now on."""
        self._status.update(text)
        if not console.is_terminal and time.perf_counter() >= self._due:
            self._due = time.perf_counter() + LOG_EVERY
            say(text)

    def __enter__(self) -> Progress:
        """Begin to show."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line."""
        self._status.stop()


def check(right: bool, what: str) -> None:
    """Stop when something is not as it must be."""
    if not right:
        raise WrongAnswerError(what)


def classify(client: Client) -> list[Network]:
    """Put both networks on the server and classify the held-out digits."""
    pixels, labels = digits.load_held_out()
    pictures = digits.preprocess(pixels)
    batches = np.array_split(pictures, len(pictures) // BATCH)
    models = {
        name: client.models.put(f"digits-{name}", path)
        for name, path in (
            ("dense", digits.DENSE_MODEL),
            ("sparse", digits.SPARSE_MODEL),
        )
    }
    named = {
        name: np.concatenate([infer(model, batch) for batch in batches])
        for name, model in models.items()
    }
    times = interleaved(
        {name: lambda m=model: infer(m, batches[0]) for name, model in models.items()}
    )
    found = []
    for name in models:
        plan = client.models.get(f"digits-{name}").info.plan
        layers = [row for row in plan if row.get("bytes")]
        found.append(
            Network(
                name=name,
                accuracy=float((named[name] == labels).mean()),
                weight_bytes=sum(row["bytes"] for row in layers),
                dense_bytes=sum(row["dense_bytes"] for row in layers),
                sparse_layers=sum(1 for row in layers if row["block"]),
                microseconds=1e6 * times[name] / len(batches[0]),
            )
        )
    return found


def infer(model: Model, batch: np.ndarray) -> np.ndarray:
    """Return the digit that the network sees in each picture."""
    logits = model.infer({"x": batch})["logits"]
    check(bool(np.isfinite(logits).all()), f"{model.name} gave numbers that are none")
    return logits.argmax(axis=1)


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time the calls in turn; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def check_networks(dense: Network, sparse: Network) -> None:
    """Compare with what the networks are known to reach."""
    check(dense.accuracy >= LEAST_ACCURACY, f"dense accuracy {dense.accuracy:.4f}")
    check(
        sparse.accuracy >= dense.accuracy - LARGEST_LOSS,
        f"the pruned network is {dense.accuracy - sparse.accuracy:.4f} less accurate",
    )
    check(sparse.sparse_layers > 0, "no layer of the pruned network runs sparse")
    check(
        sparse.weight_bytes < dense.weight_bytes / 2,
        f"pruned weights take {sparse.weight_bytes} bytes of {dense.weight_bytes}",
    )


def membrane() -> scipy.sparse.csr_array:
    """Build the five-point Laplacian of a square: symmetric positive definite."""
    line = scipy.sparse.diags_array(
        [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(GRID, GRID)
    )
    return scipy.sparse.kronsum(line, line, format="csr")


@dataclass(frozen=True)
class Solution:
    """What came out for the linear system."""

    multiply_seconds: float
    multiply_error: float
    iterations: int
    solve_seconds: float
    residual: float


def solve(client: Client) -> Solution:
    """Upload the matrix, multiply, solve as a job; check both against scipy here."""
    a = membrane()
    matrix = client.matrices.put(a, name="membrane")
    say(f"matrix {matrix.id}: {a.shape[0]:,} rows, {a.nnz:,} nonzeros")

    x = np.random.default_rng(0).standard_normal(a.shape[1])
    seconds = interleaved({"multiply": lambda: matrix @ x})["multiply"]
    expected = a @ x
    error = float(np.linalg.norm(matrix @ x - expected) / np.linalg.norm(expected))
    check(error < 1e-12, f"the product is wrong by {error:.1e}")

    b = np.ones(a.shape[0])
    start = time.perf_counter()
    job = client.jobs.cg(matrix, b, rtol=TOLERANCE, preconditioner="jacobi")
    with Progress() as progress:
        job.wait(SOLVE_LIMIT, lambda info: progress(progress_line(info.progress)))
    result = job.result()
    elapsed = time.perf_counter() - start
    check(result.converged, f"conjugate gradients ended with {result.status}")

    residual = float(np.linalg.norm(b - a @ result.x) / np.linalg.norm(b))
    # Another order of summation may differ in the last digits of the norm.
    check(
        residual <= TOLERANCE * (1 + 1e-6),
        f"the residual is {residual:.2e}, not {TOLERANCE:g}",
    )
    return Solution(seconds, error, result.iterations, elapsed, residual)


def progress_line(progress: Mapping[str, Any]) -> str:
    """Describe how far the solver is."""
    if "relative_residual" not in progress:
        return "solving"
    done, residual = progress["iterations"], progress["relative_residual"]
    if residual is None:  # the preconditioner is still being made
        return "solving: preparing"
    return f"solving: iteration {done}, relative residual {residual:.1e}"


def report(networks: list[Network], solution: Solution) -> None:
    """Print the two tables."""
    table = Table("network", title=DIGITS_TITLE, title_justify="left")
    for column in ("accuracy", "weight bytes", "sparse layers", "µs an image"):
        table.add_column(column, justify="right")
    for n in networks:
        table.add_row(
            n.name, f"{n.accuracy:.2%}", f"{n.weight_bytes:,}", str(n.sparse_layers),
            f"{n.microseconds:.0f}",
        )  # fmt: skip
    console.print(table)

    table = Table("", title=SOLVE_TITLE, title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("checked here")
    table.add_row(
        "A @ x",
        f"{solution.multiply_seconds:.4f}",
        f"differs from scipy by {solution.multiply_error:.0e}",
    )
    table.add_row(
        f"CG, {solution.iterations} iterations",
        f"{solution.solve_seconds:.2f}",
        f"|b - A x| / |b| = {solution.residual:.2e}",
    )
    console.print(table)


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    """Wait for the server at *url*, or run one; yields where it is."""
    with contextlib.ExitStack() as stack:
        with Progress() as progress:
            if url is None:
                say("starting a server; the first start compiles its kernels")
                url = stack.enter_context(running(progress))
            wait_until_ready(url, progress, patience=URL_PATIENCE)
        say(f"server ready at {url}")
        yield url


def run(client: Client) -> None:
    """Do everything."""
    networks = classify(client)
    check_networks(*networks)
    say("digits classified by the dense and by the pruned network")
    solution = solve(client)
    say("product and solution checked")
    report(networks, solution)


def main() -> int:
    """Read the command line, run, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="a running server; a new one is started without")
    # Told to stop, leave by the way that stops the server too.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))
    try:
        with server(parser.parse_args().url) as url, Client(url) as client:
            run(client)
    except (WrongAnswerError, ServerFailedError, NnzError) as exc:
        console.print(f"FAILED: {exc}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
