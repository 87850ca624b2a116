"""Bounds on the number of nodes that a model expands to, known before it is read.

Functions are inlined, loops over sequences are unrolled, and bodies are read again until their shapes settle.
Each multiplies, and a file of 2 kB can stand for any number of nodes. So the nodes of functions are counted
before any is inlined, and those of unrolled loops before the first iteration. Repeated reads, and the nodes
that they make, are bounded by multiples of that.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx.registry import DEFAULT_DOMAINS, converter_key

#: So often a node may be read on average: bodies of nested loops are, some three times for each loop.
_READ_AGAIN, _READ_ALWAYS = 64, 20_000
#: So many nodes rules may make of one that is read, on average: one of a long sequence makes thousands.
_MADE_OF_EACH, _MADE_ALWAYS = 100, 50_000

#: (domain, name, overload)
Key = tuple[str, str, str]


class Expansion:
    """Counts the nodes of a model with functions and loops expanded, and those that are read and created."""

    def __init__(self, graph: Any, functions: Mapping[Key, Any], converters: Collection[str], most: int):
        """Raises ModelError, with a function's name, for a model of more than `most` nodes with its functions
        inlined and for functions that call each other. `converters`: operators that are not inlined."""
        self._most = most
        self._functions = functions
        self._converters = converters
        self._sizes: dict[Key, int] = {}
        self.nodes = self.of(graph)
        self.read = self.created = 0
        self._most_read = min(most, _READ_AGAIN * self.nodes + _READ_ALWAYS)
        self._repeats = 1

    def of(self, graph: Any) -> int:
        """The number of nodes of a graph and its subgraphs, with functions inlined."""
        own_nodes, calls = self._tally(graph)
        for key in calls:
            self._size(key)
        total = own_nodes + sum(times * self._sizes[key] for key, times in calls.items())
        if total > self._most:
            text = f"the model has more than {self._most} nodes after inlining its functions: {total}"
            if calls:
                most = max(calls, key=lambda key: calls[key] * self._sizes[key])
                times = f"{calls[most]} times {self._sizes[most]}"
                text += f". Most are of the function {most[1][:200]!r}: {times}"
            raise ModelError(text)
        return total

    def _tally(self, graph: Any) -> tuple[int, Counter[Key]]:
        """(nodes, calls of each function) of a graph or function, with its subgraphs."""
        own_nodes, calls, waiting = 0, Counter[Key](), [graph]
        while waiting:
            for node in waiting.pop().node:
                for attribute in node.attribute:
                    if attribute.type == 5:
                        waiting.append(attribute.g)
                    elif attribute.type == 10:
                        waiting.extend(attribute.graphs)
                key = ("" if node.domain in DEFAULT_DOMAINS else node.domain, node.op_type, node.overload)
                if key in self._functions and converter_key(*key[:2]) not in self._converters:
                    calls[key] += 1
                own_nodes += 1
        return own_nodes, calls

    def _size(self, key: Key) -> None:
        """Find the sizes of a function and of the functions that it calls."""
        path: dict[Key, tuple[int, Counter[Key], Iterator[Key]]] = {}
        following: Key | None = key
        while following is not None or path:
            if following is not None and following not in self._sizes:
                own_nodes, calls = self._tally(self._functions[following])
                path[following] = own_nodes, calls, iter(calls)
            current = next(reversed(path), None)
            if current is None:
                return
            own_nodes, calls, remaining_calls = path[current]
            following = next((callee for callee in remaining_calls if callee not in self._sizes), None)
            if following in path:
                names = list(path)
                round_ = [*names[names.index(following) :], following]
                shown = round_ if len(round_) <= 12 else [*round_[:11], round_[-1]]
                text = " -> ".join(name[:80] for _, name, _ in shown)
                raise ModelError(f"the functions call each other: {text}")
            if following is None:
                del path[current]
                size = own_nodes + sum(times * self._sizes[callee] for callee, times in calls.items())
                if size > self._most:
                    raise ModelError(
                        f"the function {current[1][:200]!r} has more than {self._most} nodes after "
                        f"inlining: {size}"
                    )
                self._sizes[current] = size

    def count_read(self) -> None:
        """Count a node that is read."""
        self.read += 1
        if self.read > self._most_read:
            raise ModelError(
                f"more than {self._most_read} nodes are read of a model of {self.nodes} nodes after "
                "inlining: nested bodies would be read repeatedly"
            )

    def count_made(self) -> None:
        """Count a node that is created."""
        self.created += 1
        if self.created > _MADE_OF_EACH * self.read + _MADE_ALWAYS:
            raise ModelError(
                f"more than {self.created - 1} nodes would be created from the {self.read} nodes read"
            )

    @contextlib.contextmanager
    def count_unrolling(self, trips: int, graph: Any) -> Iterator[None]:
        """Context manager for a body that is read `trips` times. Raises UnsupportedError for too many nodes,
        with outer loops counted."""
        nodes = trips * (self.of(graph) + 1)
        if nodes * self._repeats > self._most:
            raise UnsupportedError(
                f"the body {graph.name[:200]!r} of a loop over sequences has more than {self._most} "
                f"nodes after unrolling: {nodes * self._repeats}"
            )
        self._most_read = min(self._most, self._most_read + nodes)
        before, self._repeats = self._repeats, self._repeats * max(1, trips)
        try:
            yield
        finally:
            self._repeats = before
