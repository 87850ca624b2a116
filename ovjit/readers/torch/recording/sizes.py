"""Python numbers that a module computes from sizes, recorded so that they hold for other sizes.

A trace holds sizes as tensors until Python asks for a number: `int(h / 2)`, `round(h / 2)` and
`math.sqrt(h * w)` are the example's from there on, and so is the branch of `if h == w`. The functions of
`python_functions` give tensors in the modules that call them. Two sizes are taken for different ones, and a
size for more than 1: what a module does then mostly holds for others, too. Whether it does for the example is
found by running: `agrees`. Where code orders two sizes, the example's order stays, with PyTorch's warning.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.recording.python_functions import shadow_functions, tensor_of
from ovjit.readers.torch.tracing.asked_numbers import tensor_makers
from ovjit.readers.torch.tracing.assertions import Assertions
from ovjit.readers.torch.tracing.patches import outside, suspend_tracing
from ovjit.readers.torch.tracing.size_values import is_fixed, is_of_sizes, is_same, sources_of, torch_value

#: How two sizes compare that are different, and one that is larger with 0 and 1.
_GENERAL = {
    "aten::eq": False, "aten::ne": True, "aten::gt": True, "aten::ge": True, "aten::lt": False,
    "aten::le": False,
}  # fmt: skip
#: How often one call may ask the same before answers are the example's: a loop may end by that. A loop that
#: asks more often than the second number does not end.
MOST_ANSWERS, MOST_LOOPS = 64, 192
#: How often a module is recorded again, each time with more of its files or with one more branch as it ran.
MOST_ROUNDS = 6


class Followed:
    """State between the traces of a module: files whose code needs numbers, and the branches that were
    taken."""

    def __init__(self, files: set[str]):
        self.files = set(files)
        #: Files whose code asked for a number in the last trace.
        self.asking_files: set[str] = set()
        self.as_run: set[tuple[Any, int]] = set()
        #: Where the last two sizes were compared that were taken for different ones.
        self.last: tuple[Any, int] | None = None
        self._last_line: tuple[Any, int] | None = None
        self._assertions = Assertions()
        self._has_learned = False
        #: The last call that compared sizes at each place, and how often it has.
        self._answers: dict[tuple[Any, int], tuple[Any, int]] = {}
        #: True if the last trace has answers that hold for the example, and may not for other sizes.
        self.is_unsure = False
        #: Values that code found to be more than 0, as it was answered.
        self.positive: set[int] = set()

    def again(self, failed: bool) -> bool:
        """Whether another trace may do better than the last one, which may have failed."""
        new = self.asking_files - self.files
        self.files |= new
        if failed and self._has_learned:
            return True
        if failed and self.last is not None:
            self.as_run.add(self.last)
            return True
        return not failed and bool(new)

    @contextlib.contextmanager
    def sizes(self, root: Any) -> Iterator[None]:
        """Context manager that records what runs of the module `root` for any sizes."""
        self.last, self.asking_files, self.positive = None, set(), set()
        self._answers, self.is_unsure = {}, False
        self._last_line, self._has_learned = None, False
        with contextlib.ExitStack() as stack:
            stack.enter_context(shadow_functions(self.files, root))
            stack.enter_context(_mode(self)())
            try:
                yield
            except Exception as error:
                last = self._last_line
                self._has_learned = last is not None and self._assertions.learn(*last, error)
                raise
        self._answers = {}

    def answer(self, value: Any) -> bool | None:
        """The result to assume for a comparison of sizes; None to use the example's.

        Sizes are assumed to differ from each other and from 0 and 1.
        """
        if not is_of_sizes(value):
            return None
        node = torch_value(value).node()
        frame = _asking_frame()
        if is_fixed(torch_value(value)):
            with suspend_tracing():
                return bool(value)
        if node.kind() not in _GENERAL:
            return None
        if is_same(node.inputsAt(0), node.inputsAt(1)):
            return node.kind() in ("aten::eq", "aten::ge", "aten::le")
        if frame in self._assertions:
            with suspend_tracing():
                return bool(value)
        location = frame.f_code, frame.f_lasti
        if _is_order(node) or location in self.as_run:
            return None
        self.last, self._last_line = location, (frame.f_code, frame.f_lineno)
        if self._is_endless(frame):
            return None
        self.is_unsure = self.is_unsure or self._is_unsure(value, _GENERAL[node.kind()])
        if node.kind() in ("aten::gt", "aten::ne") and node.inputsAt(1).toIValue() == 0:
            self.positive.add(node.inputsAt(0).unique())
        return _GENERAL[node.kind()]

    def _is_endless(self, frame: Any) -> bool:
        """Whether a call compares sizes at the same line very often. UnsupportedError if it does not end."""
        location = frame.f_code, frame.f_lasti
        caller, count = self._answers.get(location, (None, 0))
        self._answers[location] = frame, count + 1 if caller is frame else 1
        if count >= MOST_LOOPS:
            raise UnsupportedError("a loop by sizes does not end")
        return self._answers[location][1] > MOST_ANSWERS

    def _is_unsure(self, value: Any, answer: bool) -> bool:
        """Whether the example's answer is used for a comparison of a remainder or with a constant, which may
        differ for other sizes."""
        node = torch_value(value).node()
        kinds = {each.node().kind() for each in sources_of(torch_value(value))}
        if "aten::remainder" not in kinds and node.inputsAt(1).toIValue() in (None, 0, 1):
            return False
        with suspend_tracing():
            return bool(value.item()) == answer

    def slice_end(self, end: Any, size: Callable[[], Any]) -> Any:
        """The end of a slice. Behind `if n > 0`, -n is the length less n, which holds for 0, too: then the
        slice is whole, as what it is made of is without the branch."""
        if is_of_sizes(end):
            node = torch_value(end).node()
            if node.kind() == "aten::neg" and node.inputsAt(0).unique() in self.positive:
                return size() + end
        return end


def _asking_frame() -> Any:
    """The frame of the code that needs a number."""
    return outside(sys._getframe(1))


def _is_order(node: Any) -> bool:
    """Whether a node orders sizes, and is no comparison with the same result for nearly all sizes."""
    return (
        node.kind() in _GENERAL
        and node.kind() not in ("aten::eq", "aten::ne")
        and node.inputsAt(1).toIValue() not in (0, 1)
    )


def _mode(followed: Followed) -> type:
    from torch.overrides import TorchFunctionMode

    tensor = torch.Tensor
    names = ("truediv", "rtruediv", "mul", "rmul", "add", "radd", "sub", "rsub")
    in_double = {getattr(tensor, f"__{name}__") for name in names}
    in_double |= {torch.div, torch.true_divide, torch.mul, tensor.div, tensor.mul}
    asking = (tensor.__bool__, tensor.__int__, tensor.__float__)
    divides = (tensor.__truediv__, tensor.__rtruediv__, torch.div, torch.true_divide, tensor.div)
    makers = tensor_makers()

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function is tensor.__bool__ and (answer := followed.answer(args[0])) is not None:
                return answer
            if function in asking:
                followed.asking_files.add(_asking_frame().f_code.co_filename)
            if (maker := getattr(function, "__wrapped__", function)) in makers:
                return tensor_of(maker, args, kwargs)
            if function is tensor.__getitem__ and followed.positive:
                args = args[0], _count_from_front(followed, *args)
            if function in in_double and not kwargs and any(isinstance(a, (float, tensor)) for a in args):
                args = _as_pythons(_to_double(args, function in divides))
            return function(*args, **kwargs)

    return Mode


def _count_from_front(followed: Followed, x: Any, index: Any) -> Any:
    """An index whose slices' ends count from the front."""
    parts = list(index) if isinstance(index, tuple) else [index]
    for i, part in enumerate(parts):
        if part is Ellipsis or part is None or hasattr(part, "dtype") and part.dim():
            break  # what follows is about other dimensions
        if isinstance(part, slice):
            end = followed.slice_end(part.stop, functools.partial(x.size, i))
            parts[i] = slice(part.start, end, part.step)
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def _to_double(args: Sequence[Any], divides: bool) -> Sequence[Any]:
    """Convert sizes that become floats to f64, as Python computes."""
    if not (divides or any(isinstance(a, float) for a in args)):
        return args
    if not all(isinstance(a, (int, float)) or is_of_sizes(a) for a in args):
        return args
    return [a.double() if hasattr(a, "double") and not a.is_floating_point() else a for a in args]


def _as_pythons(args: Sequence[Any]) -> Sequence[Any]:
    """Convert floats of sizes beside an integer tensor to the default float type, which Python numbers have
    there."""
    if not any(isinstance(a, torch.Tensor) and a.dim() and not a.is_floating_point() for a in args):
        return args
    kind = torch.get_default_dtype()
    return [a.to(kind) if is_of_sizes(a) and a.is_floating_point() else a for a in args]
