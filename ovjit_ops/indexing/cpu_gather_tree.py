"""Native GatherTree: a chunk is a range of beams. Each is traced back from its end."""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.forks import made_once
from ovjit.planning.lower import Lowering, NotNative, Planner, launch


@kernel(
    over="batch beam", ids="t batch beam", parents="t batch beam", lengths="batch", end="", y="t batch beam"
)
def gather_tree(ids: Tensor, parents: Tensor, lengths: Tensor, end: Tensor, y: Tensor, *, T):
    """Store the ids of a beam, traced back by the parents of every step. Behind the first end token, all are
    end tokens. Returns 1 for a NaN length, or a parent out of range."""
    stop = ld[T](end)
    steps = y.size.t
    for b, beam, length_at, path in items(lengths, y):
        number = ld[T](length_at)
        if number != number:
            return 1
        if T == "f32":
            length = min(to_int(number * 1.0), steps)
        else:
            length = min(number + 0, steps)
        at = beam
        t = length - 1
        while t >= 0:
            if at < 0 or at >= y.size.beam:
                return 1
            st[T](y.at(path, t=t), ld[T](ids.at(t=t, batch=b, beam=at)))
            parent = ld[T](parents.at(t=t, batch=b, beam=at))
            if T == "f32":
                at = to_int(parent * 1.0)
                if parent != parent:
                    at = -1
            else:
                at = parent + 0
            t -= 1
        ended = 0
        for t in range(steps):
            q = y.at(path, t=t)
            if t >= length:
                ended = 1
            if ended == 1:
                st[T](q, stop)
            elif ld[T](q) == stop:
                ended = 1


class GatherTree(Lowering):
    takes = (("f32", "i32", "i64"),)

    kernel = made_once(lambda self: gather_tree(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        ids, parents, lengths, end = [planner.contiguous(v) for v in self.node.inputs]
        steps, batch, _ = ids.shape
        if not ids.count or parents.shape != ids.shape or lengths.shape != (batch,):
            raise NotNative
        (y,) = planner.row_major_outputs(self.node)
        tensors = {"ids": ids, "parents": parents, "lengths": lengths, "end": end, "y": y}
        launch(planner, self.kernel, tensors, ("y",), work=steps * 16, flops=4.0 * ids.count)
