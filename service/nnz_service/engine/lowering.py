"""Turn an optimised graph into a plan for one set of input shapes.

A value lives where its producer leaves it: as planes (an image, or tokens: features x
everything else) or as a plain row-major array. A reader that needs it elsewhere adds a
conversion, once for all readers. Pure data movement makes no step: it is a view.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_kernels.api.attach import Call, attach
from nnz_kernels.hosted import hosted
from nnz_kernels.planes import Grid, token_grid
from nnz_service.engine.device_rows import on_device
from nnz_service.engine.graph import Array, Graph, Node, Shape
from nnz_service.engine.moves import MOVES, VIEWS
from nnz_service.engine.passes.layout import Grids, choose_grids, image_size
from nnz_service.engine.passes.sparsify import Layer
from nnz_service.engine.plan import Plan, PlanBuilder, Slot
from nnz_service.engine.rows import compute
from nnz_service.engine.shapes import Facts

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True, slots=True)
class Planes:
    """A value as planes: a flat buffer, its grid, and its channels."""

    slot: Slot
    grid: Grid
    channels: int


@dataclass(slots=True)
class Value:
    """All forms in which a value is held so far.

    Args:
        rows: As a plain array.
        image: As planes of ``[n, c, h, w]``.
        tokens: As planes of ``[..., features]``.
        in_planes: Whether its producer left it in planes.
    """

    rows: Slot | None = None
    image: Planes | None = None
    tokens: Planes | None = None
    in_planes: bool = False

    @property
    def planes(self) -> Planes | None:
        """The planes that it lives in, None when it lives in a plain array."""
        return (self.image or self.tokens) if self.in_planes else None

    @property
    def matrix(self) -> Planes | None:
        """Its planes if they are a matrix: a feature a channel, a row a pixel."""
        if self.image is not None and (self.image.grid.h, self.image.grid.w) == (1, 1):
            return self.image
        return self.tokens


class Lowering:
    """The state of one lowering; the families of operations are in `operations`.

    Args:
        graph: Optimised.
        facts: Specs and known values for the shapes in question.
        layers: Packed layers by the name of their node.
        kernels: The back-end.
        threads: Threads that kernels may use.
    """

    def __init__(
        self,
        graph: Graph,
        facts: Facts,
        layers: Mapping[str, Layer],
        kernels: Kernels[Array],
        threads: int,
    ) -> None:
        self.facts = facts
        self.layers = layers
        self.kernels = kernels
        self.device = kernels.DEVICE
        self.threads = threads
        self.build = PlanBuilder()
        self.grids: Grids = choose_grids(graph, facts)
        self._inputs = {info.name for info in graph.inputs}
        self._values: dict[str, Value] = {}

    def value(self, name: str) -> Value:
        """Forms of a value; one that is known becomes a constant of the plan."""
        found = self._values.setdefault(name, Value())
        known = self.facts.values.get(name)
        if known is not None and found.rows is None:
            found.rows = self.build.constant(known)
        return found

    def shape(self, name: str) -> Shape:
        """Shape of a value."""
        return self.facts.shape(name)

    def constant(self, array: Array) -> Array:
        """A constant in the memory of the back-end."""
        if self.device is None:
            return array
        made: Array = self.device.to_device(array)
        return made

    def later(self, ask: Call) -> Call:
        """What `ask` does, at every run: on a device its work is recorded."""
        return ask if self.device is None else self.device.record(ask)

    def copied(self, source: Array, target: Array) -> Call:
        """A copy between views."""
        if self.device is None:
            return functools.partial(np.copyto, target, source)
        copy = self.kernels.copy
        return self.device.record(lambda: copy(source, target))

    # -- forms of inputs ------------------------------------------------------------

    def rows(self, name: str, *, contiguous: bool = True) -> Slot:
        """The value as a plain array; a view with gaps only if that is allowed."""
        value = self.value(name)
        if value.rows is None:
            value.rows = self._make_rows(name, value, contiguous)
        if contiguous and not value.rows.is_contiguous:
            strided = value.rows
            packed = self.build.allocate(strided.dtype, strided.shape)
            self.build.attached(name, "copy", "copy", self.copied, strided, packed)
            value.rows = packed
        return value.rows

    def _make_rows(self, name: str, value: Value, contiguous: bool) -> Slot:
        spec = self.facts.specs[name]
        if name in self._inputs:
            slot = self.build.allocate(spec.dtype, spec.shape)
            self.build.load(name, _load, slot)
            return slot
        planes = value.image or value.tokens
        if planes is None:
            raise AssertionError(f"{name} is used before it is made")
        if not contiguous and planes.slot.dtype == spec.dtype:
            return self.build.view(planes.slot, _pixels(planes, value, spec.shape))
        slot = self.build.allocate(spec.dtype, spec.shape)
        kernels, grid, channels = self.kernels, planes.grid, planes.channels

        def from_image(x: Array, out: Array) -> Call:
            return attach(kernels.from_planes, x, grid, channels, out)

        def from_tokens(x: Array, out: Array) -> Call:
            return attach(kernels.from_tokens, x, grid, channels, out)

        if value.image is not None:
            shape = (grid.n, channels, grid.h, grid.w)
            target = self.build.view(slot, lambda a: a.reshape(shape))
            self.build.attached(
                name, "from_planes", "from_planes", from_image, planes.slot, target
            )
        else:
            target = self.build.view(slot, lambda a: a.reshape(grid.pixels, channels))
            self.build.attached(
                name, "from_tokens", "from_tokens", from_tokens, planes.slot, target
            )
        return slot

    def image(self, name: str) -> Planes:
        """The value ``[n, c, h, w]`` or ``[n, c, w]`` as planes in its grid."""
        value = self.value(name)
        if value.image is None:
            n, c = self.shape(name)[:2]
            h, w = image_size(self.shape(name))
            planes = self.new_planes(self.grids.image(n, h, w), c)
            op = self.kernels.to_planes
            self._convert(name, value, op, (n, c, h, w), planes, "to_planes")
            value.image = planes
        return value.image

    def tokens(self, name: str) -> Planes:
        """The value ``[..., features]`` as planes: a channel a feature."""
        value = self.value(name)
        if value.tokens is None:
            *lead, features = self.shape(name)
            count = int(np.prod(lead))
            planes = self.new_planes(token_grid(count), features)
            op = self.kernels.to_tokens
            self._convert(name, value, op, (count, features), planes, "to_tokens")
            value.tokens = planes
        return value.tokens

    def _convert(
        self,
        name: str,
        value: Value,
        op: Callable[[Array, Array, Grid], None],
        shape: Shape,
        planes: Planes,
        kernel: str,
    ) -> None:
        grid = planes.grid

        def load(x: Array, y: Array) -> None:
            op(x.reshape(shape), y, grid)

        def place(x: Array, y: Array) -> Call:
            return attach(op, x.reshape(shape), y, grid)

        # An input goes straight into its planes, without a plain copy in the arena; to
        # a device it travels as it is.
        if name in self._inputs and value.rows is None and self.device is None:
            self.build.load(name, load, planes.slot)
        else:
            slots = (self.rows(name), planes.slot)
            self.build.attached(name, kernel, kernel, place, *slots)

    # -- forms of outputs -----------------------------------------------------------

    def new_planes(self, grid: Grid, channels: int) -> Planes:
        """Take a buffer for planes."""
        return Planes(self.flat(grid.size(channels)), grid, channels)

    def flat(self, size: int) -> Slot:
        """Take a flat buffer of what planes hold."""
        return self.build.allocate(self.kernels.PLANES, (size,))

    def set_rows(self, name: str, slot: Slot) -> None:
        """Say that a value lives in a plain array."""
        self._values[name] = Value(rows=slot)

    def set_image(self, name: str, planes: Planes) -> None:
        """Say that a value ``[n, c, h, w]`` or ``[n, c, w]`` lives in planes."""
        n = self.shape(name)[0]
        grid = self.grids.image(n, *image_size(self.shape(name)))
        # Single pixels of n images are n tokens: both grids are the same memory.
        image = Planes(planes.slot, grid, planes.channels)
        self._values[name] = Value(image=image, in_planes=True)

    def set_tokens(self, name: str, planes: Planes) -> None:
        """Say that a value ``[..., features]`` lives in planes."""
        grid = token_grid(planes.grid.pixels)
        tokens = Planes(planes.slot, grid, planes.channels)
        self._values[name] = Value(tokens=tokens, in_planes=True)

    def set_like(self, name: str, source: str, planes: Planes) -> None:
        """Say that a value lives in planes as `source`, of its shape, does."""
        if self.value(source).image is not None:
            self.set_image(name, planes)
        else:
            self.set_tokens(name, planes)

    def _alias(self, name: str, source: str) -> bool:
        """Let a reshaped value stay in the planes of its source, if it can."""
        value = self.value(source)
        planes, shape = value.matrix, self.shape(name)
        if planes is None or not value.in_planes:
            return False
        if shape[-1:] == (planes.channels,):
            self.set_tokens(name, planes)
        elif shape == (planes.grid.pixels, planes.channels, 1, 1):
            self.set_image(name, planes)
        else:
            return False
        return True

    # -- nodes ----------------------------------------------------------------------

    def plain(self, node: Node) -> None:
        """Run a node on plain arrays: as a view where it only moves data."""
        if node.op in VIEWS and self._as_view(node):
            return
        if self.device is not None and on_device(self, node):
            return
        names = node.inputs
        known = [self.facts.values.get(n) if n else None for n in names]
        places = [i for i, n in enumerate(names) if n and known[i] is None]
        contiguous = node.op not in MOVES
        sources = [self.rows(names[i], contiguous=contiguous) for i in places]
        made = [n for n in node.outputs if n]
        slots = []
        for name in made:
            spec = self.facts.specs[name]
            slots.append(self.build.allocate(spec.dtype, spec.shape))
            self.set_rows(name, slots[-1])
        kernels, count = hosted(self.kernels), len(places)
        wanted = [i for i, n in enumerate(node.outputs) if n]

        def call(*arrays: Array) -> None:
            inputs = list(known)
            for place, array in zip(places, arrays[:count], strict=True):
                inputs[place] = array
            outputs = compute(kernels, node, inputs)
            for index, out in zip(wanted, arrays[count:], strict=True):
                np.copyto(out, outputs[index])

        kernel = "numpy" if node.op in MOVES else node.op.lower()
        self.build.step(node.name, node.op, kernel, call, *sources, *slots)

    def _as_view(self, node: Node) -> bool:
        if node.op in _RESHAPES:
            if self._alias(node.output, node.inputs[0]):
                return True
            shape = self.shape(node.output)
            source = self.rows(node.inputs[0], contiguous=False)
            try:
                slot = self.build.view(source, lambda a: a.reshape(shape, copy=False))
            except ValueError:
                source = self.rows(node.inputs[0])
                slot = self.build.view(source, lambda a: a.reshape(shape))
            self.set_rows(node.output, slot)
            return True
        source = self.rows(node.inputs[0], contiguous=False)
        known = [self.facts.values.get(n) if n else None for n in node.inputs[1:]]
        for index, name in enumerate(node.outputs):
            if name:
                slot = self.build.view(
                    source,
                    # mypy cannot type a lambda with a default
                    lambda a, i=index: VIEWS[node.op](node, [a, *known])[i],  # type: ignore[misc]
                )
                self.set_rows(name, slot)
        return True

    def finish(self, graph: Graph) -> Plan:
        """Give the outputs to the caller and place all buffers."""
        for info in graph.outputs:
            slot = self.rows(info.name)
            self.build.result(info.name, _fresh, slot)
        return self.build.finish()


def _pixels(planes: Planes, value: Value, shape: Shape) -> Any:
    """Make the view of planes as a plain array with gaps."""
    grid, channels = planes.grid, planes.channels

    def change(flat: Array) -> Array:
        strides = (grid.rows * grid.pitch, grid.ld, grid.pitch, 1)
        pixels = np.lib.stride_tricks.as_strided(
            flat[grid.lead :],
            (grid.n, channels, grid.h, grid.w),
            tuple(4 * s for s in strides),
        )
        if value.image is not None:
            return pixels.reshape(shape, copy=False)
        return pixels.transpose(0, 2, 3, 1).reshape(shape, copy=False)

    return change


def _load(source: Array, target: Array) -> None:
    np.copyto(target, source.reshape(target.shape))


def _fresh(array: Array) -> Array:
    return np.array(array, order="C")
