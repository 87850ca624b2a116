"""Native Range of limits that are integers, known when shapes are."""

from __future__ import annotations

from ovjit.codegen.function import kernel
from ovjit.codegen.memory import SIZE
from ovjit.codegen.words import Ptr, share, st
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner
from ovjit.compiler.races import Piece, Rows
from ovjit.graph.traced import is_traced, whole

#: Element types that a range is made in here. Others run by the reference.
TYPES = ("i32", "i64", "f32", "f64")


@kernel
def numbers(y: Ptr, start, step, n, per_chunk, *, T):
    """y[i] = start + i * step for i < n."""
    for i in share(n, per_chunk):
        st[T](y + i * SIZE[T], start + i * step)


class Ranged(Lowering):
    """Numbers one after the other."""

    def set_up(self) -> None:
        if self.out.dtype not in TYPES:
            raise NotNative
        self.kernel = numbers(T=self.out.dtype)

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        start, _, step = (planner.types[v].value for v in node.inputs)
        if any(v is None or (v.dtype.kind not in "iu" and not is_traced(v)) for v in (start, step)):
            raise NotNative
        out = planner.output(node.output)
        n = out.shape[0]
        if n == 0:
            return
        if n > 1 and out.strides[0] != out.itemsize:  # a part of something that is not adjacent
            out = planner.instead(out)
        first, by = (whole(v.reshape(-1)[0]) for v in (start, step))
        values = {"y": out.ptr, "start": first, "step": by, "n": n}
        size = (out.itemsize,)
        written = [Piece(out.ptr, size, (1,), size, out.itemsize)]
        planner.share_step(
            self.kernel, values, n, 2, [], [out], touches=lambda each: Rows((n,), each, [], written)
        )
