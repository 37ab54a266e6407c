"""Train the demo's two networks: a dense one, and the same pruned to 90% in 1x4 blocks.

A development tool (``pip install '.[train]'``); the product never imports it. Seeds are
fixed and one thread is used, so that a second run on the same machine and the same
version of PyTorch repeats the first. About five minutes on one core.

The pruning schedule is the cubic one of Zhu and Gupta, "To prune, or not to prune"
(arXiv 1710.01878): fast at first, while much is redundant, slow towards the end.
"""

from __future__ import annotations

import copy
from pathlib import Path

import digits
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SPARSITY, BLOCK = 0.9, 4
DENSE_EPOCHS, PRUNE_EPOCHS, TUNE_EPOCHS = 30, 30, 30
BATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 2e-3, 1e-4
CHANNELS = 32  # of the stem
#: (output channels, stride) of the depthwise + pointwise blocks; first 16 x 16 pixels.
BLOCKS = ((64, 1), (128, 2), (128, 1), (192, 1), (192, 2))
HIDDEN = 96
ONNX_LIMIT = 500_000  # bytes: the files are kept in the repository


def conv(inputs: int, outputs: int, size: int, stride: int, groups: int) -> nn.Module:
    """Build convolution, normalisation and activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def network() -> nn.Sequential:
    """Build the classifier: stem, separable blocks, global pool, two dense layers."""
    layers, width = [conv(1, CHANNELS, 3, 1, 1)], CHANNELS
    for outputs, stride in BLOCKS:
        layers.append(conv(width, width, 3, stride, width))
        layers.append(conv(width, outputs, 1, 1, 1))
        width = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, HIDDEN), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(HIDDEN, 10))


def prunable(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights to prune: of pointwise convolutions and dense layers."""
    return {
        name: module.weight
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    }


def block_of(outputs: int) -> int:
    """Return the block that divides the outputs: 4, or 2 for the ten classes."""
    return next(b for b in (BLOCK, 2, 1) if outputs % b == 0)


def mask(weight: Tensor, sparsity: float) -> Tensor:
    """Keep the blocks of output channels whose mean magnitude is largest."""
    flat = weight.detach().reshape(weight.shape[0], -1)
    block = block_of(flat.shape[0])
    score = flat.abs().reshape(-1, block, flat.shape[1]).mean(1)
    keep = score.numel() - round(sparsity * score.numel())
    chosen = torch.zeros(score.numel())
    chosen[score.flatten().argsort(descending=True, stable=True)[:keep]] = 1
    return chosen.reshape(score.shape).repeat_interleave(block, 0).view_as(weight)


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move each picture by at most one of its original pixels."""
    padded = functional.pad(x, (2, 2, 2, 2), value=-1.0)
    moves = torch.randint(0, 5, (len(x), 2), generator=rng)
    return torch.stack(
        [p[:, r : r + 16, c : c + 16] for p, (r, c) in zip(padded, moves, strict=True)]
    )


def accuracy(net: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Return the share of pictures that the network names rightly."""
    net.eval()
    with torch.no_grad():
        return float((net(x).argmax(1) == labels).float().mean())


def train(
    net: nn.Module, data: tuple[Tensor, Tensor], epochs: int, prune: int = 0
) -> None:
    """Train in place; over the first `prune` epochs the weights are pruned away.

    Args:
        net: the network.
        data: pictures and labels of the training part.
        epochs: passes over the data; the learning rate falls along a cosine.
        prune: epochs of the cubic schedule, 0 for none; the masks stay afterwards.
    """
    x, labels = data
    rng = torch.Generator().manual_seed(digits.SEED)
    optimizer = torch.optim.AdamW(
        net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    masks: dict[str, Tensor] = {}
    for epoch in range(epochs):
        net.train()
        total = 0.0
        if epoch < prune:
            target = SPARSITY * (1 - (1 - (epoch + 1) / prune) ** 3)
            masks = {name: mask(w, target) for name, w in prunable(net).items()}
        for picked in torch.randperm(len(x), generator=rng).split(BATCH):
            loss = functional.cross_entropy(
                net(augment(x[picked], rng)), labels[picked], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for name, weight in prunable(net).items() if masks else ():
                    weight *= masks[name]
            total += loss.item()
        print(f"  epoch {epoch + 1:3d}  loss {total / steps:.4f}", flush=True)


def export(net: nn.Module, path: Path) -> None:
    """Write an ONNX file with a free batch; normalisation goes into the weights."""
    net.eval()
    torch.onnx.export(
        net, (torch.zeros(1, 1, 16, 16),), str(path), dynamo=False, opset_version=17,
        input_names=["x"], output_names=["logits"],
        dynamic_axes={"x": {0: "n"}, "logits": {0: "n"}},
    )  # fmt: skip
    size = path.stat().st_size
    if size >= ONNX_LIMIT:
        raise SystemExit(f"{path.name} has {size} bytes, the limit is {ONNX_LIMIT}")
    print(f"{path.name}: {size} bytes")


def report(net: nn.Module) -> None:
    """Print the share of zeros of each pruned layer and of all weights."""
    for name, weight in prunable(net).items():
        zeros = float((weight == 0).float().mean())
        shape, block = tuple(weight.shape), block_of(weight.shape[0])
        print(f"  {name:6s} {shape!s:20s} blocks 1x{block}  zeros {zeros:.4f}")
    weights = [p for p in net.parameters() if p.dim() > 1]
    zeros = sum(int((p == 0).sum()) for p in weights)
    print(f"  all weights: zeros {zeros / sum(p.numel() for p in weights):.4f}")


def main() -> None:
    """Train, prune, export both networks."""
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    torch.manual_seed(digits.SEED)
    pixels, labels = load_digits().images.astype(np.uint8), load_digits().target
    out = digits.held_out(labels)
    x, y = torch.from_numpy(digits.preprocess(pixels)), torch.from_numpy(labels)

    dense = network()
    train(dense, (x[~out], y[~out]), DENSE_EPOCHS)
    sparse = copy.deepcopy(dense)
    train(sparse, (x[~out], y[~out]), PRUNE_EPOCHS + TUNE_EPOCHS, prune=PRUNE_EPOCHS)

    print(f"trained on {(~out).sum()} pictures, held out {out.sum()}")
    for name, net in (("dense", dense), ("sparse", sparse)):
        print(f"{name}: held-out accuracy {accuracy(net, x[out], y[out]):.4f}")
        report(net)
    export(dense, digits.DENSE_MODEL)
    export(sparse, digits.SPARSE_MODEL)


if __name__ == "__main__":
    main()
