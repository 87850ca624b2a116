"""Times of words: the path by dynamic time warping through the scores of cross-attention, and words of
tokens."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.genai.whisper.results import WhisperWordTiming

#: Languages that are written without blanks.
_WITHOUT_BLANKS = frozenset(("zh", "ja", "th", "lo", "my", "yue"))
_BLANKS = " \t\n\v\f\r"
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
#: Punctuation that belongs to the next word, and to the word before.
_OPENING, _CLOSING = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
_SENTENCE_ENDS = ".。!！?？"
#: The width of the median filter over frames.
_WIDTH = 7
#: The largest median of durations in seconds; a longer word than two of them is cut at a sentence's border.
_LONG = np.float32(0.7)
#: Seconds of a frame of the encoder's output.
_FRAME = np.float32(0.02)
_DIAGONAL, _UP, _LEFT = 0, 1, 2


def filter_median(weights: np.ndarray) -> np.ndarray:
    """The median of each value and its neighbours on the last axis; fewer neighbours at the ends."""
    half = _WIDTH // 2
    padded = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(half, half)], constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WIDTH, -1)
    result = np.partition(windows, half, -1)[..., half]
    for edge in (slice(0, half), slice(max(weights.shape[-1] - half, 0), None)):
        result[..., edge] = np.nanmedian(windows[..., edge, :], -1)
    return result


def compute_costs(scores: np.ndarray) -> np.ndarray:
    """The costs [tokens, frames] of a token at a frame, by scores [heads, tokens, frames]."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    deviations = np.maximum(weights.std(1, keepdims=True), np.float32(1e-6))
    weights = (weights - weights.mean(1, keepdims=True)) / deviations
    return -filter_median(weights).mean(0)


def warp(costs: np.ndarray) -> tuple[list[int], list[int]]:
    """(rows, columns) of the path from the first cell to the last one with the least sum of costs [rows,
    columns]."""
    rows, columns = costs.shape
    trace = np.full((rows + 1, columns + 1), _LEFT, np.int8)
    trace[:, 0] = _UP
    # sums along diagonals, by row
    before = np.full(rows + 1, np.inf, np.float32)
    last = before.copy()
    last[0] = 0
    for diagonal in range(1, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        corner, above, beside = before[i - 1], last[i - 1], last[i]
        moves = np.where((above < corner) & (above < beside), _UP, _LEFT)
        moves = np.where((corner < above) & (corner < beside), _DIAGONAL, moves)
        sums = np.full(rows + 1, np.inf, np.float32)
        sums[i] = costs[i - 1, j - 1] + np.choose(moves, (corner, above, beside))
        trace[i, j] = moves
        before, last = last, sums
    return _backtrack(trace)


def _backtrack(trace: np.ndarray) -> tuple[list[int], list[int]]:
    """(rows, columns) of the cheapest path, which the moves in `trace` give from its end."""
    i, j = (size - 1 for size in trace.shape)
    path = []
    while i or j:
        path.append((max(i - 1, 0), max(j - 1, 0)))
        move = trace[i, j]
        i, j = i - (move != _LEFT), j - (move != _UP)
    rows, columns = zip(*reversed(path), strict=True)
    return list(rows), list(columns)


def split_characters(tokens: Sequence[int], tokenizer: Any) -> list[tuple[str, list[int]]]:
    """(text, tokens) of the least groups of tokens that are whole characters."""
    groups, group = [], []
    for token in tokens:
        group.append(token)
        text = tokenizer.decode(group, skip_special_tokens=False)
        if _INCOMPLETE not in text:
            groups.append((text, group))
            group = []
    return groups


def split_words(tokens: Sequence[int], tokenizer: Any, language: str) -> list[tuple[str, list[int]]]:
    """(text, tokens) of words: a word begins with a blank, and punctuation is a word of its own. Words of
    languages without blanks are characters."""
    groups = split_characters(tokens, tokenizer)
    if language in _WITHOUT_BLANKS:
        return groups
    words: list[tuple[str, list[int]]] = []
    for text, group in groups:
        is_special = group[0] >= tokenizer.get_eos_token_id()
        stripped = text.strip(_BLANKS)
        is_punctuation = len(stripped) == 1 and stripped in string.punctuation
        if not words or is_special or text[:1] in tuple(_BLANKS) or is_punctuation:
            words.append((text, group))
        else:
            words[-1] = words[-1][0] + text, words[-1][1] + group
    return words


def time_words(
    words: Sequence[tuple[str, list[int]]], path: tuple[list[int], list[int]], offset: float
) -> list[WhisperWordTiming]:
    """The times of all words but the last one, which is the end of the text. `path`: tokens and frames."""
    rows, frames = path
    starts = [frame for i, frame in enumerate(frames) if i == 0 or rows[i] != rows[i - 1]]
    times = np.array(starts, np.float32) * _FRAME + np.float32(offset)
    timings, begin = [], 0
    for text, tokens in words[:-1]:
        end = begin + len(tokens)
        timings.append(WhisperWordTiming(text, tokens, float(times[begin]), float(times[end])))
        begin = end
    _cut_long(timings)
    return _join_punctuation(timings)


def _cut_long(words: Sequence[WhisperWordTiming]) -> None:
    """Shorten long words at the begin and the end of sentences."""
    durations = np.array([word.end_ts - word.start_ts for word in words], np.float32)
    if not (durations > 0).any():
        return
    longest = 2 * min(_LONG, np.float32(np.median(durations[durations > 0])))
    for i in range(1, len(words)):
        word = words[i]
        if durations[i] <= longest:
            continue
        if word.word in _SENTENCE_ENDS:
            word.end_ts = float(np.float32(word.start_ts) + longest)
        elif words[i - 1].word in _SENTENCE_ENDS:
            word.start_ts = float(np.float32(word.end_ts) - longest)


def _join_punctuation(words: list[WhisperWordTiming]) -> list[WhisperWordTiming]:
    """Join opening punctuation with the word after it, and closing punctuation with the one before."""
    following = len(words) - 1
    for i in reversed(range(len(words) - 1)):
        word = words[i]
        if len(word.word) > 1 and word.word[0] == " " and word.word[1:] in _OPENING:
            _join(words[following], word, word.word + words[following].word, 0)
        else:
            following = i
    previous = 0
    for i in range(1, len(words)):
        word, before = words[i], words[previous]
        is_mark = len(word.word.encode()) == 1 and word.word in _CLOSING
        if before.word and not before.word.endswith(" ") and is_mark:
            _join(before, word, before.word + word.word, len(before.token_ids))
        else:
            previous = i
    return [word for word in words if word.word or len(words) < 2]


def _join(word: WhisperWordTiming, part: WhisperWordTiming, text: str, index: int) -> None:
    """Set the text of `word`, insert the tokens of `part` at `index` of its tokens, and empty `part`."""
    word.word = text
    word.token_ids = word.token_ids[:index] + part.token_ids + word.token_ids[index:]
    part.word, part.token_ids = "", []
