"""Traces of a module, the most general first: valid for other sizes, masks and numbers of iterations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording import recorded_loops, strides
from ovjit.readers.torch.recording.asked_numbers import files_asking, rounding
from ovjit.readers.torch.recording.effects import Effects
from ovjit.readers.torch.recording.found_loops import Conditions, Found, note_loops
from ovjit.readers.torch.recording.gradient import gradient
from ovjit.readers.torch.recording.mask_selection import agrees, depends_on_mask, for_any_mask
from ovjit.readers.torch.recording.other_sizes import OtherSizes
from ovjit.readers.torch.recording.patches import allow_divmod, patch, plain_modules, plain_scripts
from ovjit.readers.torch.recording.sizes import MOST_ROUNDS, Followed, ordering
from ovjit.readers.torch.recording.state import call_unchanged, trace_module
from ovjit.readers.torch.recording.trace import Prepared, attempt, quietly
from ovjit.readers.torch.scripts.shared_memory import writes_to_constants
from ovjit.readers.torch.values import inline_calls
from ovjit.records import NamedTuple

#: How often a module is recorded with both bodies of branches: bodies may have branches of their own.
MOST_BODIES = 3
#: For how long traces are compared with the module for other sizes at least: else for half of the time that
#: the first trace has taken.
LEAST_SECONDS = 0.2


class Recorded(NamedTuple):
    """A trace, and what PyTorch warned of while it was made."""

    script: Any
    warned: list[Any]


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
        import torch

        if self._results is None:
            with quietly(), torch.no_grad(), for_any_mask(changes=False) as assumed:
                self._results = self._call(self._ready.module)
            self._assumes = assumed.any

    def assumes(self) -> bool:
        """Whether a trace for any mask may differ from the trace of the example."""
        self._run()
        return self._assumes

    def is_of(self, script: Any) -> bool:
        """Whether a trace has the module's outputs for the example, or those of the plain trace."""
        import torch

        self._run()
        with quietly(), torch.no_grad():
            result = self._call(script)
            if agrees(self._results, result):
                return True
            if self._traced is None:
                self._traced = self._call(self._plain)
            return agrees(self._traced, result)


def recordings(ready: Prepared) -> Generator[Recorded, None, None]:
    """Yield traces of a module, the most general first. The caller takes the first that can be read.

    If the module selects elements by a mask, and a trace for any mask has the example's outputs, it is the
    only one. Else the first trace is valid for other sizes than the example's, if Python computes with sizes.
    The last one records loops over dynamic dimensions as loops, and takes sizes from the example.
    """
    traces = _Traces(ready)
    result, example = traces.plain, traces.example
    masked = depends_on_mask(inline_calls(result.script), result.warned) and example.assumes()
    asking = files_asking(result.warned)
    followed = Followed(asking, traces.conditions)
    first = chosen = best = None
    with contextlib.ExitStack() as loops:
        has_loops = traces.enter_loops(loops)
        if has_loops and asking and not masked:  # both at once: each trace takes as long as the first one
            first = traces.for_sizes(followed)
        if has_loops and first is None:
            result = traces.with_loops(loops)
            asking = files_asking(result.warned)
        if masked and depends_on_mask(inline_calls(result.script), result.warned):
            chosen = traces.for_any_mask(followed if asking else None)
        if chosen is None and (asking or writes_to_constants(inline_calls(result.script))):
            best = traces.for_any_sizes(followed, first)
    if chosen is not None:
        yield traces.for_any_length(chosen)
        return
    if asking or has_loops or traces.conditions.every.lines:
        with contextlib.ExitStack() as loops:
            traces.enter_loops(loops)
            best = traces.right_elsewhere(best, result, asking, followed.is_unsure)
    if best is not None:
        yield best
    if first is not None:
        with contextlib.ExitStack() as loops:
            traces.enter_loops(loops)
            result = traces.with_loops(loops)
    yield result


class _Traces:
    """The traces of a module. `plain` is the one of the example; it finds loops over open dimensions, and
    conditions on sizes."""

    def __init__(self, ready: Prepared):
        self._ready = ready
        self._loops, self._listed = Found(), Found()
        self.conditions = Conditions()
        warned: list[Any] = []
        begin = time.perf_counter()
        self._effects = Effects()
        with self._effects.note_lines():
            script = record(ready, warned, self._loops, self.conditions, self._listed)
        self.plain = Recorded(script, warned)
        seconds = max(LEAST_SECONDS, (time.perf_counter() - begin) / 2)
        self.example = _Example(ready, self.plain.script)
        self._others = OtherSizes(ready, seconds, self._effects)

    def _trace_without_effects(self, warned: list[Any]) -> Any:
        """A trace in which code has no other effects than for the example."""
        with self._effects.no_others():
            return record(self._ready, warned)

    def enter_loops(self, loops: contextlib.ExitStack) -> bool:
        """Record loops over open dimensions as such while `loops` is open. False where there are none."""
        if self._loops.lines:
            with attempt("rewriting loops"):
                if loops.enter_context(recorded_loops.record_loops(self._loops)):
                    return True
        loops.close()
        return False

    def for_any_mask(self, followed: Followed | None) -> Recorded | None:
        """The trace for any mask; None if tracing fails, or if its outputs differ from the module's.

        Sizes are followed if there are some to follow and that trace is right, too.
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
                    return Recorded(script, warned)
        return None

    def for_any_length(self, chosen: Recorded) -> Recorded:
        """A trace for any mask, or one with loops over lists of tensors' items where `chosen` is wrong for
        other lengths of these. Where no trace is right, that is warned of."""
        if not self._listed.lines or not self._others.wrong(chosen.script):
            return chosen
        for function, lines in self._listed.lines.items():
            self._loops.lines.setdefault(function, set()).update(lines)
        with contextlib.ExitStack() as loops:
            if self.enter_loops(loops):
                result = self.with_loops(loops)
                if result is not self.plain and not self._others.wrong(result.script):
                    return result
        return Recorded(chosen.script, self.plain.warned)

    def with_loops(self, loops: contextlib.ExitStack) -> Recorded:
        """The trace that has loops over open dimensions as such; the plain one where it gives something else
        than the module for the example. Then `loops` are closed.

        A body may make a number of Python's of its iteration's number: such numbers are followed, too.
        """
        warned: list[Any] = []
        with attempt("a trace with loops"):
            script = self._trace_without_effects(warned)
            if self.example.is_of(script):
                return Recorded(script, warned)
        asking = files_asking(warned)
        result = self.for_sizes(Followed(asking, self.conditions)) if asking else None
        if result is None:
            loops.close()
        return result or self.plain

    def for_sizes(self, followed: Followed) -> Recorded | None:
        """One trace in which numbers that are computed from sizes are followed; None where it gives something
        else than the module for the example."""
        warned: list[Any] = []
        with attempt("a trace for any sizes"):
            with followed.sizes(self._ready.module):
                script = self._trace_without_effects(warned)
            if self.example.is_of(script):
                return Recorded(script, warned)
        return None

    def for_any_sizes(self, followed: Followed, first: Recorded | None) -> Recorded | None:
        """The best trace of some in which numbers that are computed from sizes are followed, where `first` is
        the first one if it has been made; None where all give something else than the module for the
        example."""
        best = first
        recording = first if first is not None else self.for_sizes(followed)
        for _ in range(MOST_ROUNDS - 1):
            best = recording or best
            if not followed.again(failed=recording is None):
                break
            recording = self.for_sizes(followed)
        return recording or best

    def right_elsewhere(
        self, best: Recorded | None, default: Recorded, asking: set[str], is_unsure: bool
    ) -> Recorded | None:
        """`best`, or a trace that has both bodies of branches by sizes, if that is right for more sizes.
        `default` is what is taken where both are None.

        Where the one that is taken is not right for other sizes, that is warned of.
        """
        now = best or default
        wrong = self._others.wrong(now.script)
        is_asked = any("to a Python boolean" in str(w.message) for w in now.warned)
        is_asked = is_asked or self.conditions.are_looked_up
        if self.conditions.every.lines and (is_asked or wrong or is_unsure):
            both = self._with_branches(asking)
            if both is not None:
                missed = self._others.wrong(both.script)
                is_better = missed < wrong or len(both.warned) < len(now.warned)
                if missed <= wrong and (is_better or (is_unsure and len(both.warned) == len(now.warned))):
                    best, wrong = both, missed
        now = best or default
        return Recorded(now.script, self.plain.warned) if wrong and not now.warned else best

    def _with_branches(self, asking: set[str]) -> Recorded | None:
        """A trace with both bodies of branches by sizes; None where it gives something else than the module
        for the example."""
        followed = Followed(asking, self.conditions, self.conditions.every)
        result = self.for_sizes(followed)
        for _ in range(MOST_BODIES - 1):
            if not followed.more_conditions():
                break
            result = self.for_sizes(followed) or result
        return result


def record(
    ready: Prepared,
    records: list[Any],
    loops: Found | None = None,
    ordered: Conditions | None = None,
    listed: Found | None = None,
) -> Any:
    import torch
    from torch._functorch import vmap

    others = patch(
        (vmap, "_vmap_increment_nesting", _not_traced),
        (vmap, "_vmap_decrement_nesting", lambda: None),
        # attention is not fused where tensors have functions of their own: a mode that follows is none
        (torch.overrides, "has_torch_function", _of_other_classes),
        (torch, "gradient", gradient),
    )
    with plain_scripts(), quietly(records, ready.fused), torch.no_grad(), others, allow_divmod():
        noting = note_loops(loops, listed, ordered)
        with rounding(), ordering(ordered), strides.trace_strides(), noting, plain_modules():
            return trace_module(ready.module, ready.leaves, ready.names)


BY_VMAP = UnsupportedError("torch.vmap is not supported by tracing")


def _of_other_classes(values: Sequence[Any]) -> bool:
    """Whether some are tensors of classes that have functions of their own."""
    import torch

    plain = torch.Tensor, torch.nn.Parameter
    return any(hasattr(type(v), "__torch_function__") and type(v) not in plain for v in values)


def _not_traced(*_: Any) -> Any:
    """Raise an error at the start of torch.vmap: its traces have the sizes of the example."""
    raise BY_VMAP
