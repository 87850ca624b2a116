"""Native GatherTree: a chunk is a range of beams, of which each is read back from its end."""

from __future__ import annotations

from ovjit.codegen.function import kernel
from ovjit.codegen.words import *
from ovjit.forks import made_once
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import NotNative, Planner


@kernel
def gather_tree(
    ids: Ptr, parents: Ptr, lengths: Ptr, end: Ptr, y: Ptr, steps, width, total, per_chunk, *, T
):
    """The ids of a beam by the parents of every step; behind the first end all are ends."""
    stop = ld[T](end)
    for item in share(total, per_chunk):
        beam = item % width
        row = item - beam
        number = ld[T](lengths + item // width * SIZE[T])
        if number != number:
            return 1
        if T == "f32":
            length = min(whole(number * 1.0), steps)
        else:
            length = min(number + 0, steps)
        at = beam
        t = length - 1
        while t >= 0:
            if at < 0 or at >= width:
                return 1
            place = (t * total + row + at) * SIZE[T]
            st[T](y + (t * total + item) * SIZE[T], ld[T](ids + place))
            parent = ld[T](parents + place)
            if T == "f32":
                at = whole(parent * 1.0)
                if parent != parent:
                    at = -1
            else:
                at = parent + 0
            t -= 1
        ended = 0
        for t in range(steps):
            q = y + (t * total + item) * SIZE[T]
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
        ids, parents, lengths, end = read = [planner.contiguous(v) for v in self.node.inputs]
        steps, batch, width = ids.shape
        if not ids.count or parents.shape != ids.shape or lengths.shape != (batch,):
            raise NotNative
        made = planner.row_major_outputs(self.node)
        total = batch * width
        values = {
            "ids": ids.ptr, "parents": parents.ptr, "lengths": lengths.ptr, "end": end.ptr, "y": made[0].ptr,
            "steps": steps, "width": width, "total": total,
        }  # fmt: skip
        planner.share_step(self.kernel, values, total, steps * 16, read, made, 4.0 * ids.count)
