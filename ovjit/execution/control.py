"""If, Loop and TensorIterator that the runner cannot run alone: Python leads each iteration.

This is needed where shapes change between iterations, or where a body has host steps. Bodies are executables,
one for each set of ranks, planned and cached by shape. A Loop with equal iterations whose number depends on
data is still one native run, into memory with room for the maximum number of iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.errors import InferenceError, OvjitError
from ovjit.execution.loop_progress import LoopProgress
from ovjit.forks import ForkLock
from ovjit.graph import dtypes
from ovjit.graph.bodies import CONCAT, LAST, axis_of, retype, stopping
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.interp import evaluate_node
from ovjit.graph.op import REFUSED, TensorType
from ovjit.graph.shapes import ANY, fits, is_static

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable
    from ovjit.execution.job import Job

#: Initial capacity, in iterations, of a loop with an unknown count. If it is exceeded, the loop restarts with
#: four times the capacity.
FIRST_ROOM = 256
#: Maximum sets of exact shapes whose executables are cached.
MOST_SEEN = 4096
#: Maximum elements of an array with which a node's types are noted.
MOST_NOTED = 8
#: Maximum bytes of concatenated outputs of a single native run.
MOST_ROOM = 1 << 30
#: Maximum attempts, per job, to make a loop's iterations native.
MOST_LESSONS = 16


class Bodies:
    """The executables of bodies that Python leads, of one executable. Thread-safe."""

    def __init__(self, config: Mapping[str, Any], build: Callable[[Graph, Mapping[str, Any]], Any]):
        """`build` makes executables of graphs."""
        self._build = build
        self._config = {k: v for k, v in config.items() if k != "watch"}
        self._lock = ForkLock("model")
        self._executables: dict[Any, Any] = {}
        self._by_shapes: dict[Any, Any] = {}  # exact shapes -> executable
        self._ends: dict[int, tuple[Any, Any]] = {}
        #: Node -> its native evaluation, None without one.
        self._hosted: dict[Any, Callable[..., Any] | None] = {}
        self._checked: dict[Any, _CheckedTypes] = {}
        self._branches: dict[Any, Any] = {}  # (node of an If, condition) -> its branch
        self._interprets = debug.is_on("OVJIT_INTERP")

    def executable(self, body: Graph, arrays: Sequence[np.ndarray]) -> Executable:
        """The executable of a body for these inputs. Declared shapes that do not fit become dynamic."""
        key = body, tuple([a.shape for a in arrays])
        result = self._by_shapes.get(key)
        if result is None:
            types = _types(body.inputs, arrays)
            result = self._find((body, tuple(t.shape for t in types)), lambda: retype(body, types))
            self._note(key, result)
        return result

    def _find(self, key: Any, graph: Callable[[], Graph]) -> Executable:
        with self._lock.lock:
            result = self._executables.get(key)
            if result is None:
                result = self._executables[key] = self._build(graph(), self._config)
            return result

    def _note(self, key: Any, executable: Executable | None) -> None:
        """Cache the executable for these exact shapes. The cache is emptied at MOST_SEEN entries."""
        if len(self._by_shapes) >= MOST_SEEN:
            self._by_shapes = {}
        self._by_shapes[key] = executable

    def ends_of(self, node: Any) -> Any:
        """The ports of a Loop or TensorIterator."""
        from ovjit_ops.control.ends import ports_of

        entry = self._ends.get(id(node))
        if entry is None:
            # the node is kept too, since an id is only unique while its object lives
            entry = self._ends[id(node)] = ports_of(node.attrs, len(node.inputs)), node
        return entry[0]

    def branch(self, node: Any, condition: bool) -> tuple[Graph, list[int], list[int]]:
        """(body, the node's input that each parameter is, the body's result that each output is)"""
        from ovjit_ops.control.conditions import branch_inputs, branch_of

        entry = self._branches.get((node, condition))
        if entry is None:
            body, inputs, results = branch_of(node.attrs, condition)
            sources = branch_inputs(body, inputs, range(1, len(node.inputs)))
            entry = self._branches[node, condition] = body, sources, results
        return entry

    def make_bounded(self, node: Any, arrays: Sequence[np.ndarray]) -> Executable | None:
        """A Loop as an executable of its own, whose last input has the capacity as its length. None if it
        cannot run natively."""
        shapes = tuple([a.shape for a in arrays])
        key = id(node), shapes  # `ends_of` keeps the node
        if key in self._by_shapes:
            return self._by_shapes[key]
        result = None
        if _is_uniform(self.ends_of(node), node, arrays):
            types = _types(node.inputs, arrays)
            result = self._find(
                (id(node), tuple(t.shape for t in types)), lambda: _bounded_graph(node, types)
            )
            if result.table((*shapes, (1,))).in_python:
                result = None  # the body has host steps
        self._note(key, result)
        return result

    def evaluate(
        self, job: Job, node: Any, arrays: Sequence[np.ndarray], between: bool = False
    ) -> Sequence[np.ndarray]:
        """Evaluate a node on the host: by its operation's `host`, by its reference, or by the executables of
        its bodies. `between`: the node computes integers between operations with `host`.

        Raises OvjitError if the node does not accept its inputs, Cancelled if the job is cancelled.
        """
        run = self._hosted[node] if node in self._hosted else self._hosted_of(node, between)
        if run is not None:
            try:
                result = run(*arrays)
            except REFUSED as error:
                raise node.op.refusal(error, arrays, node.attrs) from error
            return result if isinstance(result, tuple) else (result,)
        if node.op.runs_body and not self._interprets:
            return (_If if "then_body" in node.attrs else _Loop)(job, node).run(arrays)
        checked = self._checked.get(node)
        if checked is None:
            checked = self._checked[node] = _CheckedTypes(node, not self._interprets)
        types = checked.types_of(arrays)
        if types is not None:
            return node.op.run_unchecked(arrays, node.attrs, types)
        with stopping(job.stop_if_cancelled):
            return evaluate_node(node, arrays)

    def _hosted_of(self, node: Any, between: bool) -> Callable[..., Any] | None:
        """Returns the cached function that evaluates a node without type checks; None for other nodes.

        It is the operation's `host`, which has vocabularies and tables, or for elementwise integer nodes
        `between` such nodes the operation's reference: NumPy refuses what does not broadcast.
        """
        with self._lock.lock:
            if node not in self._hosted:
                run = None
                if not self._interprets:
                    run = _by_host(node)
                    if run is None and between and node.attrs.get("auto_broadcast") == "numpy":
                        run = _reference(node)
                self._hosted[node] = run
        return self._hosted[node]


def _by_host(node: Any) -> Callable[..., Any] | None:
    make = node.op.hosting()
    constants = [value.constant for value in node.inputs]
    return None if make is None else make(constants, node.attrs)


def _reference(node: Any) -> Callable[..., Any]:
    """The reference of an elementwise node of integers. Callers turn NumPy's warnings off."""
    ref, attrs = node.op.ref, node.attrs

    def run(*arrays: np.ndarray) -> Any:
        result = ref(*arrays, **attrs)
        return tuple(map(np.asarray, result)) if isinstance(result, tuple) else np.asarray(result)

    return run


class _CheckedTypes:
    """The types and shapes with which a node has been checked: its operation accepts all arrays that have
    them, and the same elements where it looks at those of small arrays."""

    def __init__(self, node: Any, serves: bool):
        """`serves` False: no types are noted."""
        self._node = node
        self._constant = [value.constant is not None for value in node.inputs]
        self._types: dict[Any, Any] = {}
        # such a node may compute in another type, see `evaluate_node`
        converts = node.lowered or any(value.dtype == "bf16" for value in (*node.inputs, *node.outputs))
        self._serves = serves and not converts

    def types_of(self, arrays: Sequence[np.ndarray]) -> Any:
        """The output types for arrays that need no check; None if they do."""
        if not self._serves:
            return None
        key: tuple[Any, ...] = tuple([(array.shape, array.dtype) for array in arrays])
        fixed = self._constant
        for _ in range(2):
            if key not in self._types:
                if len(self._types) >= MOST_SEEN:
                    self._types = {}
                self._types[key] = self._node.op.types_without_values(arrays, self._node.attrs, fixed)
            types = self._types[key]
            if types is not None:
                return types
            # then also with the elements of small arrays, such as those of a shape
            small = [a.size <= MOST_NOTED and a.dtype.kind in "iufb" for a in arrays]
            fixed = [one or other for one, other in zip(fixed, small, strict=True)]
            key = (*key, *(a.tobytes() for a, is_small in zip(arrays, small, strict=True) if is_small))
        return None


class _Control:
    def __init__(self, job: Job, node: Any):
        self.job = job
        self.node = node
        self.bodies = job.executable.bodies
        #: The last executable that has run, and its job.
        self.last: tuple[Executable, Job] | None = None

    def job_of(self, body: Graph, arrays: Sequence[np.ndarray]) -> Job:
        """The job of a body after a run on these arrays."""
        job = self.job
        job.stop_if_cancelled()
        part = self.bodies.executable(body, arrays)
        inner = job.part_job(part)
        for i, array in enumerate(arrays):
            if inner.inputs[i] is not array:
                inner.set_input(i, contiguous(array))
        try:
            inner.run()
        except OvjitError as error:
            job.stop_if_cancelled()
            raise error
        self.last = part, inner
        return inner


class _If(_Control):
    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if arrays[0].size != 1:
            raise InferenceError(
                f"the condition of an If should have one element; its shape is {list(arrays[0].shape)}"
            )
        body, sources, results = self.bodies.branch(self.node, bool(arrays[0].reshape(())))
        inner = self.job_of(body, [arrays[i] for i in sources])
        return [inner.outputs[i] for i in results]


class _Loop(_Control):
    def __init__(self, job: Job, node: Any):
        super().__init__(job, node)
        self.is_loop = "condition_result" in node.attrs
        self.ends = self.bodies.ends_of(node)

    def run(self, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        from ovjit_ops.control.ends import one_element

        if not self.is_loop:
            iterations = self.ends.slice_iterations([a.shape for a in arrays])
            return self._step_by_step(arrays, 1 if iterations is None else iterations, True)
        count = int(one_element(arrays[0], "the trip count"))
        go_on = bool(one_element(arrays[1], "the condition"))
        iterations = None if count < 0 else count
        if go_on and iterations != 0:
            native = self.bodies.make_bounded(self.node, arrays)
            result = None if native is None else self._in_one_run(native, arrays, iterations)
            if result is not None:
                return result
        return self._step_by_step(arrays, iterations, go_on)

    def _in_one_run(
        self, native: Executable, arrays: Sequence[np.ndarray], iterations: int | None
    ) -> list[np.ndarray] | None:
        """The outputs, by one native run. None if concatenated outputs would exceed MOST_ROOM."""
        job = self.job
        inner = job.part_job(native)
        for i, array in enumerate(arrays):
            inner.set_input(i, contiguous(array))
        parts = [port for port in self.ends.outputs if port.kind == CONCAT]
        most = FIRST_ROOM if iterations is None else min(iterations, 16 * FIRST_ROOM)
        room = 1 << max(most - 1, 0).bit_length()
        while True:
            job.stop_if_cancelled()
            inner.set_input(len(arrays), np.broadcast_to(np.uint8(0), (room if parts else 1,)))
            try:
                inner.run()
            except OvjitError as error:
                job.stop_if_cancelled()
                prefix = f"node {native.graph.nodes[-1].name!r} (BoundedLoop): "
                raise type(error)(str(error).removeprefix(prefix)) from error
            done = int(inner.outputs[-1].reshape(()))
            if not parts or done < room or done == iterations:
                break
            room *= 4
            if sum(inner.outputs[p.outer].nbytes for p in parts) * 4 > MOST_ROOM:
                return None
        out = list(inner.outputs[:-1])
        for port in parts:
            array = out[port.outer]
            axis = axis_of(port, array.shape)
            extent = array.shape[axis] // room * done
            out[port.outer] = array[(slice(None),) * axis + (slice(0, extent),)]
        return out

    def _step_by_step(
        self, arrays: Sequence[np.ndarray], iterations: int | None, go_on: bool
    ) -> Sequence[np.ndarray]:
        loop = LoopProgress(self.ends, arrays, iterations, go_on)
        while loop.goes_on:
            before = loop.done
            self._in_native_iterations(arrays, loop)
            if loop.done > before:
                loop.spares = {}
                continue
            loop.begin(arrays)
            loop.end(self.job_of(self.ends.body, loop.feeds))
        return loop.results(arrays)

    def _in_native_iterations(self, arrays: Sequence[np.ndarray], loop: LoopProgress) -> None:
        """Run native iterations, if a previous iteration in Python has determined the shapes."""
        key, last = ("iterations", id(self.node)), self.last
        executable, native, lessons = self.job.notes.get(key, (None, None, MOST_LESSONS))
        if lessons and last is not None and (native is None or last[0] is not executable):
            from ovjit.execution.iterations import iterations_of

            executable, native, lessons = last[0], iterations_of(self.ends, *last), lessons - 1
            self.job.notes[key] = executable, native, lessons
        if native is not None and not native.run(self.job, arrays, loop):
            self.job.notes[key] = None, None, lessons


def contiguous(array: np.ndarray) -> np.ndarray:
    """`array` itself if it is row-major without gaps, else a copy."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _dtype_of(value: Any, array: np.ndarray) -> str:
    return dtypes.from_numpy(array.dtype) if value.dtype == "dynamic" else value.dtype


def _types(values: Sequence[Any], arrays: Sequence[np.ndarray]) -> list[TensorType]:
    """The declared types if the arrays fit them, else types with dynamic dimensions."""
    out = []
    for value, array in zip(values, arrays, strict=True):
        good = value.shape is not None and fits(array.shape, value.shape)
        out.append(TensorType(_dtype_of(value, array), value.shape if good else (ANY,) * array.ndim))
    return out


def _is_uniform(ends: Any, node: Any, arrays: Sequence[np.ndarray]) -> bool:
    """Whether all iterations of a Loop have the same shapes, and a native loop can write its outputs."""
    for port in ends.outputs:
        if (port.kind == CONCAT and port.stride < 0) or (port.kind == LAST and port.iteration != -1):
            return False
    types = [TensorType(_dtype_of(v, a), a.shape) for v, a in zip(node.inputs, arrays, strict=True)]
    feeds, result = ends.feeds(types)
    return all(is_static(t.shape) and t.dtype != "string" for t in (*feeds, *result))


def _bounded_graph(node: Any, types: Sequence[TensorType]) -> Graph:
    """A graph of one BoundedLoop for inputs of these types."""
    from ovjit_ops.control.iteration import BOUNDED

    builder = Builder()
    values = [builder.add("Parameter", (), {"shape": t.shape, "element_type": t.dtype}).output for t in types]
    room = builder.add("Parameter", (), {"shape": (ANY,), "element_type": "u8"}).output
    result = builder.add(BOUNDED, [*values, room], node.attrs, name=node.name, origins=_origins(node))
    return builder.finish(result.outputs)


def _origins(node: Any) -> Sequence[str]:
    return getattr(node, "origins", (node.name,))
