"""Pruned networks on a GPU beside the same networks in PyTorch, dense, in CUDA graphs.

    python tests/benchmarks/bench_cuda_networks.py --out results.json

Needs numpy, numba, onnx, cupy and torch with CUDA. Weights are random and pruned by
magnitude: speed does not depend on what they mean. Both take an input on the host and
leave the answer there; ours must agree with PyTorch's in float32 before it is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("kernels", "service"):
    sys.path.insert(0, str(ROOT / folder))

import cuda_networks
import numpy as np
import torch
from cuda_networks import NETWORKS

from nnz_service import engine

ROUNDS = 50

#: Largest difference of an answer, relative to its norm.
CLOSE = {"fp32": 1e-4, "fp16": 2e-2}

Call = Callable[[], Any]


def main() -> int:
    """Run all cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-cuda-networks.json"))
    parser.add_argument("--seconds", type=float, default=240, help="End before.")
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS])
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    rows: list[dict[str, Any]] = []
    document = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": rows,
    }
    for case in cases(options.networks):
        if time.monotonic() > until:
            break
        rows.append(timed(*case))
        print(json.dumps(rows[-1]), flush=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return int(any("error" in row for row in rows))


def cases(names: list[str]) -> Iterator[tuple[str, float, int, str, int]]:
    """Yield network, share of zeros, block, precision and batch."""
    for sparsity, block, batch in (
        (0.9, 4, 1), (0.9, 1, 1), (0.9, 4, 16), (0.75, 4, 1)
    ):  # fmt: skip
        for name in names:
            for precision in ("fp16", "fp32"):
                yield name, sparsity, block, precision, batch


def timed(
    name: str, sparsity: float, block: int, precision: str, batch: int
) -> dict[str, Any]:
    """Load a network twice and let both take turns."""
    row: dict[str, Any] = {
        "name": name, "zeros": sparsity, "block": block, "precision": precision,
        "batch": batch,
    }  # fmt: skip
    try:
        network, x = pruned(name, sparsity, block, batch)
        began = time.perf_counter()
        model = engine.load(exported(network, x), backend="cuda", precision=precision)
        row["load_s"] = round(time.perf_counter() - began, 2)
        with torch.inference_mode(), exactly():
            right = network.cuda()(x.cuda()).cpu().numpy()
        feeds = {"x": x.numpy()}
        calls = {
            "nnz": lambda: model.run(feeds)["y"],
            "torch": replayed(network, x, precision),
        }
        for who, call in calls.items():
            gap = np.linalg.norm(call() - right) / np.linalg.norm(right)
            row[f"differs_{who}"] = float(f"{gap:.1e}")
        if not row["differs_nnz"] < CLOSE[precision]:
            raise ArithmeticError(f"the answer differs by {row['differs_nnz']}")
        times = race(calls)
        row["ms"] = {who: round(ms, 3) for who, ms in times.items()}
        row["ratio"] = round(times["torch"] / times["nnz"], 2)
        row["bytes"] = model.nbytes
        model.measure(feeds)
        slowest = sorted(model.explain(), key=lambda r: -(r["ms"] or 0))[:4]
        row["slowest"] = [[r["name"], r["kernel"], r["ms"]] for r in slowest]
    except Exception as exc:  # the others are still worth their time
        row["error"] = repr(exc)[:600]
    return row


def pruned(
    name: str, sparsity: float, block: int, batch: int
) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a network whose weights are zero in blocks, and an input."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().eval()
    cuda_networks.prune(network, sparsity, block)
    return network, torch.randn(batch, *shape)


def exported(network: torch.nn.Module, x: torch.Tensor) -> bytes:
    """Return the network as ONNX."""
    file = io.BytesIO()
    # The exporter says what it thinks of itself.
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            network, (x,), file, opset_version=17, dynamo=False,
            input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip
    return file.getvalue()


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Keep PyTorch from rounding to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def replayed(network: torch.nn.Module, x: torch.Tensor, precision: str) -> Call:
    """Return the dense network in a CUDA graph, from pinned memory and back."""
    kind = torch.float16 if precision == "fp16" else torch.float32
    layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    network = network.cuda().to(kind, memory_format=layout)
    pinned = x.pin_memory()
    there = x.cuda().to(kind, memory_format=layout)
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                network(there)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = network(there)
        back = torch.empty(out.shape, dtype=kind, pin_memory=True)

    @torch.inference_mode()
    def call() -> Any:
        there.copy_(pinned, non_blocking=True)
        graph.replay()
        back.copy_(out, non_blocking=True)
        torch.cuda.synchronize()
        return back.float().numpy()

    return call


def race(calls: dict[str, Call]) -> dict[str, float]:
    """Return the median milliseconds of each; they take turns."""
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(ROUNDS):
        for who, call in calls.items():
            began = time.perf_counter()
            call()
            times[who].append(1e3 * (time.perf_counter() - began))
    return {who: float(np.median(found)) for who, found in times.items()}


if __name__ == "__main__":
    sys.exit(main())
