"""Python numbers that a module computes from sizes, recorded so that they hold for other sizes.

A trace holds sizes as tensors until Python asks for a number: `int(h / 2)`, `round(h / 2)` and
`math.sqrt(h * w)` are the example's from there on, and so is the branch of `if h == w`. Here these functions
give tensors in the modules that call them. Two sizes are taken for different ones, and a size for more than
1: what a module does then mostly holds for others, too. Whether it does for the example is found by running:
`agrees`. Modules without weights that compare two sizes otherwise are taken as scripts, which hold both
branches. Where one cannot be scripted, or has weights, the numbers that a branch assigns are chosen when the
model runs. Else the example's order stays, and PyTorch's warning of it.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import itertools
import math
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ovjit.readers.torch.recording import conditionals
from ovjit.readers.torch.recording.assertions import is_claim
from ovjit.readers.torch.recording.conditionals import Choices, EveryChoice
from ovjit.readers.torch.recording.loop_code import changed
from ovjit.readers.torch.recording.patches import patched, untraced
from ovjit.readers.torch.recording.recorded_loops import Found
from ovjit.readers.torch.recording.trace import attempt, quietly

#: What PyTorch warns of where a number or a branch is the example's.
_ASKED = re.compile(
    r"to a Python (integer|float|number|boolean)|used as a Python number .*\bmath\.(gcd|isqrt|lcm)\(",
    re.DOTALL,
)
#: Operators by which numbers are computed from sizes, and what is no operator there.
_LEAVES = ("aten::size", "aten::sym_size", "aten::numel")
_STATIC = ("prim::Constant", "prim::GetAttr")
#: How two sizes compare that are different, and one that is larger with 0 and 1.
_GENERAL = {
    "aten::eq": False, "aten::ne": True, "aten::gt": True, "aten::ge": True, "aten::lt": False,
    "aten::le": False,
}  # fmt: skip
#: How often one call may ask the same before answers are the example's: a loop may end by that.
MOST_ANSWERS = 64
#: How often a module is recorded again, each time with more of its files or with one more branch as it ran.
MOST_ROUNDS = 12


def files_asking(warned: Sequence[Any]) -> set[str]:
    """The files in which Python asked a trace for a number."""
    return {w.filename for w in warned if _ASKED.search(str(w.message))}


class Followed:
    """What is known of a module after some traces: files that ask for numbers, and branches as they ran."""

    def __init__(self, files: set[str], branching: Found, conditions: Found | None = None):
        self.files = set(files)
        #: Functions whose conditions on sizes are recorded with both bodies of their branches, if any are.
        self.conditions = conditions
        #: Files whose code asked for a number in the last trace.
        self.seen: set[str] = set()
        self.as_run: set[tuple[Any, int]] = set()
        #: Where the last two sizes were compared that were taken for different ones.
        self.last: tuple[Any, int] | None = None
        #: The last call that compared sizes at each place, and how often it has.
        self._answers: dict[tuple[Any, int], tuple[Any, int]] = {}
        #: Whether the last trace took a condition to hold as for the example, where it may not for others.
        self.is_unsure = False
        #: Values that code found to be more than 0, as it was answered.
        self.positive: set[int] = set()
        #: Modules with a branch that is the example's.
        self.ordering: dict[int, Any] = {}
        self._scripted: dict[int, Any] = {}
        #: Functions whose branches are the example's, and those whose numbers are chosen: first those of the
        #: plain trace, as long as nothing failed.
        self.branching = Found()
        self._chosen: dict[Any, set[int]] = branching.lines
        #: Where conditions on sizes are noted, for a trace that has both sides of each.
        self._every = branching.every if isinstance(branching, Conditions) else None
        self._is_first = bool(self._chosen) and conditions is None
        if conditions is not None:
            self._chosen = {function: set(lines) for function, lines in conditions.lines.items()}

    def more_conditions(self) -> bool:
        """Whether the last trace has asked conditions that were not known. They are recorded in the next."""
        assert self.conditions is not None
        before, self.files = (self._chosen, self.files), self.files | self.seen
        self._chosen = {function: set(lines) for function, lines in self.conditions.lines.items()}
        return before != (self._chosen, self.files)

    def again(self, failed: bool) -> bool:
        """Whether another trace may do better than the last one, which may have failed."""
        new = self.seen - self.files
        self.files |= new
        is_first, self._is_first = self._is_first, False
        if failed and is_first:
            self._chosen = {}
            return True
        if failed and (self._scripted or self._chosen):
            return False
        if failed and self.last is not None:
            self.as_run.add(self.last)
            return True
        return not failed and (bool(new) or self._script() or self._choose())

    def _choose(self) -> bool:
        """Choose numbers by orders of sizes when the model runs. False where there are no new ones."""
        if self._chosen:
            return False
        self._chosen, self.branching = self.branching.lines, Found()
        return bool(self._chosen)

    def _script(self) -> bool:
        """Take scripts of modules that order sizes, as they have all branches. False where there are no new
        ones. Layers with weights stay as they run: their branches are for sizes smaller than a window."""
        import torch

        found = {}
        for key, module in self.ordering.items():
            if key not in self._scripted and not list(module.parameters()):
                with attempt("scripting a module that orders sizes"), quietly():
                    found[key] = module, torch.jit.script(module)
        self._scripted |= found
        return bool(found)

    @contextlib.contextmanager
    def sizes(self, whole: Any) -> Iterator[None]:
        """Record what runs of the module `whole` here for any sizes."""
        self.last, self.seen, self.ordering, self.positive = None, set(), {}, set()
        self._answers, self.is_unsure = {}, False
        with contextlib.ExitStack() as stack:
            if self._scripted:
                stack.enter_context(_as_scripts(whole, self._scripted))
            stack.enter_context(shadowed(self.files))
            kind = Choices if self.conditions is None else EveryChoice
            names = conditionals.names(is_of_sizes, kind.every)
            stack.enter_context(changed(self._chosen, kind, names))
            stack.enter_context(_mode(self)())
            yield
        self._answers = {}

    def answer(self, value: Any) -> bool | None:
        """How sizes that differ from each other and from 0 and 1 compare, None where a tensor is no such
        comparison."""
        if not is_of_sizes(value):
            return None
        node = torch_value(value).node()
        if self.conditions is not None:
            frame = sys._getframe(2)
            if is_claim(frame):
                return None
            if not _is_of_iterations(torch_value(value)):
                self.conditions.add(frame)
                return None
        if node.kind() not in _GENERAL:
            self._note(sys._getframe(2))
            return None
        if not _is_order(node) and _is_of_iterations(torch_value(value)):
            return None  # the number of an iteration becomes equal to any other one
        if _is_same(node.inputsAt(0), node.inputsAt(1)):
            return node.kind() in ("aten::eq", "aten::ge", "aten::le")
        frame = sys._getframe(2)  # of the code that compares
        if is_claim(frame):
            with untraced():
                return bool(value)
        self._note(frame)
        place = frame.f_code, frame.f_lasti
        ordered = _is_order(node)
        if ordered or place in self.as_run:
            if (module := _module_of(frame)) is not None:
                self.ordering[id(module)] = module
            if ordered:
                self.branching.add(frame)
            return None
        self.last = place
        if self._is_endless(frame):
            return None
        self.is_unsure = self.is_unsure or self._is_unsure(value, _GENERAL[node.kind()])
        if node.kind() in ("aten::gt", "aten::ne") and node.inputsAt(1).toIValue() == 0:
            self.positive.add(node.inputsAt(0).unique())
        return _GENERAL[node.kind()]

    def _note(self, frame: Any) -> None:
        """Note a condition on sizes, for a trace that has both sides."""
        if self._every is not None and not is_claim(frame):
            self._every.add(frame)

    def _is_endless(self, frame: Any) -> bool:
        """Whether one call has compared sizes at the same place very often."""
        place = frame.f_code, frame.f_lasti
        caller, count = self._answers.get(place, (None, 0))
        self._answers[place] = frame, count + 1 if caller is frame else 1
        return self._answers[place][1] > MOST_ANSWERS

    def _is_unsure(self, value: Any, answer: bool) -> bool:
        """Whether a comparison of a remainder, or with a constant, is answered as for the example, which so
        does not show whether the answer holds for others."""
        node = torch_value(value).node()
        kinds = {each.node().kind() for each in _sources(torch_value(value))}
        if "aten::remainder" not in kinds and node.inputsAt(1).toIValue() in (None, 0, 1):
            return False
        with untraced():
            return bool(value.item()) == answer

    def counted(self, end: Any, size: Callable[[], Any]) -> Any:
        """The end of a slice. Behind `if n > 0`, -n is the length less n, which holds for 0, too: then the
        slice is whole, as what it is made of is without the branch."""
        if is_of_sizes(end):
            node = torch_value(end).node()
            if node.kind() == "aten::neg" and node.inputsAt(0).unique() in self.positive:
                return size() + end
        return end


@contextlib.contextmanager
def _as_scripts(whole: Any, scripted: Mapping[int, tuple[Any, Any]]) -> Iterator[None]:
    """Modules run as their scripts, which become parts of the module `whole`, as tracing asks for."""
    names = {f"script{i}": script for i, (_, script) in enumerate(scripted.values())}
    kinds = {type(module) for module, _ in scripted.values()}
    whole._modules.update(names)
    try:
        with patched(*((kind, "forward", _forward(kind.forward, scripted)) for kind in kinds)):
            yield
    finally:
        for name in names:
            del whole._modules[name]


def _forward(own: Callable[..., Any], scripted: Mapping[int, tuple[Any, Any]]) -> Callable[..., Any]:
    def forward(self: Any, *given: Any, **named: Any) -> Any:
        if id(self) in scripted:
            return scripted[id(self)][1](*given, **named)
        return own(self, *given, **named)

    return forward


class Conditions(Found):
    """Functions in which layers with weights order two sizes; `every`: those with any condition on sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.every = Found()


@contextlib.contextmanager
def ordering(found: Conditions | None) -> Iterator[None]:
    """Note where layers with weights order two sizes: their numbers are chosen when the model runs. Other
    conditions on sizes are noted, too."""
    import torch

    def truth(self: Any) -> bool:
        if found is not None and is_of_sizes(self):
            node, frame = torch_value(self).node(), sys._getframe(1)
            if not is_claim(frame):
                found.every.add(frame)
            if _is_order(node) and (module := _module_of(frame)) is not None and list(module.parameters()):
                found.add(frame)
        return bool(torch._C.TensorBase.__bool__(self))

    with patched(*([] if found is None else [(torch.Tensor, "__bool__", truth)])):
        yield


def _is_order(node: Any) -> bool:
    """Whether a node orders sizes: not the comparisons that are the same for all sizes but some."""
    return (
        node.kind() in _GENERAL
        and node.kind() not in ("aten::eq", "aten::ne")
        and node.inputsAt(1).toIValue() not in (0, 1)
    )


def _warn_of_number(called: str) -> None:
    """Warn of the line that has asked for a number by a function of this module, whose caller this is."""
    import torch

    frame: Any = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("numpy.", "torch.")):
        frame = frame.f_back
    said = f"Converting a tensor to a Python number by {called}() might cause the trace to be incorrect."
    warnings.warn_explicit(said, torch.jit.TracerWarning, frame.f_code.co_filename, frame.f_lineno)


@contextlib.contextmanager
def rounding() -> Iterator[None]:
    """`round(h)`, `len(x)`, `torch.tensor([h, w])` and `np.sqrt(h)` make numbers as `int(h)` does.

    They are warned of where PyTorch does not, or does not name the line. `torch.numel(x)` is a size as
    `x.numel()` is one.
    """
    import torch

    def rounded(self: Any, digits: int | None = None) -> Any:
        _warn_of_number("round")
        return round(self.item(), digits)

    def array(self: Any, *given: Any, **named: Any) -> Any:
        if is_of_sizes(self):
            _warn_of_number("numpy")
        return as_array(self, *given, **named)

    def cut(self: Any) -> Any:
        _warn_of_number("trunc")
        return math.trunc(self.item())

    def parted(theirs: Callable[..., Any], number: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            made = theirs(*given, **named)
            if isinstance(made, Parts):
                return made
            count = number(*given, **named) if torch._C._get_tracing_state() is not None else None
            return made if count is None else Parts(made, count, functools.partial(_warn_of_number, "len"))

        return called

    def text(self: Any, **named: Any) -> str:
        if not is_of_sizes(self):
            return str(as_text(self, **named))
        _warn_of_number("str")
        with untraced():
            return str(self.item())

    def counted(self: Any) -> int:
        if torch._C._get_tracing_state() is not None and self.dim():
            _warn_of_number("len")
        return length(self)

    def warning(name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(theirs)
        def called(*args: Any, **kwargs: Any) -> Any:
            data = _data(theirs, args, kwargs)
            if isinstance(data, (list, tuple)) and any(map(is_of_sizes, _numbers(data))):
                _warn_of_number(name)
            return theirs(*args, **kwargs)

        return called

    tensor = torch.Tensor
    as_array, length, as_text = tensor.__array__, tensor.__len__, tensor.__repr__
    rows: list[tuple[Any, str, Any]] = [
        (torch, "numel", tensor.numel),
        (tensor, "__array__", array),
        (tensor, "__len__", counted),
        (tensor, "__repr__", text),
        *((owner, "chunk", parted(owner.chunk, _chunks)) for owner in (torch, tensor)),
        *((owner, "split", parted(owner.split, _splits)) for owner in (torch, tensor)),
    ]
    for name, function in (("__round__", rounded), ("__trunc__", cut)):
        if not hasattr(tensor, name):
            rows.append((tensor, name, function))
    for maker in _makers():
        owner = torch.Tensor if hasattr(torch.Tensor, maker.__name__) else torch
        rows.append((owner, maker.__name__, warning(maker.__name__, maker)))
    _register_parts()
    with patched(*rows):
        yield


class Parts(tuple):
    """Parts of a tensor along an open dimension. `number` is how many there may be for others."""

    number: Callable[[], Any]
    _warn: Callable[[], None]

    def __new__(cls, parts: Sequence[Any], number: Callable[[], Any], warn: Callable[[], None]) -> Parts:
        made = super().__new__(cls, parts)
        made.number, made._warn = number, warn
        return made

    def __len__(self) -> int:
        self._warn()
        return super().__len__()


@functools.cache
def _register_parts() -> None:
    """PyTorch takes parts for a tuple where it looks into what a module gives."""
    from torch.utils import _pytree as tree

    tree.register_pytree_node(Parts, lambda parts: (list(parts), None), lambda parts, _: tuple(parts))


def _chunks(input: Any, chunks: Any, dim: int = 0) -> Callable[[], Any] | None:
    """How many parts `chunk` gives of an open dimension: parts of equal lengths, but for the last one."""

    def number() -> Any:
        total = input.size(dim)
        return -(-total // -(-total // chunks))

    return number if is_of_sizes(input.size(dim)) else None


def _splits(input: Any, split_size_or_sections: Any = None, dim: int = 0, **named: Any) -> Any:
    """How many parts of a length `split` gives of an open dimension; None of given lengths."""
    length = named.get("split_size", split_size_or_sections)
    if isinstance(length, (list, tuple)) or length is None or not is_of_sizes(input.size(dim)):
        return None
    return lambda: -(-input.size(dim) // length)


def _module_of(frame: Any) -> Any:
    """The innermost module whose method runs, None for none."""
    import torch

    while frame is not None:
        if isinstance(frame.f_locals.get("self"), torch.nn.Module):
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def torch_value(tensor: Any) -> Any:
    import torch

    return torch._C._get_value_trace(tensor)


def is_of_sizes(tensor: Any) -> bool:
    """Whether a tensor of one number is computed from sizes of tensors alone, one of them no constant. The
    number of an iteration is one of these: how many there are is a size."""
    import torch

    if not isinstance(tensor, torch.Tensor) or torch._C._get_tracing_state() is None or tensor.dim():
        return False
    found = False
    for value in _sources(torch_value(tensor)):
        node = value.node()
        if node.kind() in _LEAVES:
            found = found or node.inputsAt(0).node().kind() not in _STATIC
        elif node.kind() == "prim::Param":
            if not _counts_iterations(value):
                return False
            found = True
    return found


def _sources(value: Any) -> Iterator[Any]:
    """A number of a trace and all that it is computed from, each once, back to sizes of tensors."""
    seen, queue = set(), [value]
    while queue:
        value = queue.pop()
        if value.debugName() not in seen:
            seen.add(value.debugName())
            yield value
            node = value.node()
            if node.kind() not in ("prim::Param", "prim::Constant", *_LEAVES):
                queue += node.inputs()
            if node.kind() == "prim::If":
                queue += (list(block.outputs())[value.offset()] for block in node.blocks())


def _is_same(a: Any, b: Any) -> bool:
    """Whether two numbers of a trace are computed alike from the same sizes."""
    pairs, seen = [(a, b)], set()
    while pairs:
        a, b = pairs.pop()
        key = a.debugName(), b.debugName()
        if key[0] == key[1] or key in seen:
            continue
        seen.add(key)
        one, other = a.node(), b.node()
        if one.kind() != other.kind() or a.offset() != b.offset() or one.kind() == "prim::Param":
            return False
        if one.kind() == "prim::Constant" and a.toIValue() != b.toIValue():
            return False
        sources = list(one.inputs()), list(other.inputs())
        if len(sources[0]) != len(sources[1]) or (not sources[0] and one.kind() != "prim::Constant"):
            return False
        pairs += zip(*sources, strict=True)
    return True


def _counts_iterations(value: Any) -> bool:
    """Whether this is the number of an iteration, in a loop that is recorded."""
    loop = value.node().owningBlock().owningNode()
    return loop is not None and loop.kind() == "prim::Loop" and value.offset() == 0


def _is_of_iterations(value: Any) -> bool:
    """Whether a number is computed from that of an iteration."""
    sources = (each for each in _sources(value) if each.node().kind() == "prim::Param")
    return any(map(_counts_iterations, sources))


def _mode(followed: Followed) -> type:
    import torch
    from torch.overrides import TorchFunctionMode

    tensor = torch.Tensor
    names = ("truediv", "rtruediv", "mul", "rmul", "add", "radd", "sub", "rsub")
    in_double = {getattr(tensor, f"__{name}__") for name in names}
    in_double |= {torch.div, torch.true_divide, torch.mul, tensor.div, tensor.mul}
    asking = (tensor.__bool__, tensor.__int__, tensor.__float__)
    divides = (tensor.__truediv__, tensor.__rtruediv__, torch.div, torch.true_divide, tensor.div)
    makers = _makers()

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function is tensor.__bool__ and (told := followed.answer(args[0])) is not None:
                return told
            if function in asking:
                followed.seen.add(sys._getframe(1).f_code.co_filename)
            if (maker := getattr(function, "__wrapped__", function)) in makers:
                return _tensor(maker, args, kwargs)
            if function is tensor.__getitem__ and followed.positive:
                args = args[0], _counted(followed, *args)
            if function in in_double and not kwargs and any(isinstance(a, (float, tensor)) for a in args):
                args = _as_pythons(_doubled(args, function in divides))
            return function(*args, **kwargs)

    return Mode


def _counted(followed: Followed, x: Any, index: Any) -> Any:
    """An index with the ends of its slices as they are counted from the front."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for i, part in enumerate(parts):
        if part is Ellipsis or part is None or hasattr(part, "dtype") and part.dim():
            break  # what follows is about other dimensions
        if isinstance(part, slice):
            end = followed.counted(part.stop, functools.partial(x.size, i))
            parts[i] = slice(part.start, end, part.step)
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def _doubled(args: Sequence[Any], divides: bool) -> Sequence[Any]:
    """Python computes with 64 bits: so do sizes where they become reals."""
    if not (divides or any(isinstance(a, float) for a in args)):
        return args
    if not all(isinstance(a, (int, float)) or is_of_sizes(a) for a in args):
        return args
    return [a.double() if hasattr(a, "double") and not a.is_floating_point() else a for a in args]


def _as_pythons(args: Sequence[Any]) -> Sequence[Any]:
    """Reals of sizes beside a tensor of integers: Python's have the default type there."""
    import torch

    if not any(isinstance(a, torch.Tensor) and a.dim() and not a.is_floating_point() for a in args):
        return args
    kind = torch.get_default_dtype()
    return [a.to(kind) if is_of_sizes(a) and a.is_floating_point() else a for a in args]


@functools.cache
def _makers() -> frozenset[Callable[..., Any]]:
    """PyTorch's functions that make a tensor of numbers, as they are without patches."""
    import torch

    return frozenset((torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor))


def _data(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What one of `_makers` makes a tensor of."""
    place = 1 if function.__name__ == "new_tensor" else 0
    return args[place] if len(args) > place else kwargs.get("data", kwargs.get("obj"))


def _tensor(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`torch.tensor([h, w])` has sizes as they will be. Other tensors are copies of the trace's constants,
    which are written to otherwise."""
    import torch

    data, name = _data(function, args, kwargs), function.__name__
    if isinstance(data, _Sizes):
        data = data.tolist()
    if not any(map(is_of_sizes, _numbers(data))):
        made = function(*args, **kwargs)
        return made if name in ("as_tensor", "asarray") else made.clone()
    kind = kwargs.get("dtype") or (args[1] if name == "as_tensor" and len(args) > 1 else None)
    if kind is None and name == "new_tensor":
        kind = args[0].dtype
    if kind is None:
        reals = any(
            v.is_floating_point() if hasattr(v, "dim") else isinstance(v, float) for v in _numbers(data)
        )
        kind = torch.get_default_dtype() if reals else torch.int64
    return _stacked(data, kind)


def _numbers(data: Any) -> Iterator[Any]:
    if isinstance(data, (list, tuple)):
        for part in data:
            yield from _numbers(part)
    else:
        yield data


def _stacked(data: Any, kind: Any) -> Any:
    import torch

    if isinstance(data, (list, tuple)):
        return torch.stack([_stacked(part, kind) for part in data])
    return data.to(kind) if isinstance(data, torch.Tensor) else torch.tensor(data, dtype=kind)


# -- Python's functions ------------------------------------------------------------------------------------


class _IntType(type):
    def __call__(cls, *given: Any, **named: Any) -> Any:
        if len(given) == 1 and is_of_sizes(given[0]):
            return _whole(given[0], "trunc")
        if given and _is_symbol(given[0]):
            return sys.modules["torch"].sym_int(given[0])
        return builtins.int(*given, **named)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.int) or (is_of_sizes(value) and not value.is_floating_point())


class _Int(int, metaclass=_IntType):
    """`int` for code that is recorded."""


class _FloatType(type):
    def __call__(cls, *given: Any) -> Any:
        if given and _is_symbol(given[0]):
            return sys.modules["torch"].sym_float(given[0])
        return given[0].double() if given and is_of_sizes(given[0]) else builtins.float(*given)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.float) or (is_of_sizes(value) and value.is_floating_point())


class _Float(float, metaclass=_FloatType):
    """`float` for code that is recorded."""


def _is_symbol(value: Any) -> bool:
    """Whether this is an open number of torch.export."""
    import torch

    return isinstance(value, (torch.SymInt, torch.SymFloat))


def _whole(value: Any, how: str) -> Any:
    """A size's integer: it stays one, or a real one is rounded."""
    import torch

    return getattr(torch, how)(value).to(torch.int64) if value.is_floating_point() else value


def _round(value: Any, digits: int | None = None) -> Any:
    if not is_of_sizes(value):
        return builtins.round(value) if digits is None else builtins.round(value, digits)
    if digits is None or not value.is_floating_point():
        return _whole(value, "round")
    return (value.double() * 10.0**digits).round() / 10.0**digits


def _power(base: Any, exponent: Any, modulus: Any = None) -> Any:
    """`pow` for code that is recorded."""
    numbers = base, exponent, modulus
    if modulus is None or not any(map(is_of_sizes, numbers)):
        return builtins.pow(base, exponent) if modulus is None else builtins.pow(*numbers)
    return base**exponent % modulus


def _sorted(items: Any, **named: Any) -> Any:
    """`sorted` for code that is recorded: pairs are put in order, each as often as any order needs."""
    values = list(items)
    if "key" in named or not any(map(is_of_sizes, values)) or not all(map(_is_number, values)):
        return builtins.sorted(values, **named)
    smaller, larger = _extreme("minimum", min), _extreme("maximum", max)
    for last in range(len(values) - 1, 0, -1):
        for i in range(last):
            values[i], values[i + 1] = smaller(*values[i : i + 2]), larger(*values[i : i + 2])
    return values[::-1] if named.get("reverse") else values


def _truths(theirs: Callable[..., Any], combined: str) -> Callable[..., Any]:
    """`any` or `all` for code that is recorded."""

    def function(items: Any) -> Any:
        import torch

        open_ones = []
        for item in items:
            if is_of_sizes(item):
                open_ones.append(item != 0)
            elif theirs((item,)) is (theirs is any):
                return theirs is any
        return functools.reduce(getattr(torch, combined), open_ones) if open_ones else theirs(())

    return function


def _is_number(value: Any) -> bool:
    return type(value) in (builtins.int, builtins.float) or is_of_sizes(value)


def _length(value: Any) -> Any:
    """`len` for code that is recorded."""
    import torch

    if isinstance(value, Parts):
        return value.number()
    is_traced = isinstance(value, torch.Tensor) and torch._C._get_tracing_state() is not None
    return value.size(0) if is_traced and value.dim() else len(value)


def _extreme(name: str, theirs: Callable[..., Any]) -> Callable[..., Any]:
    """`max` or `min` for code that is recorded."""

    def function(*given: Any, **named: Any) -> Any:
        import torch

        if len(given) == 1 and not isinstance(given[0], torch.Tensor):
            items = list(given[0])
            if not items or not all(_is_number(v) or _is_symbol(v) for v in items):
                return theirs(items, **named)
            given = tuple(items)
        key = named.pop("key", None) or _itself
        keys = list(map(key, given))
        if any(map(_is_symbol, keys)) and key is _itself:
            return functools.reduce(getattr(torch, f"sym_{name[:3]}"), given)
        if not any(map(is_of_sizes, keys)) or not all(map(_is_number, given)):
            return theirs(given if len(given) > 1 else [*given], key=key, **named)
        if key is _itself:
            return functools.reduce(getattr(torch, name), map(_as_size, given))
        best, value = keys[0], _as_size(given[0])
        for other, item in zip(keys[1:], given[1:], strict=True):
            better = other > best if name == "maximum" else other < best
            best, value = torch.where(better, other, best), torch.where(better, item, value)
        return value

    return function


def _itself(value: Any) -> Any:
    return value


def _as_size(value: Any) -> Any:
    """A number as a tensor: integers and reals have 64 bits, as Python's."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    return torch.full((), value, dtype=torch.int64 if isinstance(value, builtins.int) else torch.float64)


#: PyTorch's names of functions of `math` and NumPy, of reals, where they are others.
_OTHER_NAMES = {"fabs": "abs", "radians": "deg2rad", "degrees": "rad2deg", "rint": "round",
                "arctan2": "atan2"}  # fmt: skip
_REAL = (
    "sqrt", "log", "log2", "log10", "log1p", "exp", "expm1", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "hypot", "atan2", "fmod", "pow",
    "copysign", *_OTHER_NAMES,
)  # fmt: skip


def _in_double(name: str) -> Callable[..., Any]:
    """PyTorch's function of numbers as reals of 64 bits."""
    import torch

    function = getattr(torch, _OTHER_NAMES.get(name, name))
    return lambda *values: function(*(_as_size(v).double() for v in values))


def _folded(combined: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: functools.reduce(combined, values)


def _math() -> Any:
    """The module `math` for code that is recorded."""
    import torch

    def wrapped(name: str) -> Callable[..., Any]:
        theirs, ours = getattr(math, name), _math_functions()[name]

        def function(*given: Any, **named: Any) -> Any:
            if len(given) == 1 and _is_symbol(given[0]) and hasattr(torch, f"_sym_{name}"):
                return getattr(torch, f"_sym_{name}")(*given)
            return ours(*given, **named) if any(map(is_of_sizes, given)) else theirs(*given, **named)

        return function

    return SimpleNamespace(**{**vars(math), **{name: wrapped(name) for name in _math_functions()}})


@functools.cache
def _math_functions() -> dict[str, Callable[..., Any]]:
    """Functions of `math` for numbers of which some are sizes."""
    import torch

    def of_integers(name: str) -> Callable[..., Any]:
        return lambda *values: functools.reduce(getattr(torch, name), map(_as_size, values))

    def log(value: Any, *base: Any) -> Any:
        reals = [_as_size(v).double().log() for v in (value, *base)]
        return reals[0] / reals[1] if base else reals[0]

    def is_close(a: Any, b: Any, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> Any:
        one, other = (_as_size(v).double() for v in (a, b))
        limit = torch.maximum(one.abs(), other.abs()) * rel_tol
        return (one - other).abs() <= torch.maximum(limit, _as_size(float(abs_tol)))

    rows = {name: _in_double(name) for name in _REAL if hasattr(math, name)}
    rows |= {name: functools.partial(_whole, how=name) for name in ("floor", "ceil", "trunc")}
    rows |= {"isqrt": lambda value: _as_size(value).double().sqrt().floor().to(torch.int64)}
    return rows | {
        "log": log, "isclose": is_close, "gcd": of_integers("gcd"), "lcm": of_integers("lcm"),
    }  # fmt: skip


class _NumPy:
    """`numpy` for code that is recorded."""

    def __getattr__(self, name: str) -> Any:
        theirs = getattr(np, name)
        ours = _numpy_functions().get(name)
        if ours is None:
            return theirs

        def function(*given: Any, **named: Any) -> Any:
            numbers = list(_numbers(given))
            if not any(map(is_of_sizes, numbers)):
                return theirs(*given, **named)
            if name in ("array", "asarray"):
                return ours(*given, **named)
            if named:
                return theirs(*given, **named)
            if isinstance(theirs, np.ufunc) and any(isinstance(v, (list, tuple)) for v in given):
                return theirs(*map(_sizes_in_array, given))
            return ours(*numbers)

        return function


class _Sizes(np.ndarray):
    """An array of numbers of which some are sizes: its items are objects."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        ours = _numpy_functions().get(ufunc.__name__)
        plain = [v.view(np.ndarray) if isinstance(v, _Sizes) else v for v in inputs]
        out = named.pop("out", None)
        if ours is not None and method == "__call__" and not named:
            made = np.frompyfunc(ours, len(plain), 1)(*plain)
        elif ours is not None and method == "reduce" and named.get("axis", 0) in (None, 0) and self.ndim == 1:
            made = functools.reduce(ours, plain[0].tolist())
        else:
            made = getattr(ufunc, method)(*plain, **named)
        if out is not None:
            out[0][...] = made
            return out[0]
        return made.view(_Sizes) if isinstance(made, np.ndarray) and made.dtype == object else made

    def astype(self, dtype: Any, *_: Any, **__: Any) -> Any:
        kind = np.dtype({_Int: builtins.int, _Float: builtins.float}.get(dtype, dtype)).kind
        if kind not in "iuf":
            return super().astype(dtype)
        return _sizes_in_array(self.tolist(), kind)

    def mean(self, *given: Any, **named: Any) -> Any:
        return super().mean(*given, **named) if given or named else self.sum() / self.size


def _sizes_in_array(data: Any, kind: str = "") -> Any:
    """The array of a list of numbers, as integers or reals if `kind` says so. Anything else stays."""
    if not isinstance(data, (list, tuple)):
        return data
    flat = list(_numbers(data))
    if kind:
        convert = _Float if kind == "f" else _Int
        flat = [convert(v) for v in flat]
    made = np.empty(len(flat), dtype=object)
    for i, value in enumerate(flat):  # as objects: of a whole list NumPy asks their numbers
        made[i] = value
    shape, inner = [], data
    while isinstance(inner, (list, tuple)):
        shape.append(len(inner))
        inner = inner[0]
    return made.reshape(shape).view(_Sizes)


def _array(data: Any, dtype: Any = None, **_: Any) -> Any:
    """`np.array` of a list of numbers of which some are sizes, or of one."""
    made = _sizes_in_array(data if isinstance(data, (list, tuple)) else [data])
    made = made if isinstance(data, (list, tuple)) else made.reshape(())
    return made if dtype is None else made.astype(dtype)


@functools.cache
def _numpy_functions() -> dict[str, Callable[..., Any]]:
    """NumPy's functions of numbers and lists of them, for numbers of which some are sizes."""
    import torch

    rows = {name: _in_double(name) for name in (*_REAL, "floor", "ceil", "trunc") if hasattr(np, name)}
    largest, smallest = _folded(_extreme("maximum", max)), _folded(_extreme("minimum", min))
    rows |= {"max": largest, "maximum": largest, "min": smallest, "minimum": smallest}
    rows |= {"amax": largest, "amin": smallest, "abs": operator.abs, "absolute": operator.abs}
    rows |= {"floor_divide": operator.floordiv, "mod": operator.mod, "remainder": operator.mod,
             "power": operator.pow, "multiply": operator.mul, "add": operator.add,
             "subtract": operator.sub, "divide": operator.truediv,
             "true_divide": operator.truediv}  # fmt: skip
    rows |= {"array": _array, "asarray": _array}
    rows |= {"clip": lambda value, least, most: smallest(largest(value, least), most)}
    rows |= {"mean": lambda *values: functools.reduce(operator.add, values) / len(values)}
    rows |= {"cumsum": lambda *values: _sizes_in_array(list(itertools.accumulate(values)))}
    rows |= {"round": _in_double("rint"), "sign": torch.sign}
    return rows | {"prod": _folded(operator.mul), "sum": _folded(operator.add)}


class _MakerType(type):
    """The type of what stands for `torch.Tensor` and its like in code that is recorded."""

    theirs: Any
    kind: Any

    def __call__(cls, *given: Any, **named: Any) -> Any:
        if len(given) == 1 and type(given[0]) in (list, tuple) and any(map(is_of_sizes, _numbers(given[0]))):
            return _stacked(given[0], cls.kind)
        return cls.theirs(*given, **named)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.theirs)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.theirs, name)


@functools.cache
def _maker(name: str) -> Any:
    """What stands for `torch.Tensor`, `torch.LongTensor` and so on. None for other names."""
    import torch

    kinds = {"Tensor": torch.get_default_dtype(), "FloatTensor": torch.float32, "DoubleTensor": torch.float64,
             "HalfTensor": torch.float16, "LongTensor": torch.int64, "IntTensor": torch.int32}  # fmt: skip
    if name not in kinds:
        return None
    return _MakerType(name, (), {"theirs": getattr(torch, name), "kind": kinds[name]})


#: Where code gives a type of Python's as that of elements, or makes a tensor by its type.
_PYTHONS_TYPE = re.compile(r"\bdtype\s*=\s*(int|float)\b|\btorch\.[A-Z][a-z]*Tensor\(|\btorch\.Tensor\(")


class _Torch:
    """`torch` for code that is recorded and writes `dtype=int`: its `int` is the one of this module. So is
    what stands for `torch.Tensor([h, w])`."""

    def __getattr__(self, name: str) -> Any:
        import torch

        found = getattr(torch, name)
        if (maker := _maker(name)) is not None:
            return maker
        if isinstance(found, type) or not callable(found):
            return found
        types = {_Int: torch.int64, _Float: torch.float64}

        def function(*given: Any, **named: Any) -> Any:
            if named.get("dtype") in types:
                named["dtype"] = types[named["dtype"]]
            return found(*given, **named)

        return function


def _names_types(module: Any) -> bool:
    """Whether the code of a module has `dtype=int` or `dtype=float`, or `torch.Tensor(...)`."""
    try:
        return _PYTHONS_TYPE.search(inspect.getsource(module)) is not None
    except (OSError, TypeError):
        return False


@contextlib.contextmanager
def shadowed(files: set[str]) -> Iterator[None]:
    """Modules of these files see the functions of this one in the place of Python's and NumPy's."""
    numpy = _NumPy()
    rows = {"int": (int, _Int), "float": (float, _Float), "round": (round, _round), "math": (math, _math()),
            "max": (max, _extreme("maximum", max)), "min": (min, _extreme("minimum", min)),
            "sorted": (sorted, _sorted), "pow": (pow, _power), "any": (any, _truths(any, "logical_or")),
            "all": (all, _truths(all, "logical_and")),
            "torch": (sys.modules["torch"], _Torch()), "len": (len, _length), "np": (np, numpy),
            "numpy": (np, numpy)}  # fmt: skip
    modules = [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) in files]
    if len({m.__file__ for m in modules}) < len(files):  # code that is typed has no file
        modules.append(sys.modules["__main__"])
    with patched(*(
        (module, name, ours) for module in {id(vars(m)): m for m in modules}.values()
        for name, (theirs, ours) in rows.items()
        if vars(module).get(name, getattr(builtins, name, None)) is theirs
        and (name != "torch" or _names_types(module))
    )):  # fmt: skip
        yield
