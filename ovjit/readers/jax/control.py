"""Loops and conditions. What a body needs is among the equation's operands: first what does not change."""

from __future__ import annotations

from ovjit.build.bodies import body_of, if_of, kinds_of, loop_of, over_slices, parameters
from ovjit.readers.jax.multi_tensor import widths
from ovjit.readers.jax.reader import type_of
from ovjit.readers.jax.rule_language import *
from ovjit.readers.jax.symbolic import number_or_dim


def _counts(n: JaxNode, *names: str) -> list[int]:
    """Reads numbers of operands from parameters. ModelError if they exceed the operands."""
    counts = [int(n.params[name]) for name in names]
    if min(counts) < 0 or sum(counts) > len(n.inputs):
        raise ModelError(f"{' and '.join(names)} are {counts}, but {len(n.inputs)} operands are given")
    return counts


def _select_rows(n: JaxNode, truth: Output, new: Output, old: Output) -> Output:
    """`new` in the rows where a condition holds, whose dimensions are the first ones."""
    shape = n.dims(truth)
    return n("Select", n.reshape_to(truth, [*shape, *[1] * (n.rank(new) - len(shape))]), new, old)


@primitive("while")
def while_(n: JaxNode) -> Any:
    """while_loop -> Loop. Operands: constants of the condition, constants of the body, the carried values."""
    cond_consts, body_consts = _counts(n, "cond_nconsts", "body_nconsts")
    end = cond_consts + body_consts
    for_cond, for_body, carried = n.inputs[:cond_consts], n.inputs[cond_consts:end], n.inputs[end:]
    cond, body = n.params["cond_jaxpr"], n.params["body_jaxpr"]
    first = n.any_of(n.run(cond, [*for_cond, *carried])[0])
    nodes, fixed = parameters(kinds_of([*for_cond, *for_body]))
    turning, values = parameters(kinds_of(carried))
    result = n.run(body, [*fixed[cond_consts:], *values])
    going = cond.jaxpr.outvars[0].aval.shape
    if going:  # a loop for each row of a batch, of which some have ended
        on = n.run(cond, [*fixed[:cond_consts], *values])[0]
        result = [_select_rows(n, on, new, old) for new, old in zip(result, values, strict=True)]
    more = n.any_of(n.run(cond, [*fixed[:cond_consts], *result])[0])
    model = body_of(n, [*result, more], [*turning, *nodes], n.base)
    return loop_of(model, n.const(-1, "i32"), first, carried, [*for_cond, *for_body], n.base, leading=0)


def _no_rows(n: JaxNode) -> list[Output]:
    """Stacked outputs of a scan of zero iterations: empty tensors."""
    stacked = n.eqn.outvars[int(n.eqn.params["num_carry"]) :]
    kinds = [(type_of(var.aval), width) for var, width in zip(stacked, widths(stacked), strict=True)]
    return [n.const(np.zeros(kind.shape), kind.dtype) for kind, width in kinds for _ in range(width)]


@primitive("scan")
def scan(n: JaxNode) -> Any:
    """scan -> TensorIterator or Loop. Operands: constants of the body, carried values, values to scan.
    Results: the last carried values, and the stacked outputs."""
    consts, count = _counts(n, "num_consts", "num_carry")
    fixed, carried, pieces = n.inputs[:consts], n.inputs[consts : consts + count], n.inputs[consts + count :]
    length = number_or_dim(n.params["length"])
    if is_number(length) and not length:
        return [*carried, *_no_rows(n)]
    if not pieces:  # a row counts each step
        pieces = [n.broadcast(n.const(0, "i32"), n.lengths([length]))]
    rows = len(n.inputs) - consts - count

    def once(state: list[Output], row: list[Output], values: list[Output]) -> list[Output]:
        return n.run(n.params["jaxpr"], [*values, *state, *row[:rows]])

    return over_slices(n, once, carried, pieces, fixed, n.base, backwards=n.params["reverse"])


@primitive("cond")
def cond(n: JaxNode) -> Any:
    """cond -> If: one of several functions by an index, which is clamped to their number."""
    which, operands, branches = n[0], n.inputs[1:], list(n.params["branches"])
    constant = n.value(which)
    if constant is not None:
        return n.run(branches[min(max(int(constant.reshape(())), 0), len(branches) - 1)], operands)
    return _choose(n, which, operands, branches)


def _choose(n: JaxNode, which: Output, operands: Sequence[Output], branches: list[Any]) -> list[Output]:
    """The first branch if the index is at most 0, else one of the others by the index - 1."""
    models = []
    for first in (False, True):
        nodes, (index, *values) = parameters(kinds_of([which, *operands]))
        if first or len(branches) == 2:
            result = n.run(branches[0 if first else 1], values)
        else:
            result = _choose(n, n("Subtract", index, n.like(index, 1)), values, branches[1:])
        models.append(body_of(n, result, nodes, n.base))
    return if_of(n("Greater", which, n.like(which, 0)), [[which, *operands]] * 2, models, n.base)


@primitive("custom_linear_solve")
def custom_linear_solve(n: JaxNode) -> Any:
    """Solve a linear system by the jaxpr of its `solve` function. Its constants come after those of two other
    functions."""
    lengths = n.params["const_lengths"]
    begin = int(lengths.matvec) + int(lengths.vecmat)
    end = begin + int(lengths.solve)
    right = n.inputs[end + int(lengths.transpose_solve) :]
    return n.run(n.params["jaxprs"].solve, [*n.inputs[begin:end], *right])
