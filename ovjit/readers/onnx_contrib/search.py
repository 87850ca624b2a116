"""The searches of com.microsoft: a decoder that is run until it has said all, as a Loop.

Numbers in shapes: batch, beams (1 of a greedy search), rows = batch * beams, length of what has been said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.build import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx.control import loop_while
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx_contrib.attention import ms
from ovjit.readers.onnx_contrib.generation import (
    GPT,
    T5,
    WHISPER,
    Form,
    Run,
    decoder_only,
    encoder_and_decoder,
    fill,
    for_beams,
    inside,
)
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope

#: The score of a token that may not come: the lowest that an f32 has.
_NEVER = float(np.finfo(np.float32).min)
#: The searches that keep one way of going on.
_OF_ONE_WAY = ("GreedySearch", "Sampling")
#: The generator of ONNX Runtime's random numbers: state * multiplier modulo this.
_MODULUS, _MULTIPLIER = (1 << 31) - 1, 16807
#: What all beams of an item but the first begin with, so that not all go the same way.
_LATER = -1e9

#: The search's own part of a step: (scores [rows, vocabulary], state, scope) -> (tokens that come next
#: [rows, 1], the row that each row goes on from or None, changes of the state, whether to go on)
_Choice = Callable[
    [Output, dict[str, Output], "Scope"], tuple[Output, "Output | None", dict[str, Output], Output]
]


class _Settings(NamedTuple):
    """Settings of a search, from its inputs and attributes."""

    form: Form
    begun: Output  # [batch, length] i32: the tokens before the first step
    longest: Output  # i64 [1]
    beams: int
    pad: int
    end: int
    shortest: Output | None
    repetition: Output | None
    allowed: Output | None  # [vocabulary]
    allowed_first: Output | None  # [batch, vocabulary]
    ngram: int
    temperature: Output | None = None
    penalised: Output | None = None  # [batch, vocabulary]: what is taken off
    timestamps: bool = False  # Whisper's rules for them hold


@ms("GreedySearch")
def greedy_search(n: OnnxNode) -> Any:
    """(tokens, most, fewest, penalty of repeated ones, allowed tokens, those allowed first, mask of the
    prompt): the likeliest token at each step. What is behind the end is filled up."""
    settings = _settings(n, 1, [1, 2, 3, 4, 5, 6])

    def choose(scores: Output, state: dict[str, Output], _scope: Scope) -> Any:
        best = n.top_k(scores, 1, 1, index="i32")[1]
        return _said_until_the_end(n, settings, best, state, {})

    batch = n.dim_of(settings.begun, 0)
    state = {"ended": fill(n, n.const(False), batch, n.const(np.array([1])))}
    return _extend(n, _search(n, settings, choose, state)["said"], settings.longest, 1, settings.pad)


def _said_until_the_end(
    n: OnnxNode, settings: _Settings, token: Output, state: dict[str, Output], changes: dict[str, Output]
) -> Any:
    """Result of a step with one beam: tokens [batch, 1], which are padding after an item's end."""
    ended = n("LogicalOr", state["ended"], n("Equal", token, n.like(token, settings.end)))
    more = n("LogicalNot", n("ReduceLogicalAnd", ended, [0, 1], keep_dims=False))
    return n("Select", ended, n.like(token, settings.pad), token), None, {**changes, "ended": ended}, more


@ms("Sampling")
def sampling(n: OnnxNode) -> Any:
    """(tokens, most, fewest, penalty of repeated ones, allowed tokens, those allowed first, mask of the
    prompt, which tokens are penalised, seed): one of the likely tokens at each step, by the numbers of ONNX
    Runtime's generator for the seed"""
    if n.wants(1):
        raise UnsupportedError("the filtered scores of tokens as an output are not supported")
    settings = _settings(n, 1, [1, 2, 3, 4, 5, 6])
    if (temperature := n.attr("temperature", 1.0)) != 1:
        settings = settings._replace(temperature=n.const(float(temperature)))
    if n.has(7) and (penalty := n.attr("presence_penalty", 0.0)):
        settings = settings._replace(penalised=n("Multiply", n.convert(n[7], "f32"), float(penalty)))
    seed = _number(n, 8, "i64")
    if seed is None:
        raise UnsupportedError(
            "sampling without a seed is not supported: its results would not be reproducible"
        )
    seed = n("FloorMod", seed, _MODULUS)
    batch = n.dim_of(settings.begun, 0)

    def choose(scores: Output, state: dict[str, Output], scope: Scope) -> Any:
        scores = _likely(n, scores)
        numbers_of_step, random_state = _draw_numbers(n, state["random"], inside(n, batch, scope))
        top = n("ReduceMax", scores, [1], keep_dims=True)
        weights = n("CumSum", n("Exp", n.convert(n("Subtract", scores, top), "f64")), 1)
        threshold = n("Multiply", numbers_of_step, n.slice(weights, 1, -1))
        is_below = n.convert(n("LessEqual", weights, threshold), "i32")
        token = n("ReduceSum", is_below, [1], keep_dims=True)
        return _said_until_the_end(n, settings, token, state, {"random": random_state})

    state = {
        "ended": fill(n, n.const(False), batch, n.const(np.array([1]))),
        "random": n("Select", n("Equal", seed, 0), 1, seed),
    }
    return _extend(n, _search(n, settings, choose, state)["said"], settings.longest, 1, settings.pad)


def _likely(n: OnnxNode, scores: Output) -> Output:
    """The scores [batch, vocabulary], those beyond `top_p` of the probability replaced by `filter_value`."""
    top, is_custom = float(n.attr("top_p", 0.0)), bool(n.attr("custom", 0))
    count = n.dim_of(scores, 1)
    ordered, at = n.top_k(scores, n.scalar(count), 1, "max" if is_custom else "min")
    shares = n("CumSum", n("Softmax", ordered, axis=1, opset=8), 1)
    rank = n.unsqueeze(n.upto(count), [0])
    if is_custom:  # what comes behind the place where the sum is enough
        over = n("Greater", shares, n.like(shares, top))
        before = n("Concat", n("Less", n.slice(over, 1, 0, 1), False), n.slice(over, 1, 0, -1), axis=1)
        drop = n("LogicalAnd", before, n("Greater", rank, 0))
    else:
        drop = n("LessEqual", shares, n.like(shares, 1 - np.float32(top)))
        least_kept = n.attr("min_tokens_to_keep", 0)
        drop = n("LogicalAnd", drop, n("LogicalOr", n("Less", rank, n("Subtract", count, least_kept)),
                                       n("Equal", rank, 0)))  # fmt: skip
    ordered = n("Select", drop, n.like(scores, float(n.attr("filter_value", -1e20))), ordered)
    return n("ScatterElementsUpdate", scores, at, ordered, 1, opset=3)


def _draw_numbers(n: OnnxNode, state: Output, count: Output) -> tuple[Output, Output]:
    """(`count` numbers of [0, 1) as [count, 1] f64, the generator's next state [1]): of the multiplicative
    generator whose numbers are state * 16807^k, two of which make one"""
    k = n("Add", n.upto(n("Multiply", count, 2)), 1)
    factor, by = n.const(np.array([1])), _MULTIPLIER
    for _ in range(17):
        odd = n("Equal", n("FloorMod", k, 2), 1)
        factor = n("Select", odd, n("FloorMod", n("Multiply", factor, by), _MODULUS), factor)
        k, by = n("Divide", k, 2), by * by % _MODULUS
    values = n("FloorMod", n("Multiply", factor, state), _MODULUS)
    low, high = n.split(n.convert(n.reshape(n("Subtract", values, 1), [-1, 2]), "f64"), 1, [1, 1])
    size = n.const(np.float64(_MODULUS - 1), "f64")
    both = n("Add", low, n("Multiply", high, size))
    return n("Divide", both, n("Multiply", size, size)), n.slice(values, 0, -1)


class _Beams(NamedTuple):
    """The likeliest `beams` ways of going on, and the best of those that have ended."""

    n: OnnxNode
    settings: _Settings
    batch: Output
    penalty: Output
    early: bool

    def rate(self, sums: Output, history: Output, scope: Scope) -> Output:
        """Divide sums by a power of their length. Never -inf, which stands for a missing answer."""
        n = self.n
        length = n.convert(n.dim_of(history, 1), "f32")
        return n("Maximum", n("Divide", sums, n("Power", length, inside(n, self.penalty, scope))), _NEVER)

    def merge_answers(
        self, state: dict[str, Output], scores: Output, history: Output, longest: Output
    ) -> dict[str, Output]:
        """The best of what has been kept and of new answers [batch, beams], said [batch, beams, length]"""
        n = self.n
        new = _extend(n, history, longest, 2, self.settings.pad)
        rate = n("Concat", state["kept_scores"], scores, axis=1)
        best = n.top_k(rate, self.settings.beams, 1, index="i32")
        every = n("Concat", state["kept"], new, axis=1)
        return {"kept_scores": best[0], "kept": n("Gather", every, best[1], 1, batch_dims=1, opset=8)}

    def choose(self, scores: Output, state: dict[str, Output], scope: Scope) -> Any:
        """The `_Choice` of a step."""
        n, beams = self.n, self.settings.beams
        count = n.dim_of(scores, 1)
        sums = n("Add", scores, state["sums"])
        items = inside(n, self.batch, scope)
        flat = n.reshape(sums, n.concat([items, n("Multiply", count, n.const(np.array([beams])))], 0))
        best, at = n.top_k(flat, 2 * beams, 1)
        token, beam = n("FloorMod", at, count), n("Divide", at, count)
        row = n("Add", beam, n("Multiply", n.unsqueeze(n.upto(items), [1]), beams))  # [batch, 2 beams]
        ends = n("Equal", token, self.settings.end if self.settings.end >= 0 else -1)
        done = state["done"]  # [batch, 1]
        # what ends among the first is kept beside
        early_ends = n("LogicalAnd", n.slice(ends, 1, 0, beams), n("LogicalNot", done))
        history = n("Gather", state["said"], n.slice(row, 1, 0, beams), 0, opset=8)
        worth = n("Select", early_ends, self.rate(n.slice(best, 1, 0, beams), state["said"], scope), -np.inf)
        beside = self.merge_answers(state, worth, history, inside(n, self.settings.longest, scope))
        # the first that do not end go on
        order = n("Add", n.const(np.arange(2 * beams)), n("Multiply", n.convert(ends, "i64"), 2 * beams))
        chosen = n.all("TopK", order, beams, axis=1, mode="min", sort="value", index_element_type="i32",
                       opset=11)[1]  # fmt: skip
        best_on, token, row = (n("Gather", v, chosen, 1, batch_dims=1, opset=8) for v in (best, token, row))
        best_on = n("Select", done, 0.0, best_on)
        token = n("Select", done, self.settings.pad, token)
        row = n("Select", done, 0, row)
        worst = n.slice(beside["kept_scores"], 1, beams - 1)
        enough = n("Greater", worst, -np.inf)
        if not self.early:
            could = self.rate(_highest(n, best, items, beams), state["said"], scope)
            enough = n("LogicalAnd", enough, n("GreaterEqual", worst, could))
        done = n("LogicalOr", done, enough)
        more = n("LogicalNot", n("ReduceLogicalAnd", done, [0, 1], keep_dims=False))
        changes = {**beside, "done": done, "sums": n.reshape(best_on, [-1, 1]), "scores": sums}
        return n.convert(n.reshape(token, [-1, 1]), "i32"), n.reshape(row, [-1]), changes, more


@ms("BeamSearch")
@ms("WhisperBeamSearch")
def beam_search(n: OnnxNode) -> Any:
    """(tokens, most, fewest, beams, answers, penalty of length, penalty of repeated tokens, allowed tokens,
    those allowed first, mask of the prompt) -> (answers, their scores, scores of all tokens)

    The likeliest `beams` ways of going on are kept. Those that end are kept beside, the best ones of them; an
    item is done when none that goes on can become better than these.
    """
    beams = n.known_ints(3, "the number of beams")[0]
    answers = n.known_ints(4, "the number of answers")[0]
    if not 0 < answers <= beams:
        raise ModelError(f"{answers} returned sequences exceed {beams} beams")
    n.check_count(beams, "beams", 1024)
    if n.wants(3) or n.wants(4):
        raise UnsupportedError(
            "products of queries and keys, or the no-speech probability, as outputs are not supported"
        )
    settings = _settings(n, beams, [1, 2, 6, 7, 8, 9], 2 if n.op_type == "WhisperBeamSearch" else 0)
    if n.has(14):
        settings = settings._replace(temperature=n.scalar(n.convert(n[14], "f32")))
    if n.has(11) and (processor := n.known_ints(11, "the logits processor")[0]):
        if processor != 1 or n.op_type != "WhisperBeamSearch":
            raise UnsupportedError(f"the logits processor {processor} of {n.op_type} is not supported")
        settings = settings._replace(timestamps=True)
    penalty = _number(n, 5, "f32")
    penalty = n.const(1.0) if penalty is None else n.scalar(penalty)
    batch = n.dim_of(settings.begun, 0)
    per_item = n.const(np.array([beams]))
    search = _Beams(n, settings, batch, penalty, bool(n.attr("early_stopping", 0)))
    first = n.const(np.array([[0.0]] + [[_LATER]] * (beams - 1), np.float32))
    state = {
        "sums": n.reshape(fill(n, first, batch, n.const(np.array([beams, 1]))), [-1, 1]),
        "done": fill(n, n.const(False), batch, n.const(np.array([1]))),
        "kept_scores": fill(n, n.const(np.float32(-np.inf)), batch, per_item),
        "kept": fill(n, n.const(settings.pad, "i32"), batch, per_item, settings.longest),
    }
    collected = ("scores",) if n.wants(2) else ()
    out = _search(n, settings, search.choose, state, collected)
    split = n.concat([batch, per_item, n.const(np.array([-1]))], 0)
    open_ends = search.rate(n.reshape(out["sums"], n.concat([batch, per_item], 0)), out["said"], n.scope)
    open_ends = n("Select", out["done"], -np.inf, open_ends)
    best = search.merge_answers(out, open_ends, n.reshape(out["said"], split), settings.longest)
    outputs = [n.slice(best[name], 1, 0, answers) for name in ("kept", "kept_scores")]
    if collected:
        trips = n("Subtract", settings.longest, n.dim_of(settings.begun, 1))
        every = _extend(n, out["scores"], trips, 0, 0.0)  # [iterations, rows, vocabulary]
        shape = n.concat([trips, batch, per_item, n.dim_of(every, 2)], 0)
        outputs.append(n.reshape(every, shape))
    return outputs


def _settings(n: OnnxNode, beams: int, input_indices: list[int], default: int = GPT) -> _Settings:
    """`input_indices` are the inputs with the most and the fewest tokens, the penalty of repeated ones, those
    allowed, those allowed first and the prompt's mask."""
    form = n.attr("model_type", default)
    if form not in ((GPT,) if n.op_type in _OF_ONE_WAY else (GPT, T5, WHISPER)):
        raise UnsupportedError(f"{n.op_type} of models of the type {form} is not supported")
    longest = _number(n, input_indices[0], "i64")
    if longest is None:
        raise ModelError("the maximum length is missing")
    shortest, repetition = _number(n, input_indices[1], "i64"), _number(n, input_indices[2], "f32")
    masks = [n[i] if n.has(i) else None for i in input_indices[3:]]
    pad = n.require("pad_token_id")
    start_tokens = n.convert(n[0], "i32") if form == GPT else _begun(n, form)
    if n.rank(start_tokens) != 2 or n.rank(n[0]) != (3 if form == WHISPER else 2):
        raise ModelError(f"the tokens have {n.rank(start_tokens)} dimensions, input 0 has {n.rank(n[0])}")
    length, most = (n.shape(start_tokens) or (None, None))[1], n.value(longest)
    if most is not None and isinstance(length, int) and int(most.reshape(())) <= length:
        raise ModelError(f"{length} tokens exceed the maximum of {int(most.reshape(()))}")
    if form == GPT:
        model = decoder_only(n, start_tokens, masks[2], pad, beams)
    else:
        model = encoder_and_decoder(n, form, start_tokens, masks[2], pad, beams)
    return _Settings(model, start_tokens, longest, beams, pad, n.require("eos_token_id"), shortest,
                     repetition, masks[0], masks[1], n.attr("no_repeat_ngram_size", 0))  # fmt: skip


def _begun(n: OnnxNode, form: int) -> Output:
    """The tokens that a decoder begins with, behind an encoder: given, or for each item the one told"""
    if n.has(10) and form == WHISPER:
        return n.convert(n[10], "i32")
    start = n.require("decoder_start_token_id")
    return fill(n, n.const(start, "i32"), n.dim_of(n[0], 0), n.const(np.array([1])))


def _number(n: OnnxNode, index: int, kind: str) -> Output | None:
    """An input that is one number, as [1]; None where it is left out."""
    return n.reshape(n.convert(n[index], kind), [1]) if n.has(index) else None


def _extend(n: OnnxNode, x: Output, size: Output, axis: int, value: float) -> Output:
    """`x` made as long as `size` along an axis with what `value` says."""
    dims = [n.dim_of(x, i) for i in range(n.rank(x))]
    dims[axis] = n("Subtract", size, dims[axis])
    return n("Concat", x, fill(n, n.like(x, value), *dims), axis=axis)


def _highest(n: OnnxNode, best: Output, items: Output, beams: int) -> Output:
    """The sum that ONNX Runtime takes for an item's highest: of item i, the highest of the 2 * beams that
    begin at i * beams in the candidates of all items. [batch, 1]"""
    begins = n("Multiply", n.unsqueeze(n.upto(items), [1]), beams)
    candidates = n("Add", begins, n.const(np.arange(2 * beams)))
    return n("ReduceMax", n("Gather", n.reshape(best, [-1]), candidates, 0, opset=8), [1], keep_dims=True)


# -- steps ---------------------------------------------------------------------------------------------------


def _search(
    n: OnnxNode,
    settings: _Settings,
    choose: _Choice,
    state: dict[str, Output],
    collected: Sequence[str] = (),
) -> dict[str, Output]:
    """The state behind the last step; `history` is what has been said, [rows, length]."""
    form = settings.form
    state = {**state, **form.state, "said": form.state["ids"]}

    def step(run: Run, state: dict[str, Output], first: Output, scope: Scope) -> Any:
        logits, present = run(state, scope)
        scores = n.convert(n.squeeze(n.slice(logits, 1, -1), [1]), "f32")
        if n.op_type not in _OF_ONE_WAY:
            scores = n("LogSoftmax", scores, axis=1)
        scores = _apply_rules(n, settings, scores, state["said"], first, scope)
        token, row, changes, more = choose(scores, state, scope)
        history = state["said"]
        if row is not None:
            history = n("Gather", history, row, 0, opset=8)
            if settings.beams > 1:
                present = [n("Gather", value, row, form.axis, opset=8) for value in present]
        following = {
            **changes,
            **form.advance(state, token),
            "ids": token,
            "said": n("Concat", history, token, axis=1),
            **{f"past_{i}": value for i, value in enumerate(present)},
        }
        return following, more

    trips = n.squeeze(n("Subtract", settings.longest, n.dim_of(settings.begun, 1)), [0])
    if form.first is None:

        def once(state: dict[str, Output], trip: Output, scope: Scope) -> Any:
            return step(form.run, state, n("Equal", trip, 0), scope)

        return loop_while(n, once, trips, n.const(True), state, collected)
    following, more = step(form.first, state, n.const(True), n.scope)
    first_state = {name: following[name] for name in state}

    def again(state: dict[str, Output], _trip: Output, scope: Scope) -> Any:
        return step(form.run, state, n.const(False), scope)

    out = loop_while(n, again, n("Subtract", trips, 1), more, first_state, collected)
    for name in collected:
        out[name] = n("Concat", n.unsqueeze(following[name], [0]), out[name], axis=0)
    return out


def _apply_rules(
    n: OnnxNode, settings: _Settings, scores: Output, history: Output, first: Output, scope: Scope
) -> Output:
    """The scores of the next token [rows, vocabulary] after what the settings make less likely or forbid, in
    the order in which ONNX Runtime does so."""
    shape = n.shape_of(scores)
    nothing = n.broadcast(n.const(0, "i32"), shape)

    def mark_tokens(tokens: Output, which: Output) -> Output:
        """[rows, vocabulary]: whether a token is one of `tokens` for which `which` is true"""
        out = n("ScatterElementsUpdate", nothing, tokens, n.convert(which, "i32"), 1, reduction="max",
                use_init_val=True, opset=12)  # fmt: skip
        return n("Greater", out, n.like(out, 0))

    if settings.repetition is not None:
        by = inside(n, settings.repetition, scope)
        is_repeated = mark_tokens(history, n("Equal", history, history))
        less = n("Select", n("Less", scores, 0.0), n("Multiply", scores, by), n("Divide", scores, by))
        scores = n("Select", is_repeated, less, scores)
    if settings.ngram > 0:
        n.check_count(settings.ngram, "tokens that may not come again", 256)
        before = settings.ngram - 1
        same = n("Equal", n.slice(history, 1, before), n.slice(history, 1, before))
        for i in range(before):
            end = n.slice(history, 1, i - before, i - before + 1 or None)
            same = n("LogicalAnd", same, n("Equal", n.slice(history, 1, i, i - before), end))
        scores = n("Select", mark_tokens(n.slice(history, 1, before), same), _NEVER, scores)
    if settings.allowed is not None:
        allowed = inside(n, settings.allowed, scope)
        scores = n("Select", n("Equal", allowed, n.like(allowed, 0)), _NEVER, scores)
    if settings.allowed_first is not None:
        allowed = inside(n, for_beams(n, settings.allowed_first, settings.beams), scope)
        scores = n("Select", n("LogicalAnd", first, n("Equal", allowed, n.like(allowed, 0))), _NEVER, scores)
    if settings.shortest is not None:
        early = n("Less", n.dim_of(history, 1), inside(n, settings.shortest, scope))
        end = n("Equal", n.upto(n.dim_of(scores, 1)), settings.end)
        scores = n("Select", n("LogicalAnd", early, end), _NEVER, scores)
    if settings.temperature is not None:
        scores = n("Divide", scores, inside(n, settings.temperature, scope))
    if settings.penalised is not None:
        scores = n("Subtract", scores, inside(n, settings.penalised, scope))
    return _restrict_timestamps(n, scores, history) if settings.timestamps else scores


def _restrict_timestamps(n: OnnxNode, scores: Output, history: Output) -> Output:
    """The scores [rows, vocabulary] with times, which are the tokens from one number on. Times come in pairs
    and do not decrease, and the first is not late. A time is forced if all times together are likelier than
    any text.
    """
    begin, latest = n.require("beginning_timestamp_token_id"), 50
    column = n.unsqueeze(n.upto(n.dim_of(scores, 1)), [0])
    history = n.convert(history, "i64")
    length = n.dim_of(history, 1)
    position = n.unsqueeze(n.upto(length), [0])
    timed = n("GreaterEqual", history, begin)

    def either(*values: Output) -> Output:
        return n.chain("LogicalOr", values)

    def both(a: Output, b: Output) -> Output:
        return n("LogicalAnd", a, b)

    # [rows, 1]: where text begins behind the first time
    first = n("ReduceMin", n("Select", timed, n("Add", position, 1), length), [1], keep_dims=True)
    later = n("Greater", length, first)
    last = n.slice(timed, 1, -1)
    padded = n("Concat", n("NotEqual", last, last), timed, axis=1)
    paired = either(n("LogicalNot", later), n.slice(padded, 1, -2, -1))
    at = n("ReduceMax", n("Select", timed, position, -1), [1], keep_dims=True)
    newest = n("ReduceMax", n("Select", n("Equal", position, at), history, -1), [1], keep_dims=True)
    opened = both(last, n("LogicalNot", paired))
    least = n("Add", newest, n("Select", opened, 0, 1))
    time = n("GreaterEqual", column, begin)
    never = [n("Equal", column, n.require(f"{name}_token_id")) for name in ("no_timestamps", "start_of_lm")]
    again = [n("Equal", column, n.require(f"{name}_token_id"))
             for name in ("decoder_start", "translate", "transcribe")]  # fmt: skip
    scores = n("Select", either(
        *never,
        both(later, either(*again)),
        both(both(last, paired), time),
        both(opened, n("Less", column, n.require("eos_token_id"))),
        both(n("GreaterEqual", at, 0), both(time, n("Less", column, least))),
        both(n("Equal", length, first), n("Greater", column, begin + latest)),
    ), _NEVER, scores)  # fmt: skip
    best = n("ReduceMax", n("Select", time, scores, -np.inf), [1], keep_dims=True)
    counts = both(time, n("Greater", scores, _NEVER))
    shares = n("Select", counts, n("Exp", n("Subtract", scores, best)), 0.0)
    total = n("ReduceSum", shares, [1], keep_dims=True)
    times = n("Select", n("Greater", total, 0.0), n("Add", n("Log", total), best), _NEVER)
    text = n("ReduceMax", n("Select", time, -np.inf, scores), [1], keep_dims=True)
    return n("Select", both(n("Greater", times, text), n("LogicalNot", time)), _NEVER, scores)
