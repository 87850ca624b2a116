"""Generation, with drafts that let the model check several tokens in one inference.

A draft changes the speed and not the tokens: the model's own logits choose each of them. Up to `CHECKED`
tokens of one inference have the same bits of logits as one by one. The exception is plain 4-bit weights on
AVX2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ovjit.errors import OvjitError
from ovjit.generation.decoder import CHECKED, Decoder
from ovjit.generation.sampling import Chooser, Settings


class Draft(Protocol):
    """Proposes the following tokens."""

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow all `tokens` of the sequence."""


class Assistant:
    """A smaller decoder with the same words proposes `count` tokens, each its greatest logit."""

    def __init__(self, decoder: Decoder, count: int = 5):
        if count < 1:
            raise OvjitError(f"an assistant should propose at least one token at a time, not {count}")
        self._decoder, self._count = decoder, count
        self._fed: list[int] = []

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        common = rewind_to_common(self._decoder, self._fed, tokens)
        self._fed = list(tokens)
        proposals: list[int] = []
        following = list(tokens[common:])
        while len(proposals) < min(self._count, most):
            proposals.append(int(self._decoder.feed(following)[-1].argmax()))
            if len(proposals) == 1:
                self._decoder.mark()
            following = proposals[-1:]
        self._fed += proposals[:-1]
        return proposals


class Lookup:
    """Proposes the `count` tokens that followed an earlier occurrence of the last tokens: the one with the
    longest match, of up to `longest` tokens."""

    def __init__(self, count: int = 10, longest: int = 3):
        if count < 1 or longest < 1:
            raise OvjitError(
                "the prompt lookup should use at least 1 token and an n-gram of at least "
                f"1, not {count} and {longest}"
            )
        self._count, self._longest = count, longest

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        return follow_ngram(tokens, self._longest, min(self._count, most), -1)


def rewind_to_common(decoder: Decoder, before: Sequence[int], tokens: Sequence[int]) -> int:
    """Keep in a decoder that has read `before` the tokens that `tokens` begin with, but for the last one: its
    logits are needed. Models that cannot rewind begin anew. Returns the number of tokens kept."""
    common = count_common(before, tokens[:-1])
    with contextlib.suppress(OvjitError):  # states of recurrent layers, and another sequence
        if common:
            decoder.rewind(common)
            return common
    decoder.reset()
    return 0


def count_common(tokens: Sequence[Any], others: Sequence[Any]) -> int:
    """The length of the common prefix of two sequences."""
    pairs = enumerate(zip(tokens, others, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(tokens), len(others)))


def follow_ngram(tokens: Sequence[int], longest: int, most: int, occurrence: int) -> list[int]:
    """At most `most` tokens after an earlier occurrence of the last tokens: of the longest n-gram that has
    one, of up to `longest` tokens. `occurrence`: its index among several, 0 the first, -1 the last."""
    history = np.asarray(tokens)
    for size in range(min(longest, len(history) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(history[:-1], size)
        matches = np.flatnonzero((windows == history[-size:]).all(1))
        if matches.size:
            return history[int(matches[occurrence]) + size :][:most].tolist()
    return []


def generate(
    decoder: Decoder, prompt: Sequence[int], settings: Settings | None = None, draft: Draft | None = None
) -> Iterator[int]:
    """Yield the tokens that follow `prompt`, up to and including one of `settings.ends`.

    The decoder begins a new sequence. With a draft, each inference also computes the proposals, up to
    `CHECKED` tokens in all. Those after the first wrong one are dropped.
    """
    settings = settings or Settings()
    choose = Chooser(settings)
    decoder.reset()
    tokens = [int(t) for t in prompt]
    logits: Iterable[np.ndarray] = decoder.feed(tokens)[-1:]
    remaining, proposed = settings.most, list[int]()
    while True:
        for index, row in enumerate(logits):
            token = choose(row, tokens)
            tokens.append(token)
            yield token
            remaining -= 1
            if not remaining or token in settings.ends:
                return
            if index >= len(proposed) or proposed[index] != token:
                break
        decoder.rewind(len(tokens) - 1)
        proposed = draft.propose(tokens, remaining - 1) if draft is not None and remaining > 1 else []
        if proposed:
            decoder.mark()
        logits = check_tokens(decoder, [tokens[-1], *proposed])


def check_tokens(decoder: Decoder, tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the logits of each of these tokens. They are computed on demand."""
    begin, first = decoder.length, 0
    while first < len(tokens):
        end = first + CHECKED
        if begin + first < decoder.turn < begin + end:  # what is before it would be turned as what is after
            end = decoder.turn - begin
        yield from decoder.feed(tokens[first:end])
        first = end
