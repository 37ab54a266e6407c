"""Put a model on a server and apply it to random inputs.

Usage: python infer.py MODEL.onnx [BATCH]
The server is the one at NNZ_URL; where that is not set, one inside this process.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from nnz import Client


def main(path: Path, batch: int) -> None:
    """Infer, then say what came back and how many layers are sparse."""
    rng = np.random.default_rng(0)
    with Client.anywhere() as client:
        model = client.models.put(path.stem, path)
        feeds = {
            spec.name: rng.random(
                [batch if extent is None else extent for extent in spec.shape]
            ).astype(np.float32)
            for spec in model.inputs
        }
        model.infer(feeds)  # the first call of a shape plans it
        start = time.perf_counter()
        outputs = model.infer(feeds)
        seconds = time.perf_counter() - start
        plan = client.models.get(path.stem).info.plan
    for name, array in outputs.items():
        print(f"{name}: {array.dtype} {array.shape}")
    sparse = sum((row.get("density") or 1.0) < 1.0 for row in plan)
    print(f"{sparse} sparse layers, {1e3 * seconds:.2f} ms there and back")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 1)
