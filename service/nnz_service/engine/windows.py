"""Windows that slide over an image: their padding, and the size of what they give."""

from __future__ import annotations

from dataclasses import dataclass

from nnz_service.engine.graph import Node
from nnz_service.engine.moves import SettingError


@dataclass(frozen=True, slots=True)
class Window:
    """A window on one image, all fields one number a spatial axis.

    Args:
        kernel: Its size.
        strides: Its step.
        dilations: Distance of its taps.
        begins: Padding before the image.
        ends: Padding after the image.
        sizes: Size of the result.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    sizes: tuple[int, ...]

    def as_2d(self) -> Window:
        """The same window for an image of one row, when there is one axis."""
        if len(self.kernel) == 2:
            return self
        return Window(
            (1, *self.kernel),
            (1, *self.strides),
            (1, *self.dilations),
            (0, *self.begins),
            (0, *self.ends),
            (1, *self.sizes),
        )

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Padding of a 2-D window: top, left, bottom, right."""
        return (self.begins[0], self.begins[1], self.ends[0], self.ends[1])


def window(node: Node, image: tuple[int, ...]) -> Window:
    """Place the window of a Conv or pool node on an image of the given sizes.

    The attributes are those of ONNX: kernel_shape, strides, dilations, pads, auto_pad,
    ceil_mode.

    Raises:
        SettingError: The attributes disagree in length, or the window is larger than
            the padded image.
    """
    kernel = tuple(node.attrs["kernel_shape"])
    rank = len(kernel)
    strides = tuple(node.attrs.get("strides") or (1,) * rank)
    dilations = tuple(node.attrs.get("dilations") or (1,) * rank)
    if not len(image) == len(strides) == len(dilations) == rank:
        raise SettingError(
            f"kernel {list(kernel)}, strides {list(strides)} and dilations "
            f"{list(dilations)} do not fit an image of {list(image)}"
        )
    if min(*kernel, *strides, *dilations) < 1:
        raise SettingError("kernel, strides and dilations must be positive")
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    begins, ends = _pads(node, image, strides, reach)
    sizes = _sizes(node, image, strides, reach, begins, ends)
    if min(sizes) < 1:
        raise SettingError(
            f"a window of {list(reach)} is larger than the padded image {list(image)}"
        )
    return Window(kernel, strides, dilations, begins, ends, sizes)


def _pads(
    node: Node, image: tuple[int, ...], strides: tuple[int, ...], reach: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(image)
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0,) * rank, (0,) * rank
    if auto == "NOTSET":
        pads = tuple(node.attrs.get("pads") or (0,) * (2 * rank))
        if len(pads) != 2 * rank or min(pads) < 0:
            raise SettingError(f"{2 * rank} pads >= 0 are needed, got {list(pads)}")
        return pads[:rank], pads[rank:]
    totals = [
        max((-(-size // s) - 1) * s + r - size, 0)
        for size, s, r in zip(image, strides, reach, strict=True)
    ]
    less = tuple(t // 2 for t in totals)
    more = tuple(t - t // 2 for t in totals)
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _sizes(
    node: Node,
    image: tuple[int, ...],
    strides: tuple[int, ...],
    reach: tuple[int, ...],
    begins: tuple[int, ...],
    ends: tuple[int, ...],
) -> tuple[int, ...]:
    up = bool(node.attrs.get("ceil_mode", 0))
    found = []
    for size, s, r, begin, end in zip(image, strides, reach, begins, ends, strict=True):
        room = size + begin + end - r
        if room < 0:
            return (0,)
        count = (-(-room // s) if up else room // s) + 1
        # A window may not start in the padding after the image (ONNX MaxPool-19).
        if up and (count - 1) * s >= size + begin:
            count -= 1
        found.append(count)
    return tuple(found)
