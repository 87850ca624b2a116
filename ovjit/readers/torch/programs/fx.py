"""FX graphs of ATen operators -> Model: what torch.export, make_fx and aot_autograd give."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ovjit.build import Model, Output, Parameter
from ovjit.readers.torch.branches import build_if, read_graph
from ovjit.readers.torch.call import Call, OutputUses
from ovjit.readers.torch.graph import Refused, TorchReader, bound
from ovjit.readers.torch.loops import read_scan, read_while
from ovjit.readers.torch.operators.numbers import compute, python_number
from ovjit.readers.torch.programs.undecomposed import INLINED, changes_types, in_place
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule
from ovjit.readers.torch.tracing.strides import BY_STRIDES, in_storage
from ovjit.readers.torch.values import Complex, Number

#: How far beyond the example's length another one is looked for that solves an equation, too.
_NEAR = 32
#: Higher-order operators that become If and Loop.
_READ = ("cond", "while_loop", "map_impl", "scan")


def graph_name(name: str, overload: str) -> str:
    """Return an operator's name in exported graphs, such as "aten.add.Tensor"."""
    return f"{name.replace('::', '.')}.{overload or 'default'}"


class FxReader(TorchReader):
    """Reads one graph module. `scopes`: nodes are named after modules, else after the graph's nodes.
    `writes`: what `is_plain` says of the graph is true, and operators in place are read."""

    scopes = writes = False

    def __init__(
        self, converters: Mapping[str, Any] | None = None, scopes: bool = False, writes: bool = False
    ):
        super().__init__(converters)
        self.scopes = scopes
        self.writes = writes

    @classmethod
    def for_subgraph(cls, reader: TorchReader) -> FxReader:
        """Reads a graph that stands for a node of another one, whose reader's state it shares."""
        result = cls.__new__(cls)
        result.__dict__ = reader.__dict__
        return result

    def converter(self, name: str, overload: str) -> Callable[..., Any] | None:
        """Return the user's converter for "aten::relu" or, as the graph has it, "aten.relu.default"."""
        return self.converters.get(name) or self.converters.get(graph_name(name, overload))

    def run(self, graph: Any, values: Sequence[Any]) -> Any:
        """Evaluate a graph for the values of its placeholders and return the value of its output node."""
        env: dict[Any, Any] = {}
        arguments = iter(values)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                env[node] = next(arguments)
            elif node.op == "get_attr":
                env[node] = self._attribute(graph, node.target)
            elif node.op == "output":
                return self._arguments(node.args[0], env)
            elif node.op == "call_function":
                try:
                    env[node] = self._check_value(node, self._convert_function(node, env))
                except Refused as error:
                    error.node = error.node or node.name
                    raise
            elif node.users or node.op != "call_module":  # modules without results check the inputs
                raise Refused(str(node.target), f"No conversion rule found for operations: {node.target}")
        return None

    def _check_value(self, node: Any, value: Any) -> Any:
        """Return a node's value. Raises Refused if it is real but complex in PyTorch."""
        example = node.meta.get("val")
        if isinstance(example, torch.Tensor) and isinstance(value, Output) and example.is_complex():
            raise Refused(_base_name(node), f"{node.target} does not support complex tensors{_where(node)}")
        return value

    def _attribute(self, module: Any, target: str) -> Any:
        value = module
        for part in target.split("."):
            value = getattr(value, part)
        return self.constant(value, target) if isinstance(value, torch.Tensor) else value

    def _arguments(self, value: Any, env: Mapping[Any, Any]) -> Any:
        if isinstance(value, torch.fx.Node):
            return env[value]
        if isinstance(value, (list, tuple)):
            return [self._arguments(item, env) for item in value]
        if isinstance(value, dict):
            return {key: self._arguments(item, env) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            return self.constant(value, None)
        return value

    def _convert_function(self, node: Any, env: Mapping[Any, Any]) -> Any:
        """Convert a call of a function by the rule of its overload."""
        target = node.target
        arguments = self._arguments(node.args, env)
        named = self._arguments(node.kwargs, env)
        if target is operator.getitem:
            return self._item(node, *arguments)
        if isinstance(target, torch._ops.OpOverload):
            name, overload = target._schema.name, target._schema.overload_name
            bound_arguments = bound(target._schema, arguments, named)
            if name in BY_STRIDES:
                return self._by_strides(node, name, bound_arguments)
            written = in_place(target) if self.writes else None
            base, where, uses = self._base(node, target), partial(_where, node), _output_uses(node)
            result = self.call(written or name, overload, bound_arguments, base, where, uses)
            if self.converter(name, overload) is not None:
                return self._as_in_pytorch(node, result)
            if written is None:
                return result
            return self._in_its_type(node, next(iter(bound_arguments.values())), result)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher(target, node, arguments, named)
        if str(target) in self.converters:
            by_index = {str(i): value for i, value in enumerate(arguments)}
            result = self.call(str(target), "", by_index, self._base(node, target), partial(_where, node))
            return Number(result) if isinstance(result, Output) else result
        name = getattr(target, "__name__", str(target))
        name = {"int": "sym_int", "float": "sym_float"}.get(name, name)
        if python_number(name):
            call = Call(self, f"python::{name}", self._base(node, name))
            return compute(call, name, *arguments)
        raise Refused(name, f"No conversion rule found for operations: {name}{_where(node)}")

    def _as_in_pytorch(self, node: Any, value: Any) -> Any:
        """Return a converter's result, as complex numbers where PyTorch has them: of their parts in a further
        last dimension, else of the real parts."""
        example = node.meta.get("val")
        if not isinstance(value, Output) or not isinstance(example, torch.Tensor) or not example.is_complex():
            return value
        call = Call(self, "complex", self._base(node, node.target))
        return Complex(value) if call.rank(value) > example.dim() else call.complex_of(value)

    def _in_its_type(self, node: Any, old: Any, result: Any) -> Any:
        """The result of an in-place operator, in the type and shape of the tensor that it writes to."""
        if not isinstance(old, Output) or not isinstance(result, Output):
            return result
        call = Call(self, "copy", self._base(node, node.target))
        result = call.to_type(result, call.dtype(old))
        return result if call.rank(result) == call.rank(old) else call.expand(result, call.shape_of(old))

    def _by_strides(self, node: Any, name: str, bound_arguments: dict[str, Any]) -> Any:
        """Convert an operator that addresses elements by strides: its tensor is transposed to memory order
        for it."""
        base = self._base(node, name)
        order, offset = in_storage(node)
        if order is None or not isinstance(bound_arguments["self"], Output):
            text = f"{name} of memory outside of a tensor, or of one that is not dense{_where(node)}"
            raise Refused(name, f"No conversion rule found for operations: {text}")
        permute = Call(self, "permute", base)
        if offset:
            bound_arguments["storage_offset"] = permute.compute(
                "Subtract", bound_arguments["storage_offset"] or 0, offset
            )
        is_turned = order != sorted(order)
        if is_turned:
            bound_arguments["self"] = permute.transpose(bound_arguments["self"], order)
        overload = node.target._schema.overload_name
        result = self.call(name, overload, bound_arguments, base, partial(_where, node), _output_uses(node))
        if is_turned and name == "aten::as_strided_scatter":
            result = permute.transpose(result, [order.index(i) for i in range(len(order))])
        return result

    def _item(self, node: Any, values: Any, index: Any) -> Any:
        """An item of an operator's result. Raises Refused if the operator's rule lacks it."""
        value = values[index] if not isinstance(values, (list, tuple)) or index < len(values) else None
        if value is None and node.users and isinstance(node.meta.get("val"), torch.Tensor):
            producer = node.args[0]
            says = f"{producer.target} is read without its output {index}{_where(producer)}"
            error = Refused(_base_name(producer), says)
            error.node = producer.name
            raise error
        return value

    def _higher(self, target: Any, node: Any, arguments: list[Any], named: Mapping[str, Any]) -> Any:
        name = target.name() if callable(getattr(target, "name", None)) else str(target)
        try:
            if named.get("mutated_arg_indices"):
                raise Refused(name, f"{name} of a function that writes to its arguments{_where(node)}")
            return self._convert_graphs(name, node, arguments)
        except Refused as error:
            error.node = node.name  # not the one of an inner graph
            raise

    def _convert_graphs(self, name: str, node: Any, arguments: list[Any]) -> Any:
        """Convert an operator that runs graphs: a branch, a loop, a scan, or a graph that is inlined."""
        call = Call(self, name, self._base(node, name))
        if name == "cond":
            return self._cond(call, *arguments)
        if name == "while_loop":
            return read_while(self, call, *arguments)
        if name == "map_impl":
            return read_scan(self, call, arguments[0], [], *arguments[1:])
        if name == "scan":
            return read_scan(self, call, *arguments)
        if changes_types(name, arguments):
            raise Refused(name, f"{name} of a graph that is not decomposed{_where(node)}")
        before = INLINED.get(name)
        graph_and_arguments = arguments[before:] if before is not None else []
        if not graph_and_arguments or not isinstance(graph_and_arguments[0], torch.fx.GraphModule):
            raise Refused(name, f"No conversion rule found for operations: {name}{_where(node)}")
        inner = graph_and_arguments[1:]
        if name == "invoke_subgraph":
            inner = [a for a in inner if not isinstance(a, str)]
        return self.run(graph_and_arguments[0], inner)

    def _cond(self, call: Call, condition: Any, true: Any, false: Any, operands: Sequence[Any]) -> Any:
        constant = call.known_number(condition)
        if constant is not None:
            return self.run(true if constant else false, operands)
        bodies = [partial(read_graph, self, call, graph, operands) for graph in (true, false)]
        return build_if(self, call, condition, bodies)

    def _base(self, node: Any, target: Any) -> str:
        if not self.scopes:
            return f"{node.name}/{target}"
        stack = node.meta.get("nn_module_stack") or {}
        path = next((p for p, _ in reversed(list(stack.values())) if isinstance(p, str)), "")
        path = path.removeprefix("L['self']").strip(".")
        kind = f"aten::{str(target).split('.')[1]}" if str(target).startswith("aten.") else str(target)
        return f"__module.{path}/{kind}" if path else kind


def _base_name(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else str(node.target)


def _output_uses(node: Any) -> OutputUses:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return OutputUses(rank=value.dim())
    if any(user.target is not operator.getitem for user in node.users):
        return OutputUses()
    indices = frozenset(user.args[1] for user in node.users if isinstance(user.args[1], int))
    count = len(value) if isinstance(value, (list, tuple)) else max(indices, default=-1) + 1
    return OutputUses(count, indices)


def _where(node: Any) -> str:
    """The line of the module that called the operator."""
    trace = node.meta.get("stack_trace") or node.stack_trace
    if not trace:
        return f" (node {node.name})"
    lines = [line.strip() for line in trace.strip().splitlines()]
    return f" (node {node.name}, {' '.join(lines[-2:])})"


def refusal(target: Any) -> str | None:
    """Return the reason why an operator of FX graphs cannot be converted, or None if it has a rule."""
    if isinstance(target, torch._ops.OpOverload):
        schema = target._schema
        if find_rule(schema.name, schema.overload_name) is None:
            return "no conversion rule exists"
        return None
    if target is operator.getitem or python_number(getattr(target, "__name__", "")):
        return None
    if isinstance(target, torch._ops.HigherOrderOperator) and target.name() in _READ:
        return None
    return "it is not an ATen operator"


def read_exported(
    program: Any, converters: Mapping[str, Any] | None = None, names: Sequence[str] | None = None,
    scopes: bool = False, writes: bool = False,
) -> Model:  # fmt: skip
    """Convert a decomposed ExportedProgram; with `writes`, a plain one (`is_plain`). Input dimensions are
    dynamic, except those that the program constrains to one length: a loop over them is as long as the
    example's.

    `names` are those of the inputs, where they are not the program's own.
    """
    from torch.export.graph_signature import InputKind, OutputKind

    reader = FxReader(converters, scopes, writes)
    module, signature = program.graph_module, program.graph_signature
    placeholders = module.graph.find_nodes(op="placeholder")
    input_names = iter(names or [])
    values = []
    for node, spec in zip(placeholders, signature.input_specs, strict=True):
        if spec.kind == InputKind.USER_INPUT:
            name = next(input_names, None) or spec.arg.name
            values.append(_parameter(reader, node, name, spec, program.range_constraints))
            continue
        if spec.kind in (InputKind.TOKEN, InputKind.CUSTOM_OBJ):
            values.append(None)
            continue
        tensor = program.state_dict.get(spec.target)
        tensor = program.constants[spec.target] if tensor is None else tensor
        values.append(reader.constant(tensor, f"self.{spec.target}"))
    result = reader.run(module, values)
    nodes = list(module.graph.output_node().args[0])
    outputs = []
    for value, node, spec in zip(result, nodes, signature.output_specs, strict=True):
        if spec.kind == OutputKind.USER_OUTPUT and value is not None:
            outputs.append((value, [] if scopes else result_names(node, value)))
    results = [reader.result(value, names) for value, names in outputs]
    return reader.model(results, "Model0")


def result_names(node: Any, value: Any) -> list[str]:
    """The names of the output `value` of `node`. An input that is an output keeps its own."""
    is_input = isinstance(value, Output) and isinstance(value.node, Parameter)
    return [f"{node.name}:0"] if hasattr(node, "name") and not is_input else []


def input_of(reader: TorchReader, node: Any, name: str, length: Callable[[Any], int | None]) -> Any:
    """A parameter for a placeholder that is a tensor or a symbolic number; the value itself for others.
    `length`: the length of a dimension, None if dynamic."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return reader.parameter(name, value.dtype, [length(n) for n in value.shape])
    kinds = {torch.SymInt: torch.int64, torch.SymFloat: torch.float32, torch.SymBool: torch.bool}
    if type(value) in kinds:
        return Number(reader.parameter(name, kinds[type(value)], []))
    return value


def _parameter(reader: TorchReader, node: Any, name: str, spec: Any, ranges: Mapping[Any, Any]) -> Any:
    result = input_of(reader, node, name, lambda n: _only_length(n, ranges))
    return getattr(spec.arg, "value", result)  # only arguments that are constants have one


def _only_length(dim: Any, ranges: Mapping[Any, Any]) -> int | None:
    """The only length that a dynamic dimension can have, or None. 1 does not count: a comparison with
    it mostly holds for any number of samples (`specialized`)."""
    if not isinstance(dim, torch.SymInt):
        return None
    symbol, length = dim.node.expr, dim.node.hint
    span = ranges.get(symbol)
    if span is not None and span.lower == span.upper:
        length = int(span.lower)
    elif not (symbol.is_Integer or _is_guarded(dim.node, symbol)):
        return None
    return length if length is not None and length > 1 else None


def _is_guarded(node: Any, symbol: Any) -> bool:
    """Whether the program asserts an equation for this symbol that, among its multiples and neighbours, only
    the example's length solves. `size % 4 == 0` has other solutions."""
    if not symbol.is_Symbol or node.hint is None:
        return False
    guards = [guard.expr for guard in node.shape_env.guards]
    equations = [g for g in guards if getattr(g, "rel_op", "") == "==" and g.free_symbols == {symbol}]
    others = set(range(max(2, node.hint - _NEAR), node.hint + _NEAR)) | {node.hint * k for k in range(2, 5)}
    return any(not any(_solves(g, symbol, n) for n in others - {node.hint}) for g in equations)


def _solves(equation: Any, symbol: Any, number: int) -> bool:
    """Whether a number solves an equation. False if it would be divided by 0."""
    try:
        return bool(equation.subs(symbol, number) == True)  # noqa: E712
    except ZeroDivisionError:
        return False
