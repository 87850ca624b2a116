"""`CompiledModel`: what `compile_model` makes, to be called or to make requests of."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING, Any, overload

from ovjit import injected
from ovjit.api.arguments import ONLY, takes
from ovjit.api.model.ports import make_ports
from ovjit.api.run import gpu_properties
from ovjit.api.run import properties_table as table
from ovjit.api.run.compiled_record import CompiledRecord
from ovjit.api.run.request import InferRequest
from ovjit.api.run.request_guard import GUARDED
from ovjit.api.run.results import OVDict
from ovjit.errors import Busy, InferenceError, UnsupportedError, no_such_constructor, no_such_form
from ovjit.execution.blocks import release_arenas
from ovjit.graph.ports import PortInfo

if TYPE_CHECKING:
    from ovjit.api.model.model import Model
    from ovjit.api.run.variable_state import VariableState
    from ovjit.execution.executable import Executable


class CompiledModel(CompiledRecord):
    """A model compiled for the CPU or a card. Several threads may share and call it.

    A call runs an inference on a request that the model keeps. If another call or the user runs that one,
    the call takes a further request. The model keeps as many requests as were ever in use at the same time.
    """

    __slots__ = ("__dict__", "__weakref__", "_first", "_free", "_is_shared")
    _first: InferRequest | None
    _free: list[InferRequest]  # those that no thread uses; without the first one while it is shared
    _is_shared: bool  # whether the user may have the first request, too: calls hold its guard then

    def __new__(cls, other: CompiledModel, weights: Any = None) -> CompiledModel:
        """`CompiledModel(compiled)` is that compiled model."""
        if not isinstance(other, CompiledModel):
            raise no_such_constructor(
                f"CompiledModel() takes a CompiledModel, not {type(other).__name__}: see compile_model"
            )
        return other

    @classmethod
    def _make(
        cls, executable: Executable, inputs: tuple[PortInfo, ...], outputs: tuple[PortInfo, ...], *,
        name: str, device: str, config: dict[str, Any], loaded_from_cache: bool = False,
    ) -> CompiledModel:  # fmt: skip
        """`config`: all properties by name, as `properties_table.resolve` returns them."""
        for info in inputs:
            if info.shape is None:
                raise UnsupportedError(
                    f"input {info.label!r} has a dynamic rank, which cannot be compiled: set its rank "
                    "with model.reshape (-1 is a dynamic dimension)"
                )
        self = object.__new__(cls)
        self._executable = executable
        self._input_infos = inputs
        self._output_infos = outputs
        self._input_ports = make_ports("input", inputs)
        self._output_ports = make_ports("output", outputs)
        self._name = name
        self._device = device
        self._config = config
        self._loaded_from_cache = loaded_from_cache
        self._first = None
        self._free = []
        self._is_shared = hasattr(executable.program, "states_of")
        return self

    # -- inference -----------------------------------------------------------------------------------------

    def __call__(
        self, inputs: Any = None, share_inputs: bool = True, share_outputs: bool = False, *,
        decode_strings: bool = True,
    ) -> OVDict:  # fmt: skip
        """Run one inference and return its outputs; arguments as for `InferRequest.infer`, but inputs are
        shared by default."""
        shared = self._is_shared
        request: Any  # for `RequestGuard`, which looks for a guard's owner
        if shared:
            request = self._first
            if request is None or not request._acquire(False):
                request = self._take_request()
        else:  # its guard would take a tenth of a small model's call
            try:
                request = self._free.pop()
            except IndexError:
                request = self._further_request()
        try:
            if inputs is not None:
                request._assign(inputs, share_inputs)
            return request._infer(share_outputs, decode_strings)
        finally:
            if shared:
                request._release()
            if request is not self._first:
                self._free.insert(0, request)
            elif not shared:
                self._free.append(request)  # type: ignore[arg-type]  # last in, first out: the same for a thread

    def _take_request(self) -> InferRequest:
        """A request whose guard this thread has taken: the first one, or a further one during its inference.

        With variables, the guard's owner is looked for at each call: a thread that only looks at the values
        is waited for, since a further request has values of its own. Otherwise before one is made: after an
        exception of a signal's handler, no thread may have the guard."""
        first = self._first
        if first is None:
            return self._further_request(guarded=True)
        if not self._free or first._job.states() is not None:
            with contextlib.suppress(Busy):
                first._claim(sys._getframe(1))
                return first
        try:
            request = self._free.pop()
        except IndexError:
            return self._further_request(guarded=True)
        request._acquire(False)
        return request

    def _further_request(self, guarded: bool = False) -> InferRequest:
        """A new request. This thread has taken its guard if `guarded`."""
        request = self.create_infer_request()
        if guarded:
            request._acquire(False)  # before other threads see it
        if self._first is None:
            self._first = request
        return request

    def _kept_request(self) -> InferRequest:
        """The request that calls use, from now on with its guard."""
        if not self._is_shared:
            try:
                self._free.remove(self._first)  # type: ignore[arg-type]
            except ValueError:  # there is none yet, or a call without the guard runs on it: another follows
                self._first = self.create_infer_request()
            self._is_shared = True
        if self._first is None:
            request = self.create_infer_request()
            self._first = self._first or request  # no call in between: no other thread comes between
        return self._first

    @property
    def _infer_request(self) -> InferRequest | None:
        """The request that calls use, None before the first call. Programs written for OpenVINO read and set
        it."""
        return None if self._first is None else self._kept_request()

    @_infer_request.setter
    def _infer_request(self, request: InferRequest | None) -> None:
        self._first, self._is_shared = request, True

    def create_infer_request(self) -> InferRequest:
        """A new request. It takes memory for tensors when they are first used."""
        return InferRequest._make(self)

    def infer_new_request(self, inputs: Any = None) -> OVDict:
        """Run one inference on a request of its own; inputs are copied."""
        return self.create_infer_request().infer(inputs)

    def query_state(self) -> list[VariableState]:
        """The variables of the request that calls use."""
        return self._kept_request().query_state()

    def reset_state(self) -> None:
        """Reset the variables of the request that calls use."""
        self._kept_request().reset_state()

    @takes
    def release_memory(self) -> None:
        """Give back the memory of the requests that calls use, unless they run, and callers' working memory.

        The next call takes new. Variables keep their values.
        """
        release_arenas()
        self._free.clear()
        first = self._first
        if first is not None and first._job.states() is None and not first._guard.locked():
            self._first = None

    # -- properties, export --------------------------------------------------------------------------------

    def get_property(self, property: str) -> Any:
        """A property's value. RuntimeError for an unknown name."""
        kind = gpu_properties if self._device == "GPU" else table
        return kind.compiled_property(self, property)

    def set_property(self, *args: Any, **named: Any) -> None:
        """Always a RuntimeError: properties are fixed by compiling, as in OpenVINO's CPU device."""
        args = (*args, *(named[key] for key in ("properties", "property") if key in named))
        value: Any = args[0] if len(args) == 1 else None
        pair = isinstance(value, tuple) and len(value) == 2
        names = value[:1] if pair else value if isinstance(value, dict) else [None]
        if not all(isinstance(name, str) for name in names):
            raise no_such_form("set_property takes a dict of properties, or a pair of name and value")
        raise InferenceError(
            "Not Implemented: It's not possible to set property of an already compiled model. Set "
            "property to Core::compile_model during compilation"
        )

    def get_runtime_model(self) -> Model:
        """The model as it is executed, after all rewriting, with OpenVINO's notes on every node."""
        from ovjit.api.run.runtime_model import runtime_model

        return runtime_model(self, self._kept_request()._job.profile())

    @overload
    def export_model(self) -> io.BytesIO: ...
    @overload
    def export_model(self, model_stream: io.BytesIO) -> None: ...
    def export_model(self, model_stream: Any = ONLY) -> io.BytesIO | None:
        """The compiled model as a blob for `import_model`: a BytesIO at position 0, or written to the BytesIO
        that is given, which is then rewound."""
        if model_stream is not ONLY and not isinstance(model_stream, io.BytesIO):
            raise TypeError(
                "CompiledModel.export_model(model_stream) incompatible function argument: `model_stream` "
                f"must be an io.BytesIO object but {model_stream!r:.80}` provided"
            )
        from ovjit.storage.blob import save_blob
        from ovjit.storage.container import write_in_pieces
        from ovjit.storage.encryption import encrypt

        blob = save_blob(self._executable, self._input_infos, self._output_infos, self._config)
        blob = encrypt(blob, self._config)
        if model_stream is ONLY:
            return io.BytesIO(blob)
        write_in_pieces(model_stream, blob)
        model_stream.seek(0)
        return None

    export = export_model  # its older name

    def __reduce__(self) -> Any:
        over = getattr(self._device, "priorities", "CPU")
        name = over if self._device in ("CPU", "GPU") else f"{self._device}:{over}"
        return injected.compiled_of(), (self.export_model().getvalue(), name)

    def __repr__(self) -> str:
        return f"<CompiledModel:\n{self._ports_text()}>"


GUARDED.update((id(CompiledModel.__call__.__code__), id(CompiledModel._further_request.__code__)))
