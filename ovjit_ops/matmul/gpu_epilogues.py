"""Kernels of GPUs whose results pass an epilogue: elementwise operations with up to three operands; and the
alignment of tensors that are read 16 bytes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.codegen.function import FunctionKernel
from ovjit.codegen.kernel import Kernel
from ovjit.forks import made_once
from ovjit.graph.graph import Value
from ovjit.graph.traced import is_traced_number
from ovjit.planning.lower import Lowering, View
from ovjit_ops.matmul.gpu_products import OPERANDS


class WithEpilogue(Lowering):
    """A lowering whose kernels have the epilogue of its group. Subclasses set up `operands`."""

    #: The operands of the epilogue.
    operands: Sequence[Value]
    #: The traced epilogue.
    body: Any = made_once(lambda self: self.group.make_body(0))

    def make_kernel(self, source: FunctionKernel, *words: Any, **constants: Any) -> Kernel:
        """The kernel with the epilogue, whose name begins with `words`. Its element types are those of the
        first input and of the result, if `constants` has no others."""
        types = [v.dtype for v in self.operands] + [""] * OPERANDS
        usual = {"T": self.node.inputs[0].dtype, "out": self.out.dtype, "body": self.body}
        usual |= dict(zip(("first", "second", "third"), types, strict=False))
        fused = () if "body" in constants else self.group.body[:4]
        name = "_".join(map(str, (*words, *(n.op.name.lower() for n in fused))))
        return source.kernel(name, **usual | constants)


def result_and_operands(y: View, operands: Sequence[View], read: View) -> dict[str, View]:
    """The result and the epilogue's operands by their names in kernels. Those that a kernel does not have are
    an element of `read`, which it reads anyway."""
    none = View(read.buffer, y.shape, (0,) * len(y.shape), read.itemsize, read.offset)
    return dict(zip("ypqr", (y, *operands, *[none] * OPERANDS), strict=False))


def repeated_steps(view: View) -> list[Any]:
    """The steps of the dimensions but the last one. One element has none."""
    dims = zip(view.shape[:-1], view.strides[:-1], strict=True)
    return [step for count, step in dims if is_traced_number(count) or count != 1]


def is_aligned(view: View | None) -> bool:
    """True if rows are adjacent elements that begin at multiples of 16 bytes."""
    if view is None or view.strides[-1] != view.itemsize:
        return False
    return all(step % 16 == 0 for step in (*repeated_steps(view), view.offset))
