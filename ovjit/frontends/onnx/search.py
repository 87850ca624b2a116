"""GreedySearch and BeamSearch of com.microsoft: a decoder that is run until it has said all, as a Loop.

Numbers in shapes: batch, beams (1 of a greedy search), rows = batch * beams, length of what has been said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.frontends.onnx.attention import ms, numbers
from ovjit.frontends.onnx.control import circulated
from ovjit.frontends.onnx.node import OnnxNode
from ovjit.graph.shapes import is_static

if TYPE_CHECKING:
    from ovjit.frontends.onnx.reader import Scope

#: The score of a token that may not come: the lowest that an f32 has.
_NEVER = float(np.finfo(np.float32).min)
#: What all beams of an item but the first begin with, so that not all go the same way.
_LATER = -1e9

#: The search's own part of a step: (scores [rows, vocabulary], state, scope) -> (tokens that come next
#: [rows, 1], the row that each row goes on from or None, changes of the state, whether to go on)
_Choice = Callable[
    [Output, dict[str, Output], "Scope"], tuple[Output, "Output | None", dict[str, Output], Output]
]


class _Settings(NamedTuple):
    """What a search is told, by its inputs and attributes."""

    ids: Output  # [batch, length] i32
    longest: Output  # i64 [1]
    beams: int
    pad: int
    end: int
    shortest: Output | None
    repetition: Output | None
    allowed: Output | None  # [vocabulary]
    allowed_first: Output | None  # [batch, vocabulary]
    mask: Output | None  # [batch, length]
    ngram: int


@ms("GreedySearch")
def greedy_search(n: OnnxNode) -> Any:
    """(tokens, most, fewest, penalty of repeated ones, allowed tokens, those allowed first, mask of the
    prompt): the likeliest token at each step. What is behind the end is filled up."""
    known = _settings(n, 1, [1, 2, 3, 4, 5, 6])

    def choose(scores: Output, state: dict[str, Output], _scope: Scope) -> Any:
        best = n.all("TopK", scores, 1, axis=1, mode="max", sort="value", index_element_type="i32",
                     stable=True, opset=11)[1]  # fmt: skip
        ended = n("LogicalOr", state["ended"], n("Equal", best, n.like(best, known.end)))
        more = n("LogicalNot", n("ReduceLogicalAnd", ended, [0, 1], keep_dims=False))
        return n("Select", ended, n.like(best, known.pad), best), None, {"ended": ended}, more

    batch = n.dim_of(known.ids, 0)
    state = {"ended": _filled(n, n.const(False), batch, n.const(np.array([1])))}
    return _fitted(n, _searched(n, known, choose, state)["said"], known.longest, 1, known.pad)


@ms("BeamSearch")
def beam_search(n: OnnxNode) -> Any:
    """(tokens, most, fewest, beams, answers, penalty of length, penalty of repeated tokens, allowed tokens,
    those allowed first, mask of the prompt) -> (answers, their scores, scores of all tokens)

    The likeliest `beams` ways of going on are kept. Those that end are kept beside, the best ones of them; an
    item is done when none that goes on can become better than these.
    """
    beams = n.known_ints(3, "the number of beams")[0]
    answers = n.known_ints(4, "the number of answers")[0]
    if not 0 < answers <= beams:
        raise ModelError(f"{answers} answers of {beams} beams")
    n.limited(beams, "beams", 1024)
    if n.has(10) or n.has(11):
        raise UnsupportedError("tokens that the decoder begins with, or a logits processor")
    known = _settings(n, beams, [1, 2, 6, 7, 8, 9])
    penalty = _number(n, 5, "f32")
    penalty = n.const(1.0) if penalty is None else n.scalar(penalty)
    batch = n.dim_of(known.ids, 0)
    early = bool(n.attr("early_stopping", 0))
    per_item = n.const(np.array([beams]))

    def rated(sums: Output, said: Output, scope: Scope) -> Output:
        """Sums by their length; never -inf, which stands for an answer that is not there."""
        length = n.convert(n.dim_of(said, 1), "f32")
        return n("Maximum", n("Divide", sums, n("Power", length, _inside(n, penalty, scope))), _NEVER)

    def kept(state: dict[str, Output], scores: Output, said: Output, longest: Output) -> dict[str, Output]:
        """The best of what has been kept and of new answers [batch, beams], said [batch, beams, length]"""
        new = _fitted(n, said, longest, 2, known.pad)
        best = n.all("TopK", n("Concat", state["kept_scores"], scores, axis=1), beams, axis=1, mode="max",
                     sort="value", index_element_type="i32", stable=True, opset=11)  # fmt: skip
        every = n("Concat", state["kept"], new, axis=1)
        return {"kept_scores": best[0], "kept": n("Gather", every, best[1], 1, batch_dims=1, opset=8)}

    def choose(scores: Output, state: dict[str, Output], scope: Scope) -> Any:
        count = n.dim_of(scores, 1)
        sums = n("Add", scores, state["sums"])
        items = _inside(n, batch, scope)
        flat = n.reshape(sums, n.concat([items, n("Multiply", count, per_item)], 0))
        best, at = n.all("TopK", flat, 2 * beams, axis=1, mode="max", sort="value",
                         index_element_type="i64", stable=True, opset=11)  # fmt: skip
        token, beam = n("FloorMod", at, count), n("Divide", at, count)
        row = n("Add", beam, n("Multiply", n.unsqueeze(numbers(n, items), [1]), beams))  # [batch, 2 beams]
        ends = n("Equal", token, known.end if known.end >= 0 else -1)
        done = state["done"]  # [batch, 1]
        # what ends among the first is kept beside
        early_ends = n("LogicalAnd", n.slice(ends, 1, 0, beams), n("LogicalNot", done))
        said = n("Gather", state["said"], n.slice(row, 1, 0, beams), 0, opset=8)
        worth = n("Select", early_ends, rated(n.slice(best, 1, 0, beams), state["said"], scope), -np.inf)
        beside = kept(state, worth, said, _inside(n, known.longest, scope))
        # the first that do not end go on
        order = n("Add", n.const(np.arange(2 * beams)), n("Multiply", n.convert(ends, "i64"), 2 * beams))
        chosen = n.all("TopK", order, beams, axis=1, mode="min", sort="value", index_element_type="i32",
                       opset=11)[1]  # fmt: skip
        best_on, token, row = (n("Gather", v, chosen, 1, batch_dims=1, opset=8) for v in (best, token, row))
        best_on = n("Select", done, 0.0, best_on)
        token = n("Select", done, known.pad, token)
        row = n("Select", done, 0, row)
        worst = n.slice(beside["kept_scores"], 1, beams - 1)
        enough = n("Greater", worst, -np.inf)
        if not early:
            could = rated(_highest(n, best, items, beams), state["said"], scope)
            enough = n("LogicalAnd", enough, n("GreaterEqual", worst, could))
        done = n("LogicalOr", done, enough)
        more = n("LogicalNot", n("ReduceLogicalAnd", done, [0, 1], keep_dims=False))
        changes = {**beside, "done": done, "sums": n.reshape(best_on, [-1, 1]), "scores": sums}
        return n.convert(n.reshape(token, [-1, 1]), "i32"), n.reshape(row, [-1]), changes, more

    first = n.const(np.array([[0.0]] + [[_LATER]] * (beams - 1), np.float32))
    state = {
        "sums": n.reshape(_filled(n, first, batch, n.const(np.array([beams, 1]))), [-1, 1]),
        "done": _filled(n, n.const(False), batch, n.const(np.array([1]))),
        "kept_scores": _filled(n, n.const(np.float32(-np.inf)), batch, per_item),
        "kept": _filled(n, n.const(known.pad, "i32"), batch, per_item, known.longest),
    }
    wanted = ("scores",) if n.wants(2) else ()
    out = _searched(n, known, choose, state, wanted)
    split = n.concat([batch, per_item, n.const(np.array([-1]))], 0)
    open_ends = rated(n.reshape(out["sums"], n.concat([batch, per_item], 0)), out["said"], n.scope)
    open_ends = n("Select", out["done"], -np.inf, open_ends)
    best = kept(out, open_ends, n.reshape(out["said"], split), known.longest)
    outputs = [n.slice(best[name], 1, 0, answers) for name in ("kept", "kept_scores")]
    if wanted:
        trips = n("Subtract", known.longest, n.dim_of(known.ids, 1))
        every = _fitted(n, out["scores"], trips, 0, 0.0)  # [trips, rows, vocabulary]
        shape = n.concat([trips, batch, per_item, n.dim_of(every, 2)], 0)
        outputs.append(n.reshape(every, shape))
    return outputs


def _settings(n: OnnxNode, beams: int, places: list[int]) -> _Settings:
    """`places` are the inputs with the most and the fewest tokens, the penalty of repeated ones, those
    allowed, those allowed first and the prompt's mask."""
    if n.attr("model_type", 0):
        raise UnsupportedError("a search by an encoder and a decoder")
    longest = _number(n, places[0], "i64")
    if longest is None:
        raise ModelError("the most tokens are missing")
    shortest, repetition = _number(n, places[1], "i64"), _number(n, places[2], "f32")
    ids = n.convert(n[0], "i32")
    if n.rank(ids) != 2:
        raise ModelError(f"tokens of {n.rank(ids)} dimensions")
    length, most = (n.shape(ids) or (None, None))[1], n.value(longest)
    if most is not None and isinstance(length, int) and int(most.reshape(())) <= length:
        raise ModelError(f"{length} tokens, and {int(most.reshape(()))} are the most")
    masks = [n[i] if n.has(i) else None for i in places[3:]]
    return _Settings(ids, longest, beams, n.required("pad_token_id"), n.required("eos_token_id"), shortest,
                     repetition, masks[0], masks[1], masks[2], n.attr("no_repeat_ngram_size", 0))  # fmt: skip


def _number(n: OnnxNode, index: int, kind: str) -> Output | None:
    """An input that is one number, as [1]; None where it is left out."""
    return n.reshape(n.convert(n[index], kind), [1]) if n.has(index) else None


def _filled(n: OnnxNode, value: Output, *shape: Output) -> Output:
    return n("Broadcast", value, n.concat(list(shape), 0), mode="numpy", opset=3)


def _fitted(n: OnnxNode, x: Output, size: Output, axis: int, value: float) -> Output:
    """`x` made as long as `size` along an axis with what `value` says."""
    dims = [n.dim_of(x, i) for i in range(n.rank(x))]
    dims[axis] = n("Subtract", size, dims[axis])
    return n("Concat", x, _filled(n, n.like(x, value), *dims), axis=axis)


def _highest(n: OnnxNode, best: Output, items: Output, beams: int) -> Output:
    """The sum that ONNX Runtime takes for an item's highest: of item i, the highest of the 2 * beams that
    begin at i * beams in the candidates of all items. [batch, 1]"""
    begins = n("Multiply", n.unsqueeze(numbers(n, items), [1]), beams)
    places = n("Add", begins, n.const(np.arange(2 * beams)))
    return n("ReduceMax", n("Gather", n.reshape(best, [-1]), places, 0, opset=8), [1], keep_dims=True)


# -- steps ---------------------------------------------------------------------------------------------------


def _searched(
    n: OnnxNode,
    known: _Settings,
    choose: _Choice,
    state: dict[str, Output],
    collected: Sequence[str] = (),
) -> dict[str, Output]:
    """The state behind the last step; `said` is what has been said, [rows, length]."""
    decoder = n.required("decoder")
    kinds = [n.reader.tensor_type(info.type) for info in decoder.input]
    if len(kinds) != len(decoder.output) + 2 or len(kinds) < 4:
        raise UnsupportedError(
            f"a decoder with {len(kinds)} inputs and {len(decoder.output)} outputs; right are tokens, "
            "positions, a mask and the past, and logits and the present"
        )
    state = {**state, **_prompt(n, known)}
    rows = n.dim_of(state["said"], 0)
    for i, (kind, shape) in enumerate(kinds[3:]):
        fixed = None if shape is None or len(shape) != 5 else (shape[0], shape[2], shape[4])
        if not is_static(fixed):
            raise UnsupportedError(f"a decoder whose past has the shape {shape}")
        both, heads, size = (n.const(np.array([d])) for d in fixed)
        state[f"past_{i}"] = _filled(n, n.const(0, kind), both, rows, heads, n.const(np.array([0])), size)

    def step(graph: Any, state: dict[str, Output], first: Output, scope: Scope) -> Any:
        given = [state["ids"], state["position"], state["mask"]]
        given += [state[f"past_{i}"] for i in range(len(kinds) - 3)]
        given = [n.convert(value, kind) for value, (kind, _) in zip(given, kinds, strict=True)]
        names = [info.name for info in graph.input]
        if len(names) != len(given) or len(graph.output) != len(decoder.output):
            raise UnsupportedError("a decoder of the first step with other inputs or outputs than the other")
        inputs = dict(zip(names, given, strict=True))
        (logits, *present), _ = n.reader.subgraph(graph, scope, inputs, captures=False)
        scores = n.convert(n.squeeze(n.slice(logits, 1, -1), [1]), "f32")
        if n.op_type == "BeamSearch":
            scores = n("LogSoftmax", scores, axis=1)
        scores = _ruled(n, known, scores, state["said"], first, scope)
        token, row, changes, more = choose(scores, state, scope)
        said = state["said"]
        if row is not None:
            said = n("Gather", said, row, 0, opset=8)
            if known.beams > 1:
                present = [n("Gather", value, row, 1, opset=8) for value in present]
        ones = n("Broadcast", n.const(1, "i32"), n.shape_of(token), mode="numpy", opset=3)
        following = {
            **changes,
            "ids": token,
            "position": state["next_position"],
            "next_position": n("Add", state["next_position"], ones),
            "mask": n("Concat", state["mask"], ones, axis=1),
            "said": n("Concat", said, token, axis=1),
            **{f"past_{i}": value for i, value in enumerate(present)},
        }
        return following, more

    trips = n.squeeze(n("Subtract", known.longest, n.dim_of(known.ids, 1)), [0])
    graph = n.attr("init_decoder")
    if graph is None:

        def once(state: dict[str, Output], trip: Output, scope: Scope) -> Any:
            return step(decoder, state, n("Equal", trip, 0), scope)

        return circulated(n, once, trips, n.const(True), state, collected)
    following, more = step(graph, state, n.const(True), n.scope)
    begun = {name: following[name] for name in state}

    def again(state: dict[str, Output], _trip: Output, scope: Scope) -> Any:
        return step(decoder, state, n.const(False), scope)

    out = circulated(n, again, n("Subtract", trips, 1), more, begun, collected)
    for name in collected:
        out[name] = n("Concat", n.unsqueeze(following[name], [0]), out[name], axis=0)
    return out


def _prompt(n: OnnxNode, known: _Settings) -> dict[str, Output]:
    """What the first step reads. Positions count the tokens that are no filling."""
    ids = known.ids
    real = n.convert(n("NotEqual", ids, n.like(ids, known.pad)), "i32")
    counted = n("CumSum", real, 1)
    state = {
        "ids": ids,
        "position": n("Multiply", n("Subtract", counted, n.like(real, 1)), real),
        "next_position": n("ReduceSum", real, [1], keep_dims=True),
        "mask": real if known.mask is None else n.convert(known.mask, "i32"),
    }
    if known.beams > 1:
        state = {name: _for_beams(n, value, known.beams) for name, value in state.items()}
    return {**state, "said": state["ids"]}


def _for_beams(n: OnnxNode, x: Output, beams: int) -> Output:
    """[batch, ...] -> [batch * beams, ...]"""
    items, width = n.dim_of(x, 0), n.dim_of(x, 1)
    shape = n.concat([items, n.const(np.array([beams])), width], 0)
    return n("Reshape", n("Broadcast", n.unsqueeze(x, [1]), shape, mode="numpy", opset=3),
             n.concat([n.const(np.array([-1])), width], 0), special_zero=False)  # fmt: skip


def _inside(n: OnnxNode, value: Output, scope: Scope) -> Output:
    """A value of the graph that the search stands in, in the graph of a step."""
    return value if scope is n.scope else scope.capture(value)


def _ruled(
    n: OnnxNode, known: _Settings, scores: Output, said: Output, first: Output, scope: Scope
) -> Output:
    """The scores of the next token [rows, vocabulary] after what the settings make less likely or forbid, in
    the order in which ONNX Runtime does so."""
    shape = n.shape_of(scores)
    nothing = n("Broadcast", n.const(0, "i32"), shape, mode="numpy", opset=3)

    def marked(tokens: Output, which: Output) -> Output:
        """[rows, vocabulary]: whether a token is one of `tokens` for which `which` is true"""
        out = n("ScatterElementsUpdate", nothing, tokens, n.convert(which, "i32"), 1, reduction="max",
                use_init_val=True, opset=12)  # fmt: skip
        return n("Greater", out, n.like(out, 0))

    if known.repetition is not None:
        by = _inside(n, known.repetition, scope)
        seen = marked(said, n("Equal", said, said))
        less = n("Select", n("Less", scores, 0.0), n("Multiply", scores, by), n("Divide", scores, by))
        scores = n("Select", seen, less, scores)
    if known.ngram > 0:
        n.limited(known.ngram, "tokens that may not come again", 256)
        before = known.ngram - 1
        same = n("Equal", n.slice(said, 1, before), n.slice(said, 1, before))
        for i in range(before):
            end = n.slice(said, 1, i - before, i - before + 1 or None)
            same = n("LogicalAnd", same, n("Equal", n.slice(said, 1, i, i - before), end))
        scores = n("Select", marked(n.slice(said, 1, before), same), _NEVER, scores)
    if known.allowed is not None:
        allowed = _inside(n, known.allowed, scope)
        scores = n("Select", n("Equal", allowed, n.like(allowed, 0)), _NEVER, scores)
    if known.allowed_first is not None:
        allowed = _inside(n, _for_beams(n, known.allowed_first, known.beams), scope)
        scores = n("Select", n("LogicalAnd", first, n("Equal", allowed, n.like(allowed, 0))), _NEVER, scores)
    if known.shortest is not None:
        early = n("Less", n.dim_of(said, 1), _inside(n, known.shortest, scope))
        end = n("Equal", numbers(n, n.dim_of(scores, 1)), known.end)
        scores = n("Select", n("LogicalAnd", early, end), _NEVER, scores)
    return scores
