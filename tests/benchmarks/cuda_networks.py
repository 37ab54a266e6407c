"""Networks in PyTorch with random weights, pruned by magnitude; for benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution with its normalisation, no activation."""
    padding = size // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Pooled(nn.Module):
    """Features, their mean over the picture, and a linear classifier."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.classify = features, nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Classify (n, 3, h, w)."""
        return self.classify(self.features(x).mean((2, 3)))


def mobilenet() -> nn.Module:
    """MobileNetV1 (Howard et al. 2017), width 1."""
    layers: list[nn.Module] = [convolution(3, 32, 3, 2), nn.ReLU()]
    widths = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    before = 32
    for number, width in enumerate(widths):
        stride = 2 if number in (1, 3, 5, 11) else 1
        layers += [convolution(before, before, 3, stride, before), nn.ReLU()]
        layers += [convolution(before, width, 1), nn.ReLU()]
        before = width
    return Pooled(nn.Sequential(*layers), before)


class Bottleneck(nn.Module):
    """Block of ResNet-50 (He et al. 2015), with the stride in its 3x3 layer."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(inputs, width, 1), nn.ReLU(),
            convolution(width, width, 3, stride), nn.ReLU(),
            convolution(width, 4 * width, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == 4 * width
        self.shortcut = (
            nn.Identity() if same else convolution(inputs, 4 * width, 1, stride)
        )
        # Sums grow from block to block otherwise, beyond what float16 holds.
        for part in (self.body[-1], self.shortcut):
            if isinstance(part, nn.Sequential):
                nn.init.constant_(part[1].weight, 0.4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result."""
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [
        convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    before = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            layers.append(Bottleneck(before, width, stride if number == 0 else 1))
            before = 4 * width
    return Pooled(nn.Sequential(*layers), before)


class EncoderLayer(nn.Module):
    """Layer of BERT (Devlin et al. 2018), normalised behind its sums."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Encode (n, tokens, width)."""
        n, tokens, width = x.shape
        q, k, v = (
            part(x).view(n, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).reshape(x.shape)))
        return self.norms[1](x + self.down(functional.gelu(self.up(x))))


def encoder() -> nn.Module:
    """The encoder of BERT-base."""
    return nn.Sequential(*[EncoderLayer(768, 12) for _ in range(12)])


#: How to make each network, and the shape of one input.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenet_v1": (mobilenet, (3, 224, 224)),
    "resnet50": (resnet, (3, 224, 224)),
    "bert": (encoder, (128, 768)),
}


@torch.no_grad()
def prune(network: nn.Module, sparsity: float, block: int) -> None:
    """Zero the smallest blocks of output channels of each layer; in place.

    First layers and those with groups stay dense. Norms stay those of He's start, so
    that activations neither fade nor grow.

    Args:
        network: Of linear layers and convolutions.
        sparsity: Share of zeros.
        block: Output channels that are zero together.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.groups > 1 or layer.in_channels == 3:
                continue
        elif not isinstance(layer, nn.Linear):
            continue
        rows = layer.weight.reshape(-1, block, layer.weight[0].numel())
        sizes = rows.abs().mean(1)
        bound = sizes.flatten().kthvalue(max(int(sparsity * sizes.numel()), 1)).values
        kept = rows * (sizes > bound).unsqueeze(1)
        layer.weight.copy_(
            (kept * (rows.norm() / kept.norm())).reshape_as(layer.weight)
        )
