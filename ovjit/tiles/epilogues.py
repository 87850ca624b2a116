"""The epilogue of convolutions and products: bias, rounding, and the operands of fused elementwise nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import Format
from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.words import Each
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Node, Value
from ovjit.planning.fuse import is_number
from ovjit.planning.lower import Constants, Layout, Lowering, Planner, View, in_place_candidates
from ovjit.tiles.rounding import Rounding, holds_all, one_rounding, rounded_body, rounds_near
from ovjit.tiles.rows import row_step

#: A kernel's parameter for the epilogue's operands: addresses and the byte strides of image, row and column.
#: `Summed.operand_values` returns them.
OPERANDS: Any = Each("operands", "n h w", unless="shared")


class Summed(Lowering):
    """A group whose anchor computes sums per channel, in `form.acc`. Its body is the epilogue of the sums.

    Subclasses set `channel_axis` and `form`; those with constant weights also `groups` and `outs`.
    """

    groups = 1
    outs = 0  # if weights are computed
    channel_axis: int
    form: Format
    #: The initial value of the sums of each channel; None: 0.
    bias: np.ndarray | None = None

    def make_epilogue(self) -> int:
        """Set the bias, the epilogue and its operands. Returns the number of nodes that became the bias."""
        skip = self._take_bias()
        nodes, sums = self.group.body[skip:], self.group.nodes[skip].outputs[0]
        reach = self.reach() if nodes and self.joins else None
        most = math.inf if reach is None else float(np.abs(reach).max(initial=0))
        body = self.group.make_body(skip, near=bool(nodes) and rounds_near(nodes, sums, most))
        self.operands = self.group.operands_after(skip)
        by_channel: Collection[int] = ()
        rounding = None if reach is None else self._one_rounding(nodes, sums, reach)
        if rounding is not None:
            body = rounded_body(self.out.dtype)
            self.bias, builder = rounding.first, Builder()
            shape = [1] * len(self.out.shape)
            shape[self.channel_axis] = -1
            self.operands = [builder.constant(x.reshape(shape)) for x in rounding[1:]]
        elif body is not None and self.form.acc == "i32" and self.outs:
            by_channel = self._scale_by_channel(body)
        kinds = ["channel" if i in by_channel else self._kind(v) for i, v in enumerate(self.operands)]
        self.epilogue = Epilogue(body, kinds, self.out.dtype)
        return skip

    def _scale_by_channel(self, body: Body) -> Collection[int]:
        """Broadcast the operands of the first multiply-add of integer sums from one number to all channels.

        So models with one scale of weights use the same kernels as those with a scale per channel. Returns
        the indices of these operands."""
        axes, channels = self.out.shape, self.groups * self.outs
        if not axes or axes[self.channel_axis] != channels:
            return ()
        indices = []
        sums = {target for target, operation, args, _ in body.lines if (operation, *args) == ("cast", "x0")}
        scaled = [args for _, operation, args, _ in body.lines if operation == "fma" and args[0] in sums]
        shape, builder = [1] * len(axes), Builder()
        shape[self.channel_axis] = channels
        for name in scaled[0][1:] if scaled else ():
            at = int(name[1:]) - 1 if isinstance(name, str) and name.startswith("x") else -1
            if at >= 0 and is_number(self.operands[at]):
                number = self.operands[at].constant
                assert number is not None
                self.operands[at] = builder.constant(np.full(shape, number.reshape(()), number.dtype))
                indices.append(at)
        return indices

    @property
    def joins(self) -> bool:
        """True if the tile narrows several vectors of sums to bytes at once."""
        return False

    def reach(self) -> np.ndarray | None:
        """The smallest and largest possible sums, [2, channels]; None if the weights are computed."""
        return None

    def _one_rounding(self, nodes: Sequence[Node], sums: Value, reach: np.ndarray) -> Rounding | None:
        """The constants with which one multiply-add scales and rounds, see `ovjit.tiles.rounding`."""
        if [node.op.name for node in nodes] != ["Convert", "Quantize"] or nodes[0].inputs[0] is not sums:
            return None
        if not holds_all(nodes[1]):
            return None
        channels, axes = (self.groups * self.outs,), self.out.shape
        factor, zero = (v.constant for v in nodes[1].inputs[1:])
        if factor is None or zero is None or not axes or axes[self.channel_axis] != channels[0]:
            return None
        if not (self._of_channels(factor) and self._of_channels(zero)):
            return None
        factor, zero = (np.broadcast_to(x.reshape(-1), channels) for x in (factor, zero))
        bias = np.zeros(channels, np.int32) if self.bias is None else self.bias
        least = int(np.iinfo(numpy_dtype(nodes[1].attrs["element_type"])).min)
        return one_rounding(reach, bias, factor, zero, least)

    def along(self, view: View, axes: Sequence[int | None]) -> list[int]:
        """The byte strides of `view` for the axes that stand for N, OH, OW; None: 0."""
        return [0 if a is None else view.strides[a] for a in axes]

    def _take_bias(self) -> int:
        """If the body begins by adding a constant per channel, make it the accumulators' initial value.
        Requires that the Add is the only reader of the sums. Returns the number of nodes taken, 0 or 1."""
        self.bias = None
        value = self.node.outputs[0]
        if not self.group.body or self.group.body[0].op.name != "Add":
            return 0
        node = self.group.body[0]
        readers = [v is value for n in self.group.body for v in n.inputs]
        if sum(readers) != 1 or node.output.shape != value.shape:
            return 0
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        array = other.constant
        accepted = ("f32", "bf16", "f16") if self.form.acc == "f32" else (self.form.acc,)
        if array is None or other.dtype not in accepted:
            return 0
        if not self._of_channels(array):
            return 0
        channels = self.groups * self.outs
        self.bias = np.broadcast_to(array.reshape(-1).astype(numpy_dtype(self.form.acc)), (channels,))
        return 1

    def _of_channels(self, array: np.ndarray) -> bool:
        """True for a constant that varies only along the channels."""
        rank = len(self.node.outputs[0].shape)
        shape = (1,) * (rank - array.ndim) + array.shape
        return all(d == 1 for a, d in enumerate(shape) if a != self.channel_axis % max(rank, 1))

    def _kind(self, value: Value) -> str:
        """The kind of the epilogue's operand for `value`, see `Operand`."""
        if is_number(value):
            return "number"
        rank = len(self.out.shape)
        if not rank:
            return "scalar"
        shape = (1,) * (rank - len(value.shape)) + tuple(value.shape)
        axis = self.channel_axis % rank
        if shape[axis] == 1 and self.out.shape[axis] != 1:
            return "scalar"
        others = [d for a, d in enumerate(shape) if a != axis]
        return "channel" if all(d == 1 for d in others) else "pixel"

    def place_operands(self, constants: Constants) -> None:
        for value in self.operands:
            if value.constant is not None:
                constants.view(value.constant, value.dtype)

    def operand_view(self, planner: Planner, value: Value, kind: str) -> View:
        """The operand, broadcast to the output's shape. Channels are adjacent if the kernel loads vectors."""
        constant = None if value in planner.types else value.constant  # made by `_one_rounding`
        view = planner.view(value) if constant is None else planner.constants.view(constant, value.dtype)
        if kind == "number":
            return view
        rank = len(self.out.shape)
        axis = self.channel_axis % max(rank, 1) - (rank - len(view.shape))
        shape = planner.shape(self.out)
        if kind != "scalar" and axis >= 0 and shape and shape[self.channel_axis] > 1:
            order = [a for a in range(len(view.shape)) if a != axis] + [axis]
            if view.shape[axis] == 1:  # a dynamic dimension: the kernel loads vectors, here it is one element
                view = planner.copy(value, Layout(order), axis, shape[self.channel_axis])
            elif view.strides[axis] != view.itemsize:
                view = planner.copy(value, Layout(order))
        return view.expand(shape)

    def operand_values(
        self, planner: Planner, axes: Sequence[int | None], part: Callable[[View], View] = lambda view: view
    ) -> tuple[dict[str, Any], list[View]]:
        """The kernel's arguments for the epilogue's operands, and the views that are read.

        Arguments are addresses, and strides along `axes` (N, OH, OW and perhaps the group). `part` selects
        the part of a view that the step reads."""

        def along(view: View) -> tuple[View, dict[str, int]]:
            view = part(view)
            return view, dict(zip("nhwg", self.along(view, axes), strict=False))

        return self._operand_values(planner, along)

    def operand_rows(self, planner: Planner) -> tuple[dict[str, Any], list[View]]:
        """The arguments for the epilogue's operands of a kernel that iterates over rows: addresses and the
        bytes between rows. Also returns the views that are read."""

        def along(view: View) -> tuple[View, dict[str, int]]:
            step = row_step(view)
            if step is None:
                flat = planner.allocate(view.shape, view.itemsize)
                planner.copy_step(view, flat, "rows of the kernel are contiguous")
                view, step = flat, flat.shape[-1] * flat.itemsize
            return view, {"w": step}

        return self._operand_values(planner, along)

    def _operand_values(
        self, planner: Planner, along: Callable[[View], tuple[View, dict[str, int]]]
    ) -> tuple[dict[str, Any], list[View]]:
        """`along`: for an operand with pixels, the view that is read and its strides, letter -> bytes."""
        values: dict[str, Any] = {}
        reads = []
        for i, (value, operand) in enumerate(zip(self.operands, self.epilogue.operands, strict=True)):
            view = self.operand_view(planner, value, operand.kind)
            if not operand.shared:
                view, strides = along(view)
                values |= {f"e{i}_{letter}": stride for letter, stride in strides.items()}
            values[f"e{i}"] = view.ptr
            reads.append(view)
        return values, reads

    def over(self, planner: Planner, *read: View) -> list[View]:
        """Operands that the output may overwrite: each element is read where its result is written, and
        `read` does not include them."""
        views = [
            planner.view(v)
            for v, o in zip(self.operands, self.epilogue.operands, strict=True)
            if o.kind == "pixel"
        ]
        return in_place_candidates(views, read)
