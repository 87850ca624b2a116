"""The tensors of a request: getters, and setters that replace the request's own tensors by the caller's."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.arguments import ONLY, expect
from ovjit.api.model.node import _Port
from ovjit.api.model.ports import port_index
from ovjit.api.run.remote import RemoteTensor
from ovjit.api.run.request_guard import RequestGuard, exclusive
from ovjit.api.run.slots import InputSlot, OutputSlot, as_port
from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import InferenceError, no_such_form

if TYPE_CHECKING:
    from ovjit.api.run.compiled_record import CompiledRecord


class RequestTensors(RequestGuard):
    """Tensors by name, port or index. Each method raises RuntimeError while an inference goes on."""

    __slots__ = (
        "_bound", "_compiled", "_inputs", "_outputs", "_ready", "_remotes", "_same", "_tables",
        "_user_outputs",
    )  # fmt: skip
    _compiled: CompiledRecord
    _inputs: list[InputSlot]
    _tables: dict[type, dict[Any, InputSlot]]  # key of an input -> its slot, by the type of the key
    _outputs: list[OutputSlot]
    _bound: list[InputSlot]  # inputs whose tensor is the user's, or known to him
    _user_outputs: list[OutputSlot]  # outputs whose tensor is the user's
    _ready: bool  # every input has an array
    _same: bool  # outputs are NumPy arrays as the job writes them
    #: Number of an input or, after those, of an output -> the RemoteTensor that was set for it.
    _remotes: dict[int, RemoteTensor]

    def _note_slots(self) -> None:
        self._ready = all(slot.current is not None for slot in self._inputs)
        self._bound = [slot for slot in self._inputs if slot.target is not None and slot.own_shape is None]

    def _remote(self, slot: InputSlot | OutputSlot) -> Any:
        """The RemoteTensor that is set for an input or output; None without one."""
        memory = getattr(self._job, "remote", {})
        number = slot.index + (len(self._inputs) if isinstance(slot, OutputSlot) else 0)
        tensor = self._remotes.get(number) if number in memory else None
        return tensor if tensor is not None and tensor._memory is memory[number] else None

    @exclusive
    def _input_tensor(self, slot: InputSlot) -> Tensor:
        remote = self._remote(slot)
        if remote is not None:
            return remote
        tensor = slot.tensor(self._job)
        self._note_slots()
        return tensor

    def _output_tensor(self, slot: OutputSlot) -> Tensor:
        remote = self._remote(slot)
        if remote is not None:
            return remote
        if slot not in self._shown:
            self._shown.append(slot)
        return slot.tensor(self._job)

    def _bind_remote(self, slot: InputSlot, tensor: RemoteTensor) -> None:
        slot.bind_remote(self._job, tensor)
        self._remotes[slot.index] = tensor
        self._note_slots()

    @exclusive
    def _bind_input(self, slot: InputSlot, tensor: Tensor | RemoteTensor) -> None:
        if isinstance(tensor, RemoteTensor):
            self._bind_remote(slot, tensor)
            return
        bound = as_port(_check_tensor(tensor), slot.info)
        slot.check_tensor(bound)
        slot.bind(self._job, bound)
        self._note_slots()

    def _bind_batch(self, slot: InputSlot, tensors: Any) -> None:
        if isinstance(tensors, (list, tuple)) and len(tensors) == 1:
            self._bind_input(slot, tensors[0])
            return
        batch = _join_batch(tensors)
        slot.check_tensor(batch)
        self._bind_parts(slot, batch, list(tensors))

    @exclusive
    def _bind_parts(self, slot: InputSlot, batch: Tensor, parts: list[Tensor]) -> None:
        slot.bind_batch(self._job, batch, parts)
        self._note_slots()

    @exclusive
    def _bind_output(self, slot: OutputSlot, tensor: Tensor) -> None:
        tensor = _check_tensor(tensor)
        for slots in (self._shown, self._user_outputs):  # first: an exception may leave one too many
            if slot not in slots:
                slots.append(slot)
        if isinstance(tensor, RemoteTensor):
            slot.bind_remote(self._job, tensor)
            self._remotes[len(self._inputs) + slot.index] = tensor
            self._same = False
        else:
            slot.bind(self._job, tensor)

    def _slot(self, port: Any) -> Any:
        """The input or output that a name or a port means."""
        if isinstance(port, str):
            slots: list[Any] = [*self._inputs, *self._outputs]
            for slot in slots:
                if port in slot.info.names:
                    return slot
            raise InferenceError(
                f"Port for tensor name {port} was not found. Check the name: the model has "
                f"{self._all_names()}"
            )
        if not isinstance(port, _Port):
            raise no_such_form(f"a tensor is selected by name (str) or port, not by {type(port).__name__}")
        i = port_index(self._compiled._output_ports, port)
        if i is not None and port in self._compiled._output_ports:
            return self._outputs[i]
        j = port_index(self._compiled._input_ports, port)
        if j is not None:
            return self._inputs[j]
        if i is not None:
            return self._outputs[i]
        raise InferenceError(f"{port!r} is not a port of this model; the model has {self._all_names()}")

    def _all_names(self) -> str:
        infos = (*self._compiled._input_infos, *self._compiled._output_infos)
        return ", ".join(repr(info.label) for info in infos)

    def get_tensor(self, name_or_port: Any = None, **named: Any) -> Tensor:
        """The tensor of an input or output, by `name` or `port`."""
        self._check_idle()
        slot = self._slot(_choose_key("get_tensor", name_or_port, named))
        return self._input_tensor(slot) if isinstance(slot, InputSlot) else self._output_tensor(slot)

    def set_tensor(self, name_or_port: Any = None, tensor: Any = None, **named: Any) -> None:
        """Use the caller's tensor for an input or output, by `name` or `port`."""
        port = _choose_key("set_tensor", name_or_port, named)
        tensor = _check_tensor(tensor)  # before the port: a wrong form is a TypeError, whatever it names
        slot = self._slot(port)
        if isinstance(slot, InputSlot):
            self._bind_input(slot, tensor)
        else:
            self._bind_output(slot, tensor)

    def set_tensors(self, inputs: Any = None, tensors: Any = None, **named: Any) -> None:
        """Set several tensors: a dict by name, port or index of an input; or the name or port of one input
        and the Tensors of its batch, which are read at every inference."""
        if tensors is not None:
            named = {"name" if key == "tensor_name" else key: value for key, value in named.items()}
            slot = self._slot(_choose_key("set_tensors", inputs, named))
            if not isinstance(slot, InputSlot):
                raise InferenceError(
                    "set_tensors and set_input_tensors set a batch for an input; an output is given"
                )
            self._bind_batch(slot, tensors)
            return
        for key, tensor in _check_dict(inputs).items():
            if isinstance(key, int):
                _check_key(key, "input")
                self._bind_input(_at(self._inputs, key, "Input"), tensor)
            elif isinstance(key, (str, _Port)):
                self.set_tensor(key, tensor)
            else:
                raise InferenceError(
                    f"a tensor is selected by index, name or port, not by {type(key).__name__}"
                )

    def get_input_tensor(self, index: int = ONLY) -> Tensor:
        """The tensor of input `index`; without one, of the only input."""
        return self._input_tensor(_at_or_only(self._inputs, index, "Input", "get"))

    def get_output_tensor(self, index: int = ONLY) -> Tensor:
        """The tensor of output `index`; without one, of the only output."""
        self._check_idle()
        return self._output_tensor(_at_or_only(self._outputs, index, "Output", "get"))

    def set_input_tensor(self, *args: Any, **named: Any) -> None:
        """`set_input_tensor(tensor)` for the only input, or `set_input_tensor(index, tensor)`."""
        index, tensor = _index_and_tensor("set_input_tensor", args, named)
        tensor = _check_tensor(tensor)
        self._bind_input(_at_or_only(self._inputs, index, "Input", "set"), tensor)

    def set_output_tensor(self, *args: Any, **named: Any) -> None:
        """`set_output_tensor(tensor)` for the only output, or `set_output_tensor(index, tensor)`."""
        index, tensor = _index_and_tensor("set_output_tensor", args, named)
        tensor = _check_tensor(tensor)
        self._bind_output(_at_or_only(self._outputs, index, "Output", "set"), tensor)

    def set_input_tensors(self, *args: Any, **named: Any) -> None:
        """Set several input tensors: a dict by index; or the Tensors of a batch, which are read at every
        inference, for the input `idx` or the only one."""
        args = (*args, *(named[key] for key in ("inputs", "idx", "tensors") if key in named))
        if len(args) == 2:
            self._bind_batch(_at(self._inputs, args[0], "Input"), args[1])
            return
        if len(args) == 1 and isinstance(args[0], dict):
            for index, tensor in _by_index(args[0], "input"):
                self._bind_input(_at(self._inputs, index, "Input"), tensor)
            return
        if len(args) != 1 or not isinstance(args[0], list):
            raise no_such_form("set_input_tensors takes a dict from index to Tensor, or a list of Tensors")
        if len(self._inputs) != 1:
            raise InferenceError(
                "set_input_tensors(tensors) must be used for single-input models only. Model has "
                f"{len(self._inputs)} inputs: pass a dict from index to Tensor"
            )
        if not args[0]:
            raise InferenceError("set_input_tensors: the list of Tensors is empty")
        self._bind_batch(self._inputs[0], args[0])

    def set_output_tensors(self, outputs: dict[int, Tensor]) -> None:
        """Set several output tensors, by index."""
        for index, tensor in _by_index(_check_dict(outputs), "output"):
            self._bind_output(_at(self._outputs, index, "Output"), tensor)

    @property
    def input_tensors(self) -> list[Tensor]:
        return [self._input_tensor(slot) for slot in self._inputs]

    @property
    def output_tensors(self) -> list[Tensor]:
        self._check_idle()
        return [self._output_tensor(slot) for slot in self._outputs]


def _check_tensor(tensor: Any) -> Any:
    if not isinstance(tensor, (Tensor, RemoteTensor)):
        raise no_such_form(f"a Tensor is expected, not {type(tensor).__name__}: pass Tensor(array)")
    return tensor


def _choose_key(function: str, key: Any, named: dict[str, Any]) -> Any:
    """Returns the key of a tensor, given by position or as `name=` or `port=`; an error otherwise."""
    values = [key] if key is not None else []
    values += [named[key] for key in ("name", "port") if key in named]
    if len(values) != 1 or set(named) - {"name", "port"}:
        raise no_such_form(f"{function} takes the name or the port of a tensor")
    return values[0]


def _join_batch(tensors: Any) -> Tensor:
    """The Tensors of a batch as one; a single one is itself."""
    if not isinstance(tensors, (list, tuple)) or not tensors:
        raise no_such_form("a list of Tensors is expected")
    parts = [_check_tensor(tensor) for tensor in tensors]
    if any(isinstance(part, RemoteTensor) for part in parts):
        raise InferenceError("a tensor of a batch cannot be a RemoteTensor: set one of the whole batch")
    kinds = {(part.element_type._name, tuple(part.shape)) for part in parts}
    if len(kinds) != 1 or not parts[0].shape or parts[0].shape[0] != 1:
        raise InferenceError(
            "the tensors of a batch need the same element type and shape, with 1 in the batch dimension"
        )
    array = np.concatenate([part.data for part in parts])
    return Tensor(array, [len(parts), *list(parts[0].shape)[1:]], parts[0].element_type)


def _check_dict(tensors: Any) -> dict[Any, Any]:
    return expect(tensors, dict, "a dict of Tensors is expected")


def _check_key(index: int, what: str) -> None:
    """InferenceError for a negative index among the keys of a dict."""
    if index < 0:
        raise InferenceError(f"{what} indices start at 0; {index} is given")


def _by_index(tensors: dict[Any, Any], what: str) -> Iterator[tuple[int, Any]]:
    """The items of a dict from index to Tensor. TypeError for other keys, InferenceError for other values and
    for negative indices, which OpenVINO finds when it reads the dict."""
    for index, tensor in tensors.items():
        if not isinstance(index, int):
            raise no_such_form(f"{what} tensors are selected by index, not by {type(index).__name__}")
        _check_key(index, what)
        if not isinstance(tensor, (Tensor, RemoteTensor)):
            raise InferenceError(f"Unable to cast {type(tensor)} to a Tensor: pass Tensor(array)")
        yield index, tensor


def _at(slots: Any, index: Any, what: str) -> Any:
    try:
        i = operator.index(index)
    except TypeError:
        raise no_such_form(f"a tensor is selected by an int, not {type(index).__name__}") from None
    if i < 0:
        raise no_such_form(f"{what.lower()} indices start at 0; {i} is given")
    if i >= len(slots):
        raise InferenceError(
            f"{what} port for index {i} was not found! The model has only {len(slots)} {what.lower()}s."
        )
    return slots[i]


def _at_or_only(slots: Any, index: Any, what: str, verb: str) -> Any:
    if index is not ONLY:
        return _at(slots, index, what)
    if len(slots) != 1:
        name = what.lower()
        raise InferenceError(
            f"{verb}_{name}_tensor() must be called on a function with exactly one parameter. The model "
            f"has {len(slots)} {name}s: pass an index"
        )
    return slots[0]


def _index_and_tensor(function: str, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[int, Any]:
    names = ("tensor",) if len(args) == 1 and "tensor" not in named else ("index", "tensor")
    values = dict(zip(names, args, strict=False)) | named
    if len(args) > 2 or set(values) not in ({"tensor"}, {"index", "tensor"}):
        raise no_such_form(f"{function} takes a Tensor, or an index and a Tensor")
    return values.get("index", ONLY), values["tensor"]
