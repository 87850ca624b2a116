"""Stores a compiled program as tables, int64 arguments and object code, and restores it.

For static shapes the plan is stored ready to run: an import needs neither compiler nor operations. Plans for
dynamic shapes come from traces that the compiler made ahead of time, or that another process has stored
(`plans.py`). For other shapes, the compiler plans from the graph. The code of all kernels is stored.

    {"variables": [[name, type, dimensions, whether assigned, order, stored type], ...] (only with state),
     "starts": {"values": for each variable null, an array, or [program, numbers of its inputs, output],
                "programs": [{"inputs", "outputs": [(type, dimensions)], "sections": {name: bytes}}, ...]},
     "kernels": [[symbol, name, form, offset, size], ...], "runner": [kernel, ...],
     "hashing": [the kernel that checks large sections, if there are any],
     "files": null, or the state of ovjit's files (kept models have the runner's code of these files),
     "steering": [[offset, size], ...] (parts of `packed` that kernels use without a check),
     "traces": [kernel, [result of `encode_trace`, ...]] (only for dynamic shapes), "plan": null or
     {"shapes", "outputs": [dimensions], "arena", "scratch_offset", "scratch": bytes, "parallel": bool,
      "steps": [[kernel or null, chunks, words, name, type, [origin], flops, bytes, null or host call,
                 null or {"function", "room", "endless",
                          "bodies": [plan with "data_at", "memory_at", "memory"]}], ...]}}

`words` has the steps' argument blocks in order; those of bodies follow the step that runs them. `data` has
the constants of the plan and of the bodies' plans. All of this decides where native code reads and writes. So
it is used only if it is authenticated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.codegen import loading, routines
from ovjit.codegen.cpu import objects
from ovjit.codegen.kernel import Kernel
from ovjit.engine import context_of, executable_of, lifted_for, make_program, stateful_type
from ovjit.execution import runner
from ovjit.forks import ForkLock, made_once
from ovjit.graph.graph import Graph
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.planning.constants import aligned_bytes
from ovjit.planning.plan_steps import ControlCall, HostCall, Plan, Step
from ovjit.planning.views import Buffer, View
from ovjit.records import NamedTuple
from ovjit.source_files import package_state
from ovjit.storage import tags
from ovjit.storage.container import Parts, refuse_invalid
from ovjit.storage.graph_format import Arrays, Reader, dump, encode, encode_dims, parse, read_dims
from ovjit.storage.mapped import align

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.compiler.options import Context
    from ovjit.planning.growing import GrowingAxis, Room
    from ovjit.planning.parametric import Parametric, Traces
    from ovjit.rewrite.model_variables import Variable
    from ovjit.storage.origins import Origin


class StoredKernel(NamedTuple):
    """A kernel that is only known by its object code, under `symbol`."""

    symbol: str
    name: str
    form: str


class Symbols(dict[Any, str]):
    """kernel -> its symbol in a program's blob, for the program's target. The dictionary has the exceptions:
    kernels of this process that run any program, which are compiled for this machine."""

    def __init__(self, program: Any, *of_process: Kernel):
        super().__init__((kernel, kernel.symbol()) for kernel in of_process)
        self.target = program.context.target
        self._symbols: dict[Kernel, str] = {}

    def __missing__(self, kernel: Any) -> str:
        if isinstance(kernel, StoredKernel):
            return kernel.symbol
        symbol = self._symbols.get(kernel)  # cached: `symbol` reads the environment, and each step asks
        if symbol is None:
            symbol = self._symbols[kernel] = kernel.symbol(self.target)
        return symbol

    def is_loaded(self, kernel: Any) -> bool:
        return objects.address_of(self[kernel]) is not None

    def load(self, kernels: Iterable[Any]) -> None:
        """Load kernels. Those that are neither cached nor shipped are compiled."""
        missing = [k for k in kernels if isinstance(k, Kernel) and not self.is_loaded(k)]
        if missing:
            loading.addresses((k for k in missing if k not in self), target=self.target)
            loading.addresses(k for k in missing if k in self)


class StoredNode:
    """A node that a host step evaluates."""

    def __init__(
        self, op: str, opset: int, attrs: Mapping[str, Any], inputs: Sequence[str], outputs: Sequence[str]
    ):
        self._name, self._opset = op, opset
        self.attrs = dict(attrs)
        self.inputs = [TensorType(dtype, None) for dtype in inputs]
        self.outputs = [TensorType(dtype, None) for dtype in outputs]

    @made_once
    def op(self) -> Op:
        return find_op(self._name, self._opset)


# --- to tables


def encode_program(
    executable: Any, variables: Sequence[Variable] | None = None, loaded: bool = False,
    memory: Mapping[str, Any] | None = None, starts: Mapping[str, Any] | None = None,
    hashed: bool = False, origin: Origin | None = None, installed: Target | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """The sections `program`, `words`, `data` and `code` of a compiled executable, whose last inputs and
    outputs are `variables`.

    `loaded`: include only code that this process has loaded; raises TypeError if that is not enough to run
    it. `memory`: the table of the packed constants, see `by_file`. `starts`: the variables' initial values.
    `hashed`: include the code that checks large sections, see `tags`. `origin`: the file that has the graph's
    weights. `installed`: leave out the runner's code if ovjit ships it for this target: importers have it."""
    plan, data, hosts = _storable_plan(executable)
    used = executable.program.kernels
    if plan is not None:
        used = [step.kernel for step in hosts if step.kernel is not None]
    runners = runner.native_kernels(loaded)
    hashing = (tags.kernel(),) if hashed else ()
    if installed is not None:
        flags = debug.program_flags()
        runners = tuple(kernel for kernel in runners if not _is_shipped(kernel, installed, flags))
    evaluating = _evaluating_kernels(executable)
    symbols = Symbols(executable.program, *runners, *hashing, *evaluating)
    if loaded:
        if executable.static and plan is None:
            raise TypeError("its plan cannot be stored in a blob")
        used = list(filter(symbols.is_loaded, used))
    # a static model's kernels are loaded when a plan has steps of them
    symbols.load((*used, *runners, *hashing))
    traces = [t for t in executable.program.traced_ahead if t.facts() is not None]
    if loaded:
        traces = [t for t in traces if all(symbols.is_loaded(s.kernel) for s in t.steps)]
    used = [*used, *(step.kernel for trace in traces for step in trace.steps), *runners, *hashing]
    code = _Code(used, symbols)
    tables: dict[str, Any] = {"kernels": code.rows, "runner": list(map(code.number, runners)), "plan": None}
    tables["hashing"] = [code.number(k) for k in hashing]
    tables["files"] = package_state("ovjit", "ovjit_ops") if loaded else None
    tables |= {"steering": executable.program.constants.steering} if memory is None else {"memory": memory}
    if traces:
        rows = [encode_trace(trace, code.number) for trace in traces]
        tables["traces"] = [code.number(evaluating[0]), encode(rows, data)]
    if origin is not None:
        tables["file"] = [origin.path, *origin.state]
    if variables is not None:
        tables["variables"] = list(map(_encode_variable, variables))
        tables["starts"] = encode(starts, data)
    plans = _Plans(code, data, hosts)
    if plan is not None:
        tables["plan"] = plans.encode(plan)
    return {
        "program": dump(tables),
        "words": np.array(plans.words, "<i8").tobytes(),
        "data": data.content(),
        "code": Parts(code.parts),
    }


def _evaluating_kernels(executable: Any) -> tuple[Kernel, ...]:
    """The kernel that evaluates traces, of a program that may have some."""
    if executable.program.traced_ahead or not executable.static:
        from ovjit.planning.parametric import evaluating_kernel

        return (evaluating_kernel(),)
    return ()


@functools.cache
def _is_shipped(kernel: Kernel, isa: Target, flags: tuple[str, ...]) -> bool:
    """True if the kernel's object code comes with ovjit. `flags`: the switches in this environment."""
    return kernel.find_shipped(isa) is not None


def _encode_variable(v: Variable) -> list[Any]:
    return [v.name, v.dtype, encode_dims(v.shape), v.assigned, v.order, v.stored, v.role]


def _storable_plan(executable: Any) -> tuple[Plan | None, Arrays, dict[Step, Any]]:
    """The plan for static shapes, its constants, and the encoded host call of each step. The plan is None if
    it cannot be stored: then an importer plans again."""
    data = Arrays("data")
    if not executable.static:
        return None, data, {}
    plan = executable.table(tuple(tuple(v.shape) for v in executable.inputs)).plan
    if plan.cut is not None:
        return None, data, {}  # the compiler will cut the graph again
    data.add(plan.data)
    try:
        return plan, data, {step: _encode_host(step, data) for step in _all_steps(plan)}
    except (TypeError, ValueError):
        return None, Arrays("data"), {}  # an attribute that cannot be stored


class _Code:
    """The object code of kernels: `parts` in order, and a row for each kernel. Equal kernels may have several
    names, for profiles. They share the code."""

    def __init__(self, used: Iterable[Any], symbols: Symbols):
        self.symbols = symbols
        self.rows: list[list[Any]] = []
        self.parts: list[bytes] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self._by_id: dict[int, int] = {}
        spans: dict[str, tuple[int, int]] = {}
        end = 0
        distinct = {id(k): k for k in used}.values()
        for symbol, name, form in sorted({(symbols[k], k.name, k.form) for k in distinct}):
            if symbol not in spans:
                self.parts.append(loading.object_code[symbol])
                spans[symbol] = end, len(self.parts[-1])
                end += len(self.parts[-1])
            self._numbers[symbol, name] = len(self.rows)
            self.rows.append([symbol, name, form, *spans[symbol]])

    def number(self, kernel: Any) -> int:
        number = self._by_id.get(id(kernel))  # hashing a kernel hashes its source
        if number is None:
            number = self._by_id[id(kernel)] = self._numbers[self.symbols[kernel], kernel.name]
        return number


def code_in_parts(code: bytes, rows: Iterable[Sequence[Any]]) -> Parts:
    """The code of the kernels in a table, as `_Code` has joined it."""
    return Parts([code[offset : offset + size] for offset, size in sorted({(r[3], r[4]) for r in rows})])


class _Plans:
    """Encodes plans as tables. `words`: the argument blocks of their steps; those of bodies follow the step
    that runs them. `hosts`: the encoded host calls."""

    def __init__(self, code: _Code, data: Arrays, hosts: Mapping[Step, Any]):
        self.code, self.data, self.hosts = code, data, hosts
        self.words: list[int] = []

    def encode(self, plan: Plan) -> dict[str, Any]:
        return {
            "shapes": [list(shape) for shape in plan.input_shapes],
            "outputs": [encode_dims(shape) for shape in plan.output_shapes],
            "arena": int(plan.arena_size),
            "scratch_offset": int(plan.scratch_offset),
            "scratch": int(plan.scratch_size),
            "parallel": bool(plan.parallel),
            "data": plan.data.size,
            "steps": [self._step(*row) for row in zip(plan.steps, plan.words, strict=True)],
        }

    def _step(self, step: Step, block: Sequence[int]) -> list[Any]:
        self.words.extend(block)
        return [
            None if step.kernel is None else self.code.number(step.kernel), int(step.chunks), len(block),
            step.name, step.type, list(step.origins), float(step.flops), float(step.bytes), self.hosts[step],
            None if step.control is None else self._control(step.control), step.why,
        ]  # fmt: skip

    def _control(self, call: ControlCall) -> dict[str, Any]:
        bodies = []
        for body in call.bodies:
            offsets = {"data_at": self.data.add(body.data)[1], "memory_at": self.data.add(body.memory)[1]}
            bodies.append({**self.encode(body), **offsets, "memory": body.memory.size})
        facts = {"function": call.function, "room": int(call.room), "endless": bool(call.endless)}
        return {**facts, "bodies": bodies}


def encode_starts(program: Any, sections: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """The initial values of a `StatefulProgram`'s variables, for `encode_program`: arrays, or outputs of
    programs. `sections` returns the sections of such a program."""
    inits = program.inits()
    programs = list({init.executable: None for init in inits if hasattr(init, "executable")})
    return {
        "values": [
            [programs.index(init.executable), list(init.inputs), init.output]
            if hasattr(init, "executable")
            else init
            for init in inits
        ],
        "programs": [
            {
                "inputs": [(v.dtype, v.shape) for v in result.inputs],
                "outputs": [(v.dtype, v.shape) for v in result.outputs],
                "sections": {kind: np.frombuffer(s, np.uint8) for kind, s in sections(result).items()},
            }
            for result in programs
        ],
    }


def encode_trace(trace: Parametric, number_of: Callable[[Any], int]) -> dict[str, Any]:
    """A trace without bodies for `encode`. `number_of` gives the row of a kernel."""
    steps = [
        [number_of(s.kernel), int(s.chunks), s.name, s.type, list(s.origins), s.flops, s.bytes, s.why]
        for s in trace.steps
    ]
    return {**(trace.facts() or {}), "steps": steps}


def read_trace(row: Mapping[str, Any], kernels: Sequence[StoredKernel]) -> Parametric:
    """The inverse of `encode_trace`. `kernels`: those that the row's numbers refer to."""
    from ovjit.planning.parametric import Parametric

    steps = [
        Step(kernels[kernel], (), chunks, name, kind, origins, flops, moved, why=why)
        for kernel, chunks, name, kind, origins, flops, moved, why in row["steps"]
    ]
    return Parametric.of_facts(row, steps)


def _all_steps(plan: Plan) -> Iterator[Step]:
    """The steps of a plan, and of the plans of the bodies that they run."""
    for step in plan.steps:
        yield step
        for body in step.control.bodies if step.control is not None else ():
            yield from _all_steps(body)


def _encode_host(step: Step, data: Arrays) -> Any:
    call = step.host
    if call is None:
        return None
    node = call.node
    return {
        "op": node.op.name,
        "opset": node.op.opset,
        "attrs": {name: encode(value, data) for name, value in node.attrs.items()},
        "inputs": [_encode_view(v, view) for v, view in zip(node.inputs, call.inputs, strict=True)],
        "outputs": [_encode_view(v, view) for v, view in zip(node.outputs, call.outputs, strict=True)],
    }


def _encode_view(value: Any, view: View) -> list[Any]:
    base, offset = int(view.buffer.base), int(view.buffer.offset + view.offset)
    return [value.dtype, base, offset, view.itemsize, list(view.shape), list(map(int, view.strides))]


# --- from tables


def hashing_code(tables: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, bytes]:
    """symbol -> the authenticated code that checks large sections. Raises BlobError for invalid tables."""
    with refuse_invalid("the blob's program is"):
        rows = [tables["kernels"][number] for number in tables["hashing"]]
        return {str(row[0]): sections["code"][row[3] : row[3] + row[4]] for row in rows}


class Stored(NamedTuple):
    """The stored form of a program. `memory`: the packed constants; None if the compiler must make them.
    `read_graph` returns the graph before all passes."""

    tables: Mapping[str, Any]
    sections: Mapping[str, Any]
    memory: np.ndarray | None
    inputs: Sequence[TensorType]
    outputs: Sequence[TensorType]
    read_graph: Callable[[], Graph]
    config: Mapping[str, Any]


class StoredProgram:
    """A program with the interface of `Program`, read from authenticated sections."""

    def __init__(self, stored: Stored):
        """Raises BlobError for invalid tables."""
        tables, self.sections, self.memory, self.inputs, self.outputs, self._read_graph, self._config = stored
        self._graph: Graph | None = None
        self._compiled: Any = None
        self._lock = ForkLock("model")
        with refuse_invalid("the blob's program is"):
            self.kernels = [StoredKernel(*map(str, row[:3])) for row in tables["kernels"]]
            self._code_spans = [(offset, size) for *_, offset, size in tables["kernels"]]
            self._needed = set(tables["runner"])
            self._plan = None if tables["plan"] is None else self._read_plans(tables["plan"])
            number, rows = tables.get("traces", (0, ()))
            reader = Reader({"data": self.sections["data"]})
            traces = [read_trace(reader.value(row), self.kernels) for row in rows]
            evaluating = self.kernels[number] if traces else None
            are_current = tables.get("files") == package_state("ovjit", "ovjit_ops") is not None
            of_process = [*(self.kernels[row] for row in tables["runner"]), evaluating]
            self._routines = [kernel for kernel in of_process if kernel is not None and are_current]
        #: Addresses of the loaded kernels.
        self.addresses: dict[Any, int] = {}
        self._loaded: set[int] = set()
        #: Traces for dynamic shapes that were stored with the program.
        self.traces: Traces | tuple[()] = ()
        if evaluating is not None:
            self.offer(traces, evaluating)
        #: Called when the compiler has added a trace, see `ovjit.storage.plans`.
        self.traced: Callable[[Traces], None] | None = None

    def _read_plans(self, table: Mapping[str, Any]) -> Plan:
        if self.memory is None:
            raise ValueError("a plan is stored without its inputs")
        words = iter(np.frombuffer(self.sections["words"], "<i8").tolist())
        plan = self._read_plan(table, words, Reader({"data": self.sections["data"]}))
        plan.data = np.frombuffer(self.sections["data"], np.uint8)[: table["data"]]
        plan.memory = self.memory
        if next(words, None) is not None:
            raise ValueError("more int64 arguments are stored than its steps have")
        return plan

    def _read_body(self, table: Mapping[str, Any], words: Iterator[int], reader: Reader) -> Plan:
        plan = self._read_plan(table, words, reader)
        section = np.frombuffer(self.sections["data"], np.uint8)
        plan.data = section[table["data_at"] : table["data_at"] + table["data"]]
        plan.memory = aligned_bytes(table["memory"])
        plan.memory[:] = section[table["memory_at"] : table["memory_at"] + table["memory"]]
        return plan

    def _read_plan(self, table: Mapping[str, Any], words: Iterator[int], reader: Reader) -> Plan:
        plan = Plan()
        for kernel, chunks, count, name, kind, origins, flops, moved, host, control, why in table["steps"]:
            block = list(islice(words, count))
            if len(block) < count:
                raise ValueError("fewer int64 arguments are stored than its steps have")
            call = None if host is None else _read_host(host, reader)
            inner = None
            if control is not None:
                bodies = [self._read_body(body, words, reader) for body in control["bodies"]]
                inner = ControlCall(
                    str(control["function"]), bodies, int(control["room"]), bool(control["endless"])
                )
            if sum(part is not None for part in (kernel, call, inner)) != 1:
                raise ValueError(f"the step {name!r} is neither a native step nor a host step")
            stored: Any = None if kernel is None else self.kernels[kernel]
            plan.steps.append(Step(stored, [], chunks, name, kind, origins, flops, moved, call, inner, why))
            plan.words.append(block)
            if kernel is not None:
                self._needed.add(kernel)
        plan.input_shapes = tuple(tuple(shape) for shape in table["shapes"])
        plan.output_shapes = [read_dims(shape) for shape in table["outputs"]]
        plan.arena_size, plan.scratch_offset = table["arena"], table["scratch_offset"]
        plan.scratch_size, plan.parallel = table["scratch"], table["parallel"]
        return plan

    @property
    def context(self) -> Context:
        """The target and options of its plans."""
        return context_of(self._config)

    def load(self) -> None:
        """Load the code of the runner and of the stored plan."""
        self._load(sorted(self._needed))
        routines.provided.update((kernel.name, kernel.symbol) for kernel in self._routines)

    def _load(self, numbers: Iterable[int]) -> None:
        for i in numbers:
            self._loaded.add(i)
            kernel = self.kernels[i]
            address = objects.address_of(kernel.symbol)
            if address is None:
                code = self._code(i)
                loading.object_code[kernel.symbol] = code
                address = objects.load(kernel.symbol, code)
            self.addresses[kernel] = address

    def kernels_named(self, names: Sequence[tuple[str, str]]) -> list[StoredKernel]:
        """The kernels with these symbols and names. A blob has one of several kernels with the same code;
        plans that were stored later may use another name of it. Raises KeyError for an unknown symbol."""
        by_name = {(kernel.symbol, kernel.name): kernel for kernel in self.kernels}
        indices = {kernel.symbol: i for i, kernel in enumerate(self.kernels)}
        for symbol, name in names:
            if (symbol, name) not in by_name:
                there = indices[symbol]
                by_name[symbol, name] = self.kernels[there]._replace(name=name)
                self.kernels.append(by_name[symbol, name])
                self._code_spans.append(self._code_spans[there])
        return [by_name[name] for name in names]

    def offer(self, traces: Sequence[Parametric], evaluating: StoredKernel) -> None:
        """Use these traces for dynamic shapes, before any others. They must be authenticated as the program
        is. They read `memory`, which must exist. `evaluating`: the kernel that evaluates traces."""
        from ovjit.planning.parametric import Traces

        offered = Traces()
        for trace in reversed(traces):
            offered.add(trace)
        self._number = {kernel: i for i, kernel in enumerate(self.kernels)}
        self._load([self._number[evaluating]])
        self.traces = offered

    def _find_traced(self, shapes: Sequence[tuple[int, ...]], room: Room | None) -> Plan | None:
        """The plan for these shapes by one of the offered traces; None if none serves them."""
        if not self.traces or self.memory is None or debug.is_on("OVJIT_CHECK"):
            return None  # plan again, from the graph
        plan = self.traces.find(shapes, room)
        if plan is None:
            return None
        plan.memory = self.memory
        if not plan.trace.loaded:
            with self._lock.lock:
                needed: set[Any] = {step.kernel for step in plan.steps}
                self._load(sorted({self._number[kernel] for kernel in needed} - self._loaded))
                plan.trace.loaded = True
        return plan

    def new_traces(self) -> Iterable[Parametric]:
        """The traces that the compiler has added, for plans that read `memory`."""
        result = None if self._compiled is None else self._compiled.traces
        return () if result is None or result.added is None else result

    def _code(self, i: int) -> bytes:
        offset, size = self._code_spans[i]
        return self.sections["code"][offset : offset + size]

    def growing(self, pairs: Sequence[tuple[int, int]]) -> tuple[GrowingAxis, ...]:
        """See `Program.growing`. No variable grows with a stored plan. Offered traces list the growing
        ones."""
        if self._plan is not None:
            return ()
        traced = next((trace.growing_axes for trace in self.traces if trace.growing_axes is not None), None)
        return self.compiler_program().growing(pairs) if traced is None else traced

    def plan(self, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> Plan:
        """The stored plan if it is for these input shapes, else one from the compiler."""
        return self._find_plan(shapes, room) or self.compiler_program().plan(shapes, room=room)

    def loaded_plan(self, shapes: Sequence[tuple[int, ...]], room: Room | None = None) -> Plan:
        """See `Program.loaded_plan`."""
        plan = self._find_plan(shapes, room)
        if plan is None:
            return self.compiler_program().loaded_plan(shapes, room)
        plan.addresses = self.addresses
        return plan

    def _find_plan(self, shapes: Sequence[tuple[int, ...]], room: Room | None) -> Plan | None:
        """The stored plan if it is for these input shapes, or a plan by an offered trace; else None."""
        if self._plan is not None and self._plan.input_shapes == tuple(shapes):
            return self._plan
        return self._find_traced(shapes, room)

    def graph_of(self) -> Graph:
        """The graph before all passes."""
        with self._lock.lock:
            if self._graph is None:
                self._graph = self._read_graph()
            return self._graph

    @property
    def graph(self) -> Graph:
        """The graph after all passes."""
        return self.compiler_program().graph

    @property
    def layouts(self) -> Mapping[Any, Any]:
        """The layouts of the values of `graph` that are not row-major."""
        return self.compiler_program().layouts

    def host_nodes(self) -> list[str]:
        """The nodes without a native lowering, see `Program.host_nodes`."""
        return self.compiler_program().host_nodes()

    def compiler_program(self) -> Any:
        """The compiler's program, compiled from the graph at the first call, with the kernels' code of the
        blob."""
        with self._lock.lock:
            if self._compiled is None:
                program = make_program(self.graph_of(), self._config)
                codes = {kernel.symbol: self._code(i) for i, kernel in enumerate(self.kernels)}
                program.load(codes)
                if self._plan is None:  # for a graph break: load the blob's kernels, which the segments use
                    target = program.context.target
                    program.addresses.need(k for k in program.kernels if k.symbol(target) in codes)
                if self.memory is not None and np.array_equal(program.memory, self.memory):
                    program.memory = self.memory  # keep the copy that other processes share
                    if program.traces is not None:  # stored traces read the blob's memory
                        program.traces.added = self.traced
                self._compiled = program
            return self._compiled


def stored_with_variables(stored: Stored) -> Any:
    """As `StoredProgram`, for a model with state: the program around the stored one."""
    from ovjit.execution.variables import inner_config
    from ovjit.rewrite.model_variables import Variable

    with refuse_invalid("the blob's variables are"):
        variables = [
            Variable(str(name), dtype, read_dims(shape), bool(assigned), int(order), stored, str(role))
            for name, dtype, shape, assigned, order, stored, role in stored.tables["variables"]
        ]
        hidden = [(v, v.storage) for v in variables]
    read_graph = functools.cache(stored.read_graph)
    inner = inner_config(stored.config)
    inside = stored._replace(
        inputs=[*stored.inputs, *(t for _, t in hidden)],
        outputs=[*stored.outputs, *(t for v, t in hidden if v.assigned)],
        read_graph=lambda: lifted_for(read_graph(), context_of(inner)).main,
        config=inner,
    )
    main = executable_of(StoredProgram(inside), inner)
    starts = functools.partial(_read_starts, stored.tables, stored.sections, main, len(variables), inner)
    program: Any = stateful_type(inner)(main, variables, read_graph, starts)
    program.sections = stored.sections
    return program


def _read_starts(
    tables: Mapping[str, Any], sections: Mapping[str, Any], main: Any, count: int, config: Mapping[str, Any]
) -> list[Any]:
    """The initial value of each of `count` variables: an array, an `Init` that computes it, or None for
    zeros."""
    from ovjit.execution.states_ahead import Init

    table = Reader({"data": sections["data"]}).value(tables.get("starts"))
    with refuse_invalid("the initial values of the blob's variables are"):
        programs = [_read_start(row, config) for row in table["programs"]]
        starts: list[Any] = []
        for value in table["values"]:
            if isinstance(value, list):
                number, inputs, output = value
                program = programs[number]
                if len(inputs) != len(program.inputs) or not all(0 <= i < len(main.inputs) for i in inputs):
                    raise ValueError(f"a start of {len(program.inputs)} inputs is given {inputs}")
                value = Init(program, tuple(inputs), range(len(program.outputs))[output])
            starts.append(value)
        if len(starts) != count:
            raise ValueError(f"{len(starts)} entries are stored for {count} variables")
        return starts


def _read_start(row: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The executable of a program that is stored inside of another one."""
    sections = {kind: array.data.toreadonly() for kind, array in row["sections"].items()}
    memory = align(sections["packed"])
    inputs, outputs = ([TensorType(dtype, dims) for dtype, dims in row[end]] for end in ("inputs", "outputs"))
    return stored_executable(parse(sections["program"], "program"), sections, memory, inputs, outputs, config)


def stored_executable(
    tables: Mapping[str, Any], sections: dict[str, Any], memory: np.ndarray | None,
    inputs: Sequence[TensorType], outputs: Sequence[TensorType], config: Mapping[str, Any],
    more_sections: Mapping[str, Any] | None = None, check: Callable[[], object] = bool,
) -> Any:  # fmt: skip
    """The executable of a stored program, with variables if it has some. `more_sections`: further places of
    the graph's arrays, besides the sections. `check` is called before they are read."""
    contents = {"weights": sections["weights"], **(more_sections or {})}
    if "packed" not in contents and memory is not None:
        sections["packed"] = contents["packed"] = memory.data.toreadonly()

    def read_graph() -> Graph:
        check()
        return Reader(contents).graph(parse(sections["graph"], "graph"))

    stored = Stored(tables, sections, memory, inputs, outputs, read_graph, config)
    is_stateful = tables.get("variables") is not None
    return executable_of(stored_with_variables(stored) if is_stateful else StoredProgram(stored), config)


def _read_host(table: Mapping[str, Any], reader: Reader) -> HostCall:
    attrs = {name: reader.value(value) for name, value in table["attrs"].items()}
    ends = table["inputs"], table["outputs"]
    dtypes = [[row[0] for row in rows] for rows in ends]
    views = [
        [View(Buffer(0, base, at), shape, strides, size) for _, base, at, size, shape, strides in rows]
        for rows in ends
    ]
    node: Any = StoredNode(table["op"], table["opset"], attrs, *dtypes)
    return HostCall(node, *views)
