"""Try a model on inputs of several sizes, to learn what its free axes do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnz_service.engine.graph import DTYPES, Array, Graph, TensorInfo, dtype_name
from nnz_service.engine.shapes import Facts, Spec, infer
from nnz_service.errors import InvalidModelError, UnsupportedModelError

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels

#: Sizes tried for free axes besides the batch, until a model accepts one.
_SIZES = (64, 224, 128, 32, 256, 320, 16, 512, 1024, 8, 4, 2, 1)

#: Free first axes that are tried one by one; a model with more has stranger needs.
_LONE = 8


@dataclass(frozen=True, slots=True)
class Probes:
    """What inference found for inputs of several sizes.

    Args:
        main: Batch 1.
        others: Further sizes that the model accepts; free axes that may differ do so.
        batches: Two sets that differ in the batch alone, if the inputs have a free
            axis 0 that must be one size for all of them.
    """

    main: Facts
    others: tuple[Facts, ...]
    batches: tuple[Facts, Facts] | None

    def all(self) -> tuple[Facts, ...]:
        """All facts."""
        return (self.main, *self.others, *(self.batches or ()))


def probe(graph: Graph, exact: Kernels[Array]) -> Probes:
    """Infer shapes for sizes that the model accepts.

    Args:
        graph: The model, whatever passes it has been through.
        exact: The reference back-end.

    Raises:
        InvalidModelError: It accepts none; the message is that of the first try.
        UnsupportedModelError: A setting depends on data, or a type has no kernels.
    """
    axes = list(graph.free_axes.values())
    batch = list(dict.fromkeys(a[0] for a in axes if a and a[0]))
    rest = list(dict.fromkeys(s for a in axes for s in a if s and s not in batch))
    fault: Exception | None = None
    for base in _SIZES if rest else (1,):
        known = dict.fromkeys(rest, base)
        try:
            main = _infer(graph, {**known, **dict.fromkeys(batch, 1)}, exact)
        except (InvalidModelError, UnsupportedModelError) as exc:
            fault = fault or exc
            continue
        others = [
            facts
            for sizes in _variations(batch, rest, base)
            if (facts := _accepted(graph, sizes, exact)) is not None
        ]
        return Probes(main, tuple(others), _batches(graph, batch, known, exact))
    raise fault or InvalidModelError("the model accepts no input")


def signature(graph: Graph, probes: Probes) -> tuple[TensorInfo, ...]:
    """Outputs, with those axes free that differ between the probes.

    Raises:
        UnsupportedModelError: The rank of an output differs between them.
    """
    infos = []
    for info in graph.outputs:
        specs = [facts.specs[info.name] for facts in probes.all()]
        if len({len(s.shape) for s in specs}) > 1:
            raise UnsupportedModelError(
                f"output {info.name!r} has a rank that depends on the size of inputs"
            )
        shape = tuple(
            sizes[0] if len(set(sizes)) == 1 else None
            for sizes in zip(*(s.shape for s in specs), strict=True)
        )
        infos.append(TensorInfo(info.name, dtype_name(specs[0].dtype), shape))
    return tuple(infos)


def _variations(
    batch: list[str], rest: list[str], base: int
) -> Iterator[dict[str, int]]:
    """Sizes in which axes differ from each other, as far as a model may allow it."""
    known = dict.fromkeys(rest, base)
    yield {**known, **dict.fromkeys(batch, 2)}
    for step in (32, 1):
        apart = {name: base + step * place for place, name in enumerate(rest, 1)}
        yield {**apart, **dict.fromkeys(batch, 2)}
        yield {**apart, **{name: 2 + place for place, name in enumerate(batch)}}
        yield {**dict.fromkeys(rest, base + step), **dict.fromkeys(batch, 3)}
    yield from _lone(batch, known)


def _lone(batch: list[str], known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """One image for one input while the others have two: allowed where they spread."""
    for name in batch[:_LONE] if len(batch) > 1 else ():
        yield {**known, **dict.fromkeys(batch, 2), name: 1}


def _batches(
    graph: Graph, batch: list[str], known: Mapping[str, int], exact: Kernels[Array]
) -> tuple[Facts, Facts] | None:
    if not batch or len(batch) > _LONE:
        return None
    if any(_accepted(graph, sizes, exact) for sizes in _lone(batch, known)):
        return None
    two, three = (
        _accepted(graph, {**known, **dict.fromkeys(batch, n)}, exact) for n in (2, 3)
    )
    return (two, three) if two is not None and three is not None else None


def _accepted(
    graph: Graph, sizes: Mapping[str, int], exact: Kernels[Array]
) -> Facts | None:
    try:
        return _infer(graph, sizes, exact)
    except (InvalidModelError, UnsupportedModelError):
        return None


def _infer(graph: Graph, sizes: Mapping[str, int], exact: Kernels[Array]) -> Facts:
    specs = {}
    for info in graph.inputs:
        symbols = graph.free_axes[info.name]
        shape = tuple(
            d if d is not None else sizes[s or ""]
            for d, s in zip(info.shape, symbols, strict=True)
        )
        specs[info.name] = Spec(DTYPES[info.dtype], shape)
    return infer(graph, specs, exact)
