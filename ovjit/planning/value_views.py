"""The view of each value during planning, lazy producers, and copies where a view does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.memory import SIZE
from ovjit.errors import OvjitError
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.graph.traced import is_traced
from ovjit.planning.constants import Constants, is_native
from ovjit.planning.copies import plan_copy, plan_halo
from ovjit.planning.step_list import StepList
from ovjit.planning.views import PLAN_DATA, Buffer, Layout, View, channels_last, row_major_layout


class Views(dict):
    """value -> view, and for each buffer the values in it.

    Raises OvjitError unless a view has its value's shape and element size: kernels do not check them.
    """

    def __init__(self, types: Mapping[Value, Any]) -> None:
        super().__init__()
        self.types = types
        self.in_buffer: dict[Buffer, list[Value]] = {}

    def __setitem__(self, value: Value, view: View) -> None:
        shape = self.types[value].shape
        # packed types and strings are not native: the shapes of their arrays differ from the values' shapes
        if is_native(value.dtype) and (
            view.itemsize != SIZE[value.dtype] or (is_static(shape) and view.shape != shape)
        ):
            raise OvjitError(
                f"internal error: {value!r} of {value.dtype}{list(shape)} is planned as "
                f"{list(view.shape)} of {view.itemsize} bytes per element"
            )
        super().__setitem__(value, view)
        self.in_buffer.setdefault(view.buffer, []).append(value)


class ValueViews(StepList):
    """Views of values in the layouts that lowerings need; inserts copies."""

    def __init__(
        self,
        types: Mapping[Value, Any],
        layouts: Mapping[Value, Layout],
        constants: Constants,
        target: Target,
    ):
        super().__init__(types, target)
        self.layouts = layouts
        self.constants = constants
        self.data = Constants(PLAN_DATA)
        self.views = Views(types)
        self.buffers: list[Buffer] = []
        #: Lazy value -> (its group, function that adds its steps). It runs at the first `view(value)`.
        self.deferred: dict[Value, tuple[Any, Callable[[], View]]] = {}
        self._copies: dict[tuple, View] = {}

    def begin(self, group: Any) -> None:
        """Steps added from now on belong to `group`, which has name, origins and nodes.

        Raises OvjitError if the anchor's output and the epilogue's output have different shapes: a kernel
        iterates over one shape. `lower.MultiVersioned` handles groups whose shapes may differ.
        """
        anchor, body = group.anchor, group.body
        if anchor is not None and body:
            have, want = self.shape(anchor.output), self.shape(body[-1].output)
            if have != want:
                raise OvjitError(
                    f"internal error: {anchor.name!r} of {list(have)} is fused with {group.name!r} of "
                    f"{list(want)}"
                )
        self._group = group
        if self.trace is not None:
            self.trace.begin(group, self.views)

    def views_of(self, group: Any) -> list[tuple[Value, View]]:
        """(value, view) for the outputs of a planned group that have readers."""
        outputs = ((v, self.views.get(v)) for v in group.outputs if v.index in group.used)
        return [(v, view) for v, view in outputs if view is not None]

    def view(self, value: Value) -> View:
        """The view of `value`. A constant is placed row-major at its first use."""
        view = self.views.get(value)
        if view is None and value in self.deferred:
            view = self._materialize(value)
        if view is None:
            array = self.types[value].value
            if array is None:
                array = value.constant
            if array is None:
                raise OvjitError(f"internal error: {value!r} is used before it is planned")
            home = self.constants if self.constants.holds(array) else self.data
            view = self.views[value] = (
                home.traced_view(array, value.dtype) if is_traced(array) else home.view(array, value.dtype)
            )
        return view

    def _materialize(self, value: Value) -> View:
        """Make a deferred value: add its steps under its own group's name."""
        asking = self._group
        self._group, make = self.deferred.pop(value)
        begun = self.trace is not None and self.trace.enter(self._group)
        view = self.views[value] = make()
        if self.trace is not None:
            self.trace.leave(asking, begun)
        self._group = asking
        return view

    def with_halo(self, value: Value, halo: Sequence[tuple[int, int]], gap: bool = False) -> View:
        """A channels-last view of `value` with at least this zero halo, copied if needed. `gap`: see
        `Layout`; it applies to the copy only."""
        return self.with_layout(value, channels_last(len(halo), halo, gap))

    def with_layout(self, value: Value, layout: Layout) -> View:
        """A view of `value` that is contiguous along the layout's fastest dimension and has at least the
        layout's halo, copied if needed. Other strides are arbitrary."""
        view = self.view(value)
        inner = layout.order[-1]
        fits = (view.strides[inner] == view.itemsize or view.shape[inner] == 1) and all(
            have[0] >= need[0] and have[1] >= need[1]
            for have, need in zip(view.halo, layout.halo, strict=True)
        )
        if fits:
            return view
        preferred = self.layouts.get(value)
        return self.copy(value, layout.combine(preferred) if preferred else layout)

    def contiguous(self, value: Value) -> View:
        """A row-major view without gaps."""
        view = self.view(value)
        return view if view.is_contiguous else self.copy(value, row_major_layout(len(view.shape)))

    def copy(self, value: Value, layout: Layout, axis: int = -1, extent: int = 1) -> View:
        """A copy of `value` in `layout`, made once and shared. If `axis` is given, its single element is
        repeated `extent` times."""
        key = (value, layout, axis, extent)
        target = self._copies.get(key)
        if target is None:
            source = self.view(value)
            if axis >= 0:
                source = source.expand((*source.shape[:axis], extent, *source.shape[axis + 1 :]))
            target = self._copies[key] = self.allocate(source.shape, source.itemsize, layout)
            order = source.describe_order()
            why = f"read in {layout.describe()}" + (f"; it is in {order}" if order else "")
            self.copy_step(source, target, why)
        return target

    def allocate(self, shape: Sequence[int], itemsize: int, layout: Layout | None = None) -> View:
        """A new tensor in the arena. A separate step clears its halo."""
        layout = layout or row_major_layout(len(shape))
        view = self._new_tensor(shape, itemsize, layout)
        if has_halo(view):
            self.halo_step(view, layout)
        return view

    def _new_tensor(self, shape: Sequence[int], itemsize: int, layout: Layout) -> View:
        size, strides, offset = layout.allocate(shape, itemsize)
        self.buffers.append(Buffer(size))
        return View(self.buffers[-1], shape, strides, itemsize, offset, layout.halo)

    def copy_step(self, source: View, target: View, why: str) -> None:
        """Add a copy. `why`: the reason; "" if an operation of the model asks for it."""
        if source.shape != target.shape or source.itemsize != target.itemsize:
            raise OvjitError(
                f"internal error: {list(source.shape)} of {source.itemsize} bytes per element is copied "
                f"to {list(target.shape)} of {target.itemsize} bytes per element"
            )
        self._why = why
        plan_copy(self, source, target)
        self._why = ""

    def halo_step(self, view: View, layout: Layout) -> None:
        """Add the steps that zero the halo and gaps around `view`."""
        self._why = "zeros around the tensor"
        plan_halo(self, view, layout)
        self._why = ""

    def used_buffers(self) -> list[Buffer]:
        """The buffers of the arena that a step uses."""
        return [b for b in self.buffers if b.first >= 0]


def has_halo(view: View) -> bool:
    """Whether a new tensor has a halo that must be cleared. An empty tensor may have one too."""
    return any(map(any, view.halo)) and view.buffer.size != 0
