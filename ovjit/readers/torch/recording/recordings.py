"""The one door of this room: traces and programs of a module that hold for other sizes and masks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from typing import Any

from ovjit.errors import unless_of_signal
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.recording.mask_selection import depends_on_mask, for_any_mask
from ovjit.readers.torch.recording.python_functions import shadow_functions
from ovjit.readers.torch.recording.sizes import MOST_ROUNDS, Followed
from ovjit.readers.torch.scripts.shared_memory import writes_to_constants
from ovjit.readers.torch.tracing.agreement import agrees
from ovjit.readers.torch.tracing.asked_numbers import files_needing_numbers
from ovjit.readers.torch.tracing.effects import Effects
from ovjit.readers.torch.tracing.exported import Exported, export, export_open, is_right
from ovjit.readers.torch.tracing.other_sizes import OtherSizes
from ovjit.readers.torch.tracing.plain import Recorded, trace_plainly
from ovjit.readers.torch.tracing.state import call_unchanged
from ovjit.readers.torch.tracing.trace import Prepared, attempt, quietly
from ovjit.readers.torch.values import inline_calls


def export_followed(module: Any, leaves: Sequence[Any]) -> Exported:
    """Export a module. If that fails, for example at a loop over selected elements, export it for any
    mask."""
    try:
        return _for_any_size(module, leaves)
    except unless_of_signal(Exception):
        with for_any_mask(export=True) as assumed:
            result = _for_any_size(module, leaves)
        if not assumed.any or not is_right(result.program, module, leaves):
            raise
        return result


def _for_any_size(module: Any, leaves: Sequence[Any]) -> Exported:
    """Export a module. If Python code needs concrete values of symbolic numbers, export it with recorded
    Python functions instead, provided that the example's results agree."""
    result = export_open(module, leaves)
    if result.asking_files:
        with attempt("an export with numbers of open sizes"):
            other = export_open(module, leaves, shadow_functions(result.asking_files, module))
            if is_right(other.program, module, leaves):
                return other
    return result


#: For how long traces are compared with the module for other sizes at least: else for half of the time that
#: the first trace has taken.
LEAST_SECONDS = 0.2


class _Example:
    """The outputs of a module for its example. The module runs at most once for all comparisons.

    While it is traced, a module may give what is equal in another order: detections with equal scores, for
    which torchvision has two ways. So what the plain trace gives is right, too.
    """

    def __init__(self, ready: Prepared, plain: Any):
        self._ready = ready
        self._plain = plain
        self._results: Any = None
        self._traced: Any = None
        self._assumes = False

    def _call(self, function: Any) -> Any:
        return call_unchanged(function, self._ready.module, self._ready.leaves)

    def _run(self) -> None:
        if self._results is None:
            with quietly(), torch.no_grad(), for_any_mask(changes=False) as assumed:
                self._results = self._call(self._ready.module)
            self._assumes = assumed.any

    def assumes(self) -> bool:
        """Whether a trace for any mask may differ from the trace of the example."""
        self._run()
        return self._assumes

    def is_of(self, script: Any) -> bool:
        """Whether a trace returns the module's outputs for the example, or those of the plain trace."""
        self._run()
        with quietly(), torch.no_grad():
            result = self._call(script)
            if agrees(self._results, result):
                return True
            if self._traced is None:
                self._traced = self._call(self._plain)
            return agrees(self._traced, result)


def recordings(ready: Prepared, exports: bool = False) -> Generator[Recorded, None, None]:
    """Yield traces of a module, the most general first, or the program that it `exports`. The caller takes
    the first that can be read.

    If the module selects elements by a mask, and a trace for any mask has the example's outputs, it is the
    only one. Else the first trace is valid for other sizes than the example's, if Python computes with sizes.
    The last one is the plain trace, which takes numbers and branches from the example.
    """
    if exports:
        yield export(ready, export_followed)
        return
    traces = _Traces(ready)
    plain, example = traces.plain, traces.example
    graph = inline_calls(plain.script)
    asking = files_needing_numbers(plain.warned)
    followed = Followed(asking)
    if depends_on_mask(graph, plain.warned) and example.assumes():
        chosen = traces.for_any_mask(followed if asking else None)
        if chosen is not None:
            yield chosen
            return
    best = traces.for_any_sizes(followed) if asking or writes_to_constants(graph) else None
    if asking:
        best = traces.choose_trace(best, followed.is_unsure)
    if best is not None:
        yield best
    yield plain


class _Traces:
    """The traces of a module. `plain` is the one of the example."""

    def __init__(self, ready: Prepared):
        self._ready = ready
        warned: list[Any] = []
        begin = time.perf_counter()
        self._effects = Effects()
        with self._effects.note_lines():
            script = trace_plainly(ready, warned)
        self.plain = Recorded(script, warned)
        seconds = max(LEAST_SECONDS, (time.perf_counter() - begin) / 2)
        self.example = _Example(ready, self.plain.script)
        self._others = OtherSizes(ready, seconds, self._effects)

    def _trace_without_effects(self, warned: list[Any]) -> Any:
        """A trace during which code has no other side effects than for the example."""
        with self._effects.no_others():
            return trace_plainly(self._ready, warned)

    def for_any_mask(self, followed: Followed | None) -> Recorded | None:
        """The trace for any mask; None if it fails, or its outputs differ from the module's.

        Sizes are followed if there are some to follow and that trace is right, too. Where lists of tensors'
        items are as long as the example's, that is warned of.
        """
        for sizes in (True, False) if followed is not None else (False,):
            warned: list[Any] = []
            with attempt("a trace for any mask"):
                with contextlib.ExitStack() as recording:
                    assumed = recording.enter_context(for_any_mask())
                    if sizes and followed is not None:
                        recording.enter_context(followed.sizes(self._ready.module))
                    script = self._trace_without_effects(warned)
                if assumed.any and self.example.is_of(script):
                    is_listed = any("to a Python list" in str(w.message) for w in self.plain.warned)
                    is_wrong = is_listed and self._others.wrong(script)
                    return Recorded(script, self.plain.warned if is_wrong else warned)
        return None

    def for_sizes(self, followed: Followed) -> Recorded | None:
        """One trace that records computations with sizes; None if its results differ from the module's for
        the example."""
        warned: list[Any] = []
        with attempt("a trace for any sizes"):
            with followed.sizes(self._ready.module):
                script = self._trace_without_effects(warned)
            if self.example.is_of(script):
                return Recorded(script, warned)
        return None

    def for_any_sizes(self, followed: Followed) -> Recorded | None:
        """The best of several traces that record computations with sizes; None if all results differ from the
        module's for the example."""
        best, result = None, self.for_sizes(followed)
        for _ in range(MOST_ROUNDS - 1):
            best = result or best
            if not followed.again(failed=result is None):
                break
            result = self.for_sizes(followed)
        return result or best

    def choose_trace(self, best: Recorded | None, is_unsure: bool) -> Recorded | None:
        """`best`, or the plain trace with PyTorch's warnings if `best` is, or may be, wrong for other
        sizes."""
        chosen = best or self.plain
        is_silent = not chosen.warned and (is_unsure or self._others.wrong(chosen.script))
        return Recorded(chosen.script, self.plain.warned) if is_silent else best
