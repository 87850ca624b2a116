"""Models with If, Loop and TensorIterator, for both packages: `build(name, ov, ops)`."""

from __future__ import annotations

import numpy as np

F32 = np.float32


def scalar(ops, value, dtype):
    return ops.constant(np.array(value, dtype))


def counting_loop(ov, ops, trips=4, open_dim=False):
    """Sliced input, carried sum, counter, last and concatenated outputs."""
    x = ops.parameter(ov.PartialShape([-1, 3]) if open_dim else [4, 3], F32, name="x")
    row, total, i = (ops.parameter(s, t) for s, t in (([1, 3], F32), ([1, 3], F32), ([], np.int64)))
    s = ops.add(ops.add(row, total), ops.convert(i, F32))
    body = ov.Model([scalar(ops, True, bool), s], [i, row, total])
    count = ops.parameter([], np.int64, name="n") if trips is None else scalar(ops, trips, np.int64)
    node = ops.loop(count.output(0), scalar(ops, True, bool).output(0))
    node.set_function(body)
    node.set_special_body_ports([0, 0])
    node.set_sliced_input(row, x.output(0), 0, 1, 1, -1, 0)
    node.set_merged_input(total, scalar(ops, np.zeros((1, 3)), F32).output(0), s.output(0))
    outs = [node.get_iter_value(s.output(0), -1), node.get_concatenated_slices(s.output(0), 0, 1, 1, -1, 0)]
    return ov.Model(outs, [x, count] if trips is None else [x])


def early_exit(ov, ops):
    """The body's condition ends the loop: doubled until the sum is over a limit that is an input."""
    x, limit = ops.parameter([1, 5], F32, name="x"), ops.parameter([], F32, name="limit")
    v, top = ops.parameter([1, 5], F32), ops.parameter([], F32)
    twice = ops.multiply(v, scalar(ops, 2, F32))
    total = ops.reduce_sum(ops.abs(twice), scalar(ops, [0, 1], np.int64), False)
    more = ops.less(total, top)
    body = ov.Model([more, twice], [v, top])
    node = ops.loop(scalar(ops, 50, np.int64).output(0), scalar(ops, True, bool).output(0))
    node.set_function(body)
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), twice.output(0))
    node.set_invariant_input(top, limit.output(0))
    outs = [
        node.get_iter_value(twice.output(0), -1),
        node.get_concatenated_slices(twice.output(0), 0, 1, 1, -1, 0),
    ]
    return ov.Model(outs, [x, limit])


def reverse_iterator(ov, ops, open_dim=False):
    """A TensorIterator from the end to the beginning, parts of two."""
    x = ops.parameter(ov.PartialShape([3, -1, 2]) if open_dim else [3, 6, 2], F32, name="x")
    k = ops.parameter([3, 1, 2], F32, name="k")
    row, state, factor = (ops.parameter(s, F32) for s in ([3, 2, 2], [3, 2, 2], [3, 1, 2]))
    s = ops.tanh(ops.add(ops.multiply(row, factor), state))
    node = ops.tensor_iterator()
    node.set_body(ov.Model([s], [row, state, factor]))
    node.set_sliced_input(row, x.output(0), -1, -2, 2, 0, 1)
    node.set_merged_input(state, scalar(ops, np.zeros((3, 2, 2)), F32).output(0), s.output(0))
    node.set_invariant_input(factor, k.output(0))
    outs = [
        node.get_iter_value(s.output(0), -1),
        node.get_concatenated_slices(s.output(0), -1, -2, 2, 0, 1),
        node.get_concatenated_slices(s.output(0), 0, 2, 2, -1, 1),
    ]
    return ov.Model(outs, [x, k])


def branches(ov, ops, same=True):
    """If whose branches differ in shape unless `same`."""
    c, x = ops.parameter([], bool, name="c"), ops.parameter([2, 3], F32, name="x")
    a, b = ops.parameter([2, 3], F32), ops.parameter([2, 3], F32)
    r1 = ops.result(ops.multiply(a, scalar(ops, 3, F32)))
    r2 = ops.result(ops.relu(b) if same else ops.concat([b, b], 0))
    node = ops.if_op(c.output(0))
    node.set_then_body(ov.Model([r1], [a]))
    node.set_else_body(ov.Model([r2], [b]))
    node.set_input(x.output(0), a, b)
    out = node.set_output(r1, r2)
    return ov.Model([ops.add(out, scalar(ops, 1, F32))], [c, x])


def growing(ov, ops):
    """A carried value that gets longer in every iteration."""
    x = ops.parameter(ov.PartialShape([-1, 2]), F32, name="x")
    n = ops.parameter([], np.int64, name="n")
    v = ops.parameter(ov.PartialShape([-1, 2]), F32)
    longer = ops.concat([v, ops.multiply(v, scalar(ops, 0.5, F32))], 0)
    node = ops.loop(n.output(0), scalar(ops, True, bool).output(0))
    node.set_function(ov.Model([scalar(ops, True, bool), longer], [v]))
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), longer.output(0))
    return ov.Model([node.get_iter_value(longer.output(0), -1)], [x, n])


def nested(ov, ops):
    """A loop over rows, in it an If by the counter, in that a TensorIterator over columns."""
    x = ops.parameter([4, 3], F32, name="x")
    i, row, total = (ops.parameter(s, t) for s, t in (([], np.int64), ([1, 3], F32), ([1, 3], F32)))
    s = ops.add(row, total)
    odd = ops.less(ops.mod(i, scalar(ops, 2, np.int64)), scalar(ops, 1, np.int64))
    a, b = ops.parameter([1, 3], F32), ops.parameter([1, 3], F32)
    col, run = ops.parameter([1, 1], F32), ops.parameter([1, 1], F32)
    t = ops.add(col, run)
    inner = ops.tensor_iterator()
    inner.set_body(ov.Model([t], [col, run]))
    inner.set_sliced_input(col, a.output(0), 0, 1, 1, -1, 1)
    inner.set_merged_input(run, scalar(ops, [[0]], F32).output(0), t.output(0))
    r1 = ops.result(inner.get_concatenated_slices(t.output(0), 0, 1, 1, -1, 1))
    r2 = ops.result(ops.sigmoid(b))
    choice = ops.if_op(odd.output(0))
    choice.set_then_body(ov.Model([r1], [a]))
    choice.set_else_body(ov.Model([r2], [b]))
    choice.set_input(s.output(0), a, b)
    new = ops.result(choice.set_output(r1, r2))
    going = ops.result(scalar(ops, True, bool))
    node = ops.loop(scalar(ops, 4, np.int64).output(0), scalar(ops, True, bool).output(0))
    node.set_function(ov.Model([going, new], [i, row, total]))
    node.set_special_body_ports([0, 0])
    node.set_sliced_input(row, x.output(0), 0, 1, 1, -1, 0)
    made = new.input_value(0)
    node.set_merged_input(total, scalar(ops, np.zeros((1, 3)), F32).output(0), made)
    outs = [node.get_iter_value(made, -1), node.get_concatenated_slices(made, 0, 1, 1, -1, 0)]
    return ov.Model(outs, [x])


#: name -> (builder, inputs)
def retyped_rounds(ov, ops, begins, again):
    """What the body makes is of another element type than what goes round begins with."""
    x, trips = ops.parameter([1, 2], begins, name="x"), ops.parameter([], np.int64, name="trips")
    v = ops.parameter([1, 2], begins)
    total = ops.add(ops.convert(v, "f32"), scalar(ops, 2, F32))
    narrowed = ops.convert(total, again)
    node = ops.loop(trips.output(0), scalar(ops, True, bool).output(0))
    node.set_function(ov.Model([scalar(ops, True, bool), narrowed, total], [v]))
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), narrowed.output(0))
    outs = [
        node.get_iter_value(narrowed.output(0), -1),
        node.get_concatenated_slices(total.output(0), 0, 1, 1, -1, 0),
    ]
    return ov.Model(outs, [x, trips])


CASES = {
    "counting": (counting_loop, [[(4, 3)]]),
    "counting_open": (lambda ov, ops: counting_loop(ov, ops, 3, True), [[(4, 3)], [(3, 3)]]),
    "trips_given": (lambda ov, ops: counting_loop(ov, ops, None), [[(4, 3), np.int64(n)] for n in (1, 4, 2)]),
    "early_exit": (early_exit, [[(1, 5), F32(100)], [(1, 5), F32(0)], [(1, 5), F32(1e9)]]),
    "reverse": (reverse_iterator, [[(3, 6, 2), (3, 1, 2)]]),
    "reverse_open": (
        lambda ov, ops: reverse_iterator(ov, ops, True),
        [[(3, 4, 2), (3, 1, 2)], [(3, 8, 2), (3, 1, 2)]],
    ),
    "branches": (branches, [[np.array(True), (2, 3)], [np.array(False), (2, 3)]]),
    "branches_differ": (
        lambda ov, ops: branches(ov, ops, False),
        [[np.array(True), (2, 3)], [np.array(False), (2, 3)]],
    ),
    "growing": (growing, [[(3, 2), np.int64(n)] for n in (1, 3, 0)]),
    "nested": (nested, [[(4, 3)]]),
    **{
        f"{begins.__name__}_then_{again}": (
            lambda ov, ops, begins=begins, again=again: retyped_rounds(ov, ops, begins, again),
            [[np.array([[3, 100]], begins), np.int64(n)] for n in (1, 4)],
        )
        for begins, again in ((np.int64, "i32"), (np.int32, "i64"), (F32, "f16"))
    },
}


def arrays(row, seed):
    """Inputs: shapes are filled with random numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(v).astype(F32) if isinstance(v, tuple) else v for v in row]
