"""Choose how each layer holds its weights, pack them, and check the choice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.conv import ConvSpec
from nnz_kernels.hosted import hosted
from nnz_kernels.planes import Grid
from nnz_service.engine.graph import Array, Graph, Node, Shape
from nnz_service.engine.passes.layers import LAYERS
from nnz_service.engine.tuning import Problem, Timed, Tuner
from nnz_service.errors import ServiceError

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels
    from nnz_kernels.api.conv import PreparedConv

#: Output channels that may share a column index, largest first.
BLOCKS = (16, 8, 4, 2, 1)

#: Share of the weights in kept blocks that must be nonzero for a block to be "found"
#: (XNNPACK asks for the same, convolution-nchw.c), and share of kept blocks above which
#: zeros show no pattern.
FULL = 0.9

#: Time of one multiplied weight against one of the dense kernel, by block: a wider
#: block loads each pixel for more products. Measured shapes are in the CPU kernels.
COST = {16: 1.1, 8: 1.1, 4: 1.15, 2: 1.6, 1: 2.3}

#: The same on a device, by the loads that each multiply-add needs there: the order in
#: which candidates are tried, and the choice where nothing is measured.
DEVICE_COST = {16: 1.0, 8: 1.0, 4: 1.1, 2: 1.7, 1: 3.3}

#: Largest share of dense time at which a sparse kernel is worth its indices.
WORTH = 0.9

#: Relative difference from the dense result that the order of summation explains, and
#: the rounding of weights and pixels, by the type of planes.
TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "uint16": 3e-2}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with its packed weights, and why they are packed so.

    Args:
        prepared: Packed weights, ready to bind.
        spec: Geometry and clamp that they were packed with.
        shape: Shape of the weights.
        density: Share of weights that are not zero.
        blocks_found: Blocks whose pattern the zeros follow.
        block: The chosen block, None for dense.
        reason: The choice in words.
        fell_back: Whether the chosen kernel failed its check at load.
        candidates: Kernels that were measured with their ms, the chosen one first.
    """

    prepared: PreparedConv[Array]
    spec: ConvSpec
    shape: Shape
    density: float
    blocks_found: tuple[int, ...]
    block: int | None
    reason: str
    fell_back: bool = False
    candidates: tuple[tuple[str, float], ...] = ()

    @property
    def dense_bytes(self) -> int:
        """Bytes of the weights as an ordinary float32 array."""
        return int(np.prod(self.shape)) * 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What the cost model says about one array of weights.

    Args:
        block: The block that should be fastest, None for dense.
        density: Share of weights that are not zero.
        blocks_found: Blocks whose pattern the zeros follow.
        expected: Time of each block, None for dense, as a share of dense time.
        reason: The choice in words.
    """

    block: int | None
    density: float
    blocks_found: tuple[int, ...]
    expected: Mapping[int | None, float]
    reason: str


def sparsify(
    graph: Graph,
    kernels: Kernels[Array],
    specs: dict[str, ConvSpec],
    grids: Mapping[str, tuple[Grid, Grid]],
    tuner: Tuner | None,
) -> dict[str, Layer]:
    """Pack the weights of all layers; the graph forgets them.

    Args:
        graph: Layers lose the attributes weights and bias.
        kernels: The back-end that will run the layers.
        specs: Geometry of every layer, by the name of its node.
        grids: Grids of its input and output on the main shapes.
        tuner: Measures candidates; None leaves the choice to the cost model.

    Returns:
        Packed layers by the name of their node.

    Raises:
        ServiceError: Under NNZ_STRICT=1, a layer differs from its dense twin.
    """
    return {
        node.name: _pack(node, kernels, specs[node.name], grids[node.name], tuner)
        for node in graph.nodes
        if node.op in LAYERS
    }


def choose(weights: Array, groups: int, costs: Mapping[int, float] = COST) -> Choice:
    """Choose dense or a block by what each would multiply.

    Args:
        weights: ``(oc, ic/group, ...)``.
        groups: Groups of the convolution; a block never crosses one.
        costs: Time of one multiplied weight, by block.
    """
    oc = weights.shape[0]
    used = weights.reshape(oc, -1) != 0
    density = float(used.mean())
    dense: dict[int | None, float] = {None: 1.0}
    if groups == oc and weights.shape[1] == 1:
        reason = "depthwise layers have one dense kernel"
        return Choice(None, density, (), dense, reason)
    if density == 1.0:
        return Choice(None, density, (), dense, "no weight is zero")
    kept = {b: _kept(used, b) for b in BLOCKS if (oc // groups) >= b or b == 1}
    found = tuple(b for b in kept if FULL * kept[b] <= density and kept[b] < FULL)
    times = {b: share * costs[b] for b, share in kept.items()}
    best = min(times, key=lambda b: (times[b], -b))
    expected = dict(dense)
    expected.update(times.items())
    percent = f"{density:.0%} of weights"
    if times[best] > WORTH:
        reason = (
            f"{percent}: a sparse kernel would take {times[best]:.2f} of dense time"
        )
        return Choice(None, density, found, expected, reason)
    reason = (
        f"{percent}, {kept[best]:.0%} in blocks of 1x{best}: about {times[best]:.2f} "
        "of dense time"
    )
    return Choice(best, density, found, expected, reason)


def _kept(used: Array, block: int) -> float:
    """Share of weights that lie in blocks with any nonzero."""
    oc, k = used.shape
    whole = -(-oc // block) * block
    padded = np.zeros((whole, k), bool)
    padded[:oc] = used
    return float(padded.reshape(-1, block, k).any(axis=1).sum() * block / (oc * k))


def _pack(
    node: Node,
    kernels: Kernels[Array],
    spec: ConvSpec,
    grids: tuple[Grid, Grid],
    tuner: Tuner | None,
) -> Layer:
    weights, bias = node.attrs.pop("weights"), node.attrs.pop("bias")
    shape = weights.shape
    costs = COST if kernels.DEVICE is None else DEVICE_COST
    choice = choose(weights, spec.groups, costs)
    if node.attrs.get("apart"):
        share = choice.density
        choice = Choice(
            1, share, (1,), {1: share}, f"{share:.0%} of weights: rows apart"
        )
    weights = weights_4d(weights)
    block, reason, fell_back = choice.block, choice.reason, False
    tilings = kernels.tilings(weights.shape, spec, block, grids[1].pixels)
    if node.attrs.get("apart"):
        tilings = tuple(tiling for tiling in tilings if tiling != "bitmap")
    tiling = tilings[0]
    timed: list[Timed] = []
    # A device has so many ways that some multiply zeros, which rows apart forbid.
    if tuner is not None and not (node.attrs.get("apart") and kernels.DEVICE):
        timed = tuner.measure(Problem(weights, bias, spec, grids), choice.expected)
    if timed:
        block, tiling = timed[0].block, timed[0].tiling
        reason = _measured(timed, choice)
    prepared = kernels.prepare_conv(weights, bias, spec, block=block, tiling=tiling)
    checked = block is not None or tiling == "winograd"
    if checked and not agrees(kernels, prepared, weights, bias, spec):
        _report(node, prepared.kernel)
        failed = prepared.kernel
        prepared = kernels.prepare_conv(weights, bias, spec, block=None)
        block, fell_back = None, True
        reason = f"{failed} differed from the dense kernel at load"
    return Layer(
        prepared,
        spec,
        shape,
        choice.density,
        choice.blocks_found,
        block,
        reason,
        fell_back,
        tuple((one.kernel, one.ms) for one in timed),
    )


def _measured(timed: list[Timed], choice: Choice) -> str:
    """Say in words why the first candidate was taken."""
    first = timed[0]
    if len(timed) == 1:
        return choice.reason
    fastest = min(timed, key=lambda one: one.ms)
    percent = f"{choice.density:.0%} of weights"
    if choice.density == 1.0:
        percent = choice.reason
    if first is fastest:
        second = min(timed[1:], key=lambda one: one.ms)
        return (
            f"{percent}: {first.ms:.3f} ms measured, fastest of {len(timed)}; "
            f"{second.kernel} takes {second.ms / first.ms:.2f} times as long"
        )
    return (
        f"{percent}: {first.ms:.3f} ms measured; {fastest.kernel} takes "
        f"{fastest.ms / first.ms:.2f} of that, for {fastest.nbytes / first.nbytes:.2f} "
        f"times the bytes; {len(timed)} tried"
    )


def weights_4d(weights: Array) -> Array:
    """Weights of a linear layer or a 1-D convolution as ``(oc, ic, kh, kw)``."""
    if weights.ndim == 2:
        return weights[:, :, None, None]
    return weights[:, :, None, :] if weights.ndim == 3 else weights


def agrees(
    kernels: Kernels[Array],
    prepared: PreparedConv[Array],
    weights: Array,
    bias: Array | None,
    spec: ConvSpec,
) -> bool:
    """Compare a packed layer with its dense twin on one random image."""
    kh, kw = weights.shape[2:]
    channels = weights.shape[1] * spec.groups
    h = (kh - 1) * spec.dilations[0] + 1 + spec.strides[0]
    w = (kw - 1) * spec.dilations[1] + 1 + spec.strides[1] + (30 if kh == 1 else 4)
    if prepared.kernel == "dense_winograd":
        h, w = h + 6, w + 66  # several strips, and rows of more tiles than lanes
    out_h, out_w = spec.output_size(h, w, (kh, kw))
    x, y = Grid(1, h, w), Grid(1, out_h, out_w)
    image = np.random.default_rng(0).standard_normal((1, channels, h, w), np.float32)
    host = hosted(kernels)
    with np.errstate(all="ignore"):
        dense = _dense(weights, bias, spec, image, (out_h, out_w))
        if spec.activation is not None:
            host.unary(spec.activation, dense, dense)
    rows = dense.transpose(1, 0, 2, 3)
    found = _run_once(kernels, prepared, (image, x), (y, weights.shape[0]))
    results = [found, rows]
    # Weights may hold infinities: then both must give them at the same places.
    finite = np.isfinite(results)
    if not np.array_equal(finite[0], finite[1]):
        return False
    ours, theirs = (np.where(finite[0], found, 0.0) for found in results)
    scale = float(np.linalg.norm(theirs)) + 1e-30
    tolerance = TOLERANCE[str(kernels.PLANES)]
    return float(np.linalg.norm(ours - theirs)) <= tolerance * scale


def _dense(
    weights: Array,
    bias: Array | None,
    spec: ConvSpec,
    image: Array,
    size: tuple[int, int],
) -> Array:
    """Convolve by definition: the taps of every pixel in columns, times all weights."""
    oc, a_group, kh, kw = weights.shape
    top, left, bottom, right = spec.pads
    padded = np.pad(image[0], ((0, 0), (top, bottom), (left, right)))
    down, across = (
        np.arange(size[axis])[None, :] * spec.strides[axis]
        + np.arange((kh, kw)[axis])[:, None] * spec.dilations[axis]
        for axis in (0, 1)
    )
    taps = padded[:, down[:, None, :, None], across[None, :, None, :]]
    columns = taps.reshape(spec.groups, a_group * kh * kw, -1)
    rows = weights.reshape(spec.groups, oc // spec.groups, -1)
    total = np.matmul(rows, columns).reshape(oc, 1, *size)
    if bias is not None:
        total += bias[:, None, None, None]
    return np.asarray(np.clip(total, *spec.clamp), np.float32)


def _run_once(
    kernels: Kernels[Array],
    prepared: PreparedConv[Array],
    source: tuple[Array, Grid],
    target: tuple[Grid, int],
) -> Array:
    """Convolve an image `[1, c, h, w]` where the kernels have their planes."""
    device, (image, x), (y, channels) = kernels.DEVICE, source, target

    def empty(*shape: int, dtype: npt.DTypeLike = kernels.PLANES) -> Array:
        made: Array = (
            np.empty(shape, dtype) if device is None else device.empty(shape, dtype)
        )
        return made

    laid, out = empty(x.size(image.shape[1])), empty(y.size(channels))
    kernels.to_planes(image if device is None else device.to_device(image), laid, x)
    bound = prepared.bind(x, y)
    bound.run(laid, out, None, empty(bound.scratch))
    rows = empty(1, channels, y.h, y.w, dtype=np.float32)
    kernels.from_planes(out, y, channels, rows)
    return rows if device is None else device.to_host(rows)


def _report(node: Node, kernel: str) -> None:
    message = f"{node.label()}: kernel {kernel} differs from the dense result"
    if os.environ.get("NNZ_STRICT") == "1":
        raise ServiceError(message)
    warnings.warn(f"{message}; the layer runs dense", RuntimeWarning, stacklevel=2)
