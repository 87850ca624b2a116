"""Rewrite rules, `before -> after`, and what applies them to graphs.

    rewrite(op.Identity(x), x)
    rewrite(op.Convert(x), x, lambda node, x: x.dtype == node.output.dtype)

    @rule(op.Transpose(x, constant("order")))
    def narrow_first(w, x, order):
        '''Transpose(Convert(x: u8 to f32)) -> Convert(Transpose(x))'''

`before` is a pattern (`ovjit.rewrite.pattern`). `after` is a template, or a function that returns the values
that replace the node's outputs, or None if the rule does not apply. A function gets the parameters that it
names: names of the pattern, `node` (with its new inputs), `w` (a `Writer`), `b` (its Builder), `readers`
(`Uses`), and `self` if the rule is a method. A default value is for names that an alternative does not bind.

`run_rules` counts applied rules (`applied`, shown by `OVJIT_DEBUG=3`), and checks each result: it must have
the element types of the replaced outputs, and compatible shapes. `ovjit.api.model.model_rules` applies rules
to Models, whose values and nodes have the same interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.errors import ModelError
from ovjit.graph.graph import Builder, Graph, Node, Replacement, Typed, Value, copy_node, rebuild
from ovjit.graph.op import Op
from ovjit.rewrite.pattern import Found, Made, Pattern
from ovjit.rewrite.writer import Writer

if TYPE_CHECKING:
    from ovjit.compiler.options import Context

#: rule -> how often it has been applied in this process.
applied: Counter[Rule] = Counter()


class Uses:
    """The readers of the elements of each value of the old graph. A new value has the readers of the old
    value that it replaces."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._old: Mapping[Value, list[tuple[Node | None, int]]] | None = None
        self._new: dict[Value, list[tuple[Node | None, int]]] = {}
        self._replacements: list[tuple[Node, Sequence[Value]]] = []

    def record(self, node: Node, values: Sequence[Value]) -> None:
        """Record that `values` replace the node's outputs."""
        self._replacements.append((node, values))

    def of(self, value: Value) -> Sequence[tuple[Node | None, int]]:
        """The readers as (node, input index), nodes of the old graph; (None, i) is an output."""
        if self._old is None:  # lazy: many passes do not need it
            self._old = self._graph.uses_of_elements()
        for node, result in self._replacements:
            for old, new in zip(node.outputs, result, strict=True):
                if old is not new:  # `new` keeps its own readers
                    self._new[new] = [use for use in self._of(new) if use[0] is not node] + self._of(old)
        self._replacements.clear()
        return self._of(value.node.old.outputs[value.index] if isinstance(value.node, _On) else value)

    def _of(self, value: Value) -> list[tuple[Node | None, int]]:
        users = self._new.get(value)
        return (self._old or {}).get(value, []) if users is None else users

    def times(self, value: Value) -> int:
        return len(self.of(value))

    def single(self, value: Value) -> bool:
        return self.times(value) == 1


class Rule:
    """`before -> after`, where the condition `holds`."""

    def __init__(
        self, before: Pattern, after: Pattern | Callable[..., Any], holds: Any = None, quick: Any = None
    ):
        self.before, self.after, self.holds, self.quick = before, after, holds, quick
        self.rule = self
        self._arguments = _parameters(after) if callable(after) else ("w",)
        self._conditions = _parameters(holds) if holds is not None else ()
        self._defaults = _defaults(after) if callable(after) else {}
        self._writes = "w" in self._arguments
        self._any = isinstance(before, Made) and before.inputs is None and not before.attributes
        self.__doc__ = getattr(after, "__doc__", None) if callable(after) else None

    def __repr__(self) -> str:
        return self.after.__name__ if callable(self.after) else f"{self.before!r} -> {self.after!r}"

    def apply(self, b: Any, node: Any, readers: Any, owner: Any = None) -> Any:
        """The values that replace the node's outputs, or None. `node`, or an object like one, has its new
        inputs."""
        for bindings in _NOTHING_FOUND if self._any else self.before.match(node.output, _NOTHING, readers):
            have = {"node": node, "b": b, "readers": readers, "self": owner, **self._defaults, **bindings}
            if self._writes:
                have["w"] = Writer(b, node)
            try:
                holds = self.holds is None or self.holds(*[have[key] for key in self._conditions])
                arguments = [have[key] for key in self._arguments] if holds else []
            except KeyError as error:
                raise KeyError(f"{self!r} reads {error}, which its pattern does not bind") from error
            if not holds:
                continue
            out = self.after(*arguments) if callable(self.after) else self.after.make(have["w"], bindings)
            if out is not None:
                return [out] if isinstance(out, Typed) else out
        return None

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else _Bound(self, owner)


#: Empty bindings.
_NOTHING: Found = {}
_NOTHING_FOUND = (_NOTHING,)


class _Bound:
    """A rule that is a method, bound to an object."""

    def __init__(self, rule: Rule, owner: Any):
        self.rule, self.owner, self.before, self.quick = rule, owner, rule.before, rule.quick

    def __repr__(self) -> str:
        return repr(self.rule)

    def apply(self, b: Any, node: Any, readers: Any) -> Any:
        return self.rule.apply(b, node, readers, self.owner)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[: code.co_argcount]


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    values = function.__defaults__ or ()
    return dict(zip(_parameters(function)[-len(values) :], values, strict=True)) if values else {}


def rewrite(before: Pattern, after: Pattern, where: Callable[..., Any] | None = None) -> Rule:
    """The rule that replaces the expression `before` by `after`, if `where` holds."""
    return Rule(before, after, where)


def rule(before: Pattern, quick: Any = None) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: the rule that replaces `before` by the values that the function returns. `quick(node, new
    inputs)` is a cheap test before: false if the rule cannot apply."""
    return lambda after: Rule(before, after, quick=quick)


def rules_of(owner: Any) -> list[Any]:
    """The rules that are methods of an object, in their order."""
    return [getattr(owner, key) for key, each in vars(type(owner)).items() if isinstance(each, Rule)]


def run_rules(graph: Graph, rules: Sequence[Any], context: Context | None = None) -> Graph:
    """One pass over the graph with all rules; the first that matches a node replaces it. Rules that depend on
    the target or the options need the `context`."""
    fitting = {record: [r for r in rules if r.before.fits(record)] for record in {n.op for n in graph.nodes}}
    if not any(fitting.values()):
        return graph
    readers = Uses(graph)
    likely: dict[tuple[Op, ...], list[Any]] = {}

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Replacement:
        """The outputs of the first rule that applies, else of a copy of the node; None to keep the node."""
        those: Sequence[Any] = fitting[node.op]
        if those:  # most combinations of an operation and its inputs' operations have no rule
            key = (node.op, *[v.node.op for v in inputs])
            candidates = likely.get(key)
            if candidates is None:
                candidates = likely[key] = [r for r in those if r.before.could_be_of(inputs)]
            those = candidates
        current = node
        for each in those:
            if each.quick is not None and not each.quick(node, inputs):
                continue
            if current.inputs is not inputs:
                current = _On(node, inputs)
            out = each.apply(b, current, readers)
            if out is not None:
                applied[each.rule] += 1
                check_types(each, node, out)
                _name(b, node, out)
                readers.record(node, out)
                return out
        if inputs is node.inputs and not b.is_taken(node.name):
            return None
        out = copy_node(b, node, inputs).outputs
        readers.record(node, out)
        return out

    passed = frozenset(record for record, those in fitting.items() if not those)
    return rebuild(graph, visit, context=context, passed=passed)


class _On(Node):
    """A node of the old graph with new inputs, as the argument of rules. It is in no graph."""

    __slots__ = ("old",)

    def __init__(self, node: Node, inputs: tuple[Value, ...]):  # skips the checks of `Node`
        self.op, self.attrs, self.lowered = node.op, node.attrs, node.lowered
        self.name, self.origins, self.inputs, self.old = node.name, node.origins, inputs, node
        self.outputs = tuple([Value(self, v.index, v.type) for v in node.outputs])


def original(node: Node) -> Node:
    """The node of the old graph that a rule is applied to."""
    return node.old if isinstance(node, _On) else node


def copy_unchanged(b: Builder, node: Node) -> Value:
    """Copy a node with its new inputs. Returns its first output."""
    return copy_node(b, original(node), node.inputs).output


def check_types(rule: Any, node: Any, outputs: Sequence[Any]) -> None:
    """Raise ModelError if the element type of an output differs from that of the value that replaces it."""
    for old, new in zip(node.outputs, outputs, strict=True):
        if old.dtype != new.dtype:
            raise ModelError(f"node {node.name!r}: {rule!r} produces {new.type}, expected {old.type}")


def _name(b: Builder, node: Node, outputs: Sequence[Value]) -> None:
    """Give the node's name to the node that replaces it."""
    result = outputs[0].node if outputs else node
    if result.name != node.name and not b.follows and result in b.nodes[b.before :]:
        b.rename(result, node.name)
