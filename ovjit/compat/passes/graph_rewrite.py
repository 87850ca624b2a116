"""Patterns in a Model, and passes that rewrite their matches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ovjit.api.arguments import expect, explain_calls
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.base import ModelPass, PassBase
from ovjit.compat.passes.patterns import Symbols, match_output, symbols_of
from ovjit.errors import ModelError, no_such_constructor, no_such_form, unless_of_signal


@explain_calls
class Matcher:
    """A pattern, and the result of its last match. `node`: the last node of the pattern, or its output."""

    def __init__(
        self, node: Node | Output | None = None, name: str | None = None, *, output: Output | None = None
    ):
        pattern = output if node is None else node
        if not isinstance(pattern, (Node, Output)) or not isinstance(name, str):
            raise no_such_constructor("Matcher takes a Node or an Output, and a name")
        self._pattern = pattern if isinstance(pattern, Output) else pattern.output(0)
        self._name = name
        self._matched_outputs: dict[Node, Output] = {}
        self._symbols: Symbols = {}
        self._root: Output | None = None

    def get_name(self) -> str:
        """The name."""
        return self._name

    def match(self, value: Node | Output) -> bool:
        """Whether a node or output matches the pattern; a match is stored."""
        expect(value, (Node, Output), "a Node or an Output is matched")
        outputs = [value] if isinstance(value, Output) else value.outputs()
        self._matched_outputs, self._symbols, self._root = {}, {}, None
        for output in outputs:
            for match in match_output(self._pattern, output, {}):
                self._symbols, self._root = symbols_of(match), output
                self._matched_outputs = {key: each for key, each in match.items() if key not in self._symbols}
                return True
        return False

    def get_match_value(self) -> Output:
        """The output that matched the pattern's end. RuntimeError if nothing did."""
        if self._root is None:
            raise ModelError(f"the pattern {self._name!r} has not matched a node")
        return self._root

    def get_match_root(self) -> Node | None:
        """The node of `get_match_value`; None if nothing has matched."""
        return None if self._root is None else self._root._node

    def get_match_values(self) -> list[Output]:
        """All outputs that were matched."""
        return list(dict.fromkeys(self._matched_outputs.values()))

    def get_match_nodes(self) -> list[Node]:
        """All nodes that were matched."""
        return list(dict.fromkeys(output._node for output in self._matched_outputs.values()))

    def get_pattern_value_map(self) -> dict[Node, Output]:
        """Pattern node -> the output that it stands for."""
        return dict(self._matched_outputs)

    def get_symbols(self) -> dict[str, Any]:
        """The values of the names in the pattern's shapes: a number, a Symbol, or a list of these."""
        return {name: value._to_python() for name, value in self._symbols.items()}


@explain_calls
class MatcherPass(PassBase):
    """A pattern and its callback: `callback(matcher)` returns True if it has changed the graph."""

    def __init__(self, matcher: Matcher | None = None, callback: Callable[[Matcher], bool] | None = None):
        self._new_nodes: list[Node] = []
        self._matcher: Matcher | None = None
        if matcher is not None or callback is not None:
            self.register_matcher(matcher, callback)  # type: ignore[arg-type]

    def register_matcher(self, matcher: Matcher, callback: Callable[[Matcher], bool]) -> None:
        """Set the pattern and its callback."""
        if not isinstance(matcher, Matcher) or not callable(callback):
            raise no_such_form("register_matcher takes a Matcher and a function")
        self._matcher, self._callback = matcher, callback

    def register_new_node(self, node: Node) -> Node:
        """Apply the pass also to a node that the callback has created; returns it."""
        self._new_nodes.append(node)
        return node

    def apply(self, node: Node) -> bool:
        """Apply the pass to one node; True if the callback has changed the graph."""
        if self.__dict__.get("_matcher") is None:
            raise ModelError(
                f"{self.get_name()} has no pattern: call register_matcher, and super().__init__() first"
            )
        assert self._matcher is not None
        return self._matcher.match(node) and bool(self._callback(self._matcher))

    def _usual_name(self) -> str:
        matcher: Matcher | None = self.__dict__.get("_matcher")
        return "ov::pass::MatcherPass" if matcher is None else matcher.get_name()

    def _run(self, model: Model) -> bool:
        return GraphRewrite(self).run_on_model(model)


@explain_calls
class GraphRewrite(ModelPass):
    """Several patterns in one walk over the graph, producers first. At each node the first that applies."""

    _backward = False

    def __init__(self, pass_: MatcherPass | None = None, **named: Any) -> None:
        self.passes_list: list[MatcherPass] = []
        matcher = named.get("pass", pass_)
        if matcher is not None:
            self.add_matcher(matcher)

    def add_matcher(self, transformation: MatcherPass | None = None, **named: Any) -> MatcherPass:
        """Add a pattern, and return it."""
        matcher = named.get("pass", transformation)
        added: MatcherPass = expect(matcher, MatcherPass, "add_matcher takes a MatcherPass")
        self.passes_list.append(added)
        return added

    def _usual_name(self) -> str:
        return "ov::pass::GraphRewrite"

    def run_on_model(self, model: Model) -> bool:
        """Walk over the graph. True if it was changed; RuntimeError if a callback raises an error."""
        order = model.get_ordered_ops()
        pending = deque(reversed(order) if self._backward else order)
        changed = False
        while pending:
            node = pending.popleft()
            for one in self.passes_list:
                one._new_nodes = []
                try:
                    applied = one.apply(node)
                except unless_of_signal(Exception) as error:
                    raise ModelError(
                        f"[{one.get_name()}] {node!r} CALLBACK HAS THROWN: {type(error).__name__}: {error}"
                    ) from error
                if one._new_nodes:
                    pending.extendleft(reversed(one._new_nodes))
                if applied:
                    changed = True
                    break
        return changed


class BackwardGraphRewrite(GraphRewrite):
    """As GraphRewrite, consumers first."""

    _backward = True
