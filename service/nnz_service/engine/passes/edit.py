"""Change a graph while walking over it: one index, one new node list at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nnz_service.engine.graph import Graph, Node


class Editor:
    """Producers and readers of a graph, kept right while nodes are merged.

    A group of nodes always becomes its last node, whose place in the order comes after
    everything that any of them reads.

    Args:
        graph: Its node objects are changed at once, its node list by `finish`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self._readers = graph.consumers()
        self._results = graph.results()
        self._gone: set[int] = set()

    def is_gone(self, node: Node) -> bool:
        """Whether `node` was merged into another."""
        return id(node) in self._gone

    def only_reader(self, value: str) -> Node | None:
        """The one node that reads `value`; None if others or the caller do too."""
        readers = self._readers.get(value, [])
        if value in self._results or len(readers) != 1:
            return None
        return readers[0]

    def readers(self, value: str) -> list[Node]:
        """All nodes that read `value`, once for each time they name it."""
        return self._readers.get(value, [])

    def is_result(self, value: str) -> bool:
        """Whether the caller gets `value`."""
        return value in self._results

    def become(
        self,
        last: Node,
        others: Iterable[Node],
        *,
        op: str,
        name: str,
        inputs: list[str],
        attrs: dict[str, Any],
    ) -> None:
        """Turn `last` into one node that does the work of `others` as well."""
        for node in (last, *others):
            for value in node.inputs:
                if value and node in self._readers.get(value, []):
                    self._readers[value].remove(node)
            if node is not last:
                self._gone.add(id(node))
        last.op, last.name, last.inputs, last.attrs = op, name, inputs, attrs
        for value in inputs:
            if value:
                self._readers.setdefault(value, []).append(last)

    def absorb(self, layer: Node, reader: Node, extra: str | None = None) -> Node:
        """Let `layer` do the work of its reader too; returns the merged node.

        Args:
            layer: Its settings, name and inputs go on.
            reader: The only reader of the output of `layer`.
            extra: A further input, or none.
        """
        inputs = [*layer.inputs, *([extra] if extra is not None else [])]
        self.become(
            reader,
            [layer],
            op=layer.op,
            name=layer.name,
            inputs=inputs,
            attrs=layer.attrs,
        )
        return reader

    def finish(self) -> None:
        """Write the new node list and drop what nobody reads."""
        self.graph.nodes = [n for n in self.graph.nodes if id(n) not in self._gone]
        self.graph.sweep()
