"""Tokens that may follow: suppressed ones, and the order of timestamps; and segments by timestamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer, Steps
from ovjit.genai.sampler import log_sum
from ovjit.genai.whisper.config import WhisperGenerationConfig


class LogitRules:
    """Removes tokens from the choice. With `timestamps`: they come in pairs and do not decrease, a text
    begins with one, and text yields to them if all of them together are likelier than each word."""

    def __init__(self, config: WhisperGenerationConfig, timestamps: bool):
        self._config, self._timestamps = config, timestamps
        self._first = config.no_timestamps_token_id + 1

    def apply(self, logits: np.ndarray, generated: Sequence[int]) -> None:
        """Set the logits [words] of tokens that may not follow the generated ones to -inf. OvjitError if a
        suppressed token is none of the vocabulary."""
        for name in ("suppress_tokens",) if generated else ("begin_suppress_tokens", "suppress_tokens"):
            tokens = getattr(self._config, name)
            if tokens and not 0 <= min(tokens) <= max(tokens) < len(logits):
                raise OvjitError(f"{name} has a token that is not in [0, {len(logits)}), the vocabulary")
            logits[tokens] = -np.inf
        if self._timestamps:
            self._order(logits, generated)
            self._prefer(logits)

    def _order(self, logits: np.ndarray, generated: Sequence[int]) -> None:
        first, config = self._first, self._config
        logits[config.no_timestamps_token_id] = -np.inf
        if not generated:
            logits[:first] = -np.inf
            logits[first + config.max_initial_timestamp_index + 1 :] = -np.inf
            return
        follows_time = generated[-1] >= first
        ends_pair = follows_time and (len(generated) < 2 or generated[-2] >= first)
        if ends_pair:
            logits[first:] = -np.inf
        elif follows_time:
            logits[: config.eos_token_id] = -np.inf
        last = next((token for token in reversed(generated) if token >= first), None)
        if last is not None:
            # the end of one segment may be the start of the next one
            logits[first : last if follows_time and not ends_pair else last + 1] = -np.inf

    def _prefer(self, logits: np.ndarray) -> None:
        texts, times = logits[: self._first], logits[self._first :]
        if times.size and times.max() > -np.inf and log_sum(times) > texts.max():
            texts[:] = -np.inf


def constrain(steps: Steps, rules: LogitRules, normalize: bool) -> Steps:
    """`steps` with logits that follow the rules. `normalize`: they become log-probabilities first."""
    rows, tokens = next(steps)
    sequences: list[list[int]] = [[]]
    while True:
        logits = yield rows, tokens
        for row, sequence in zip(logits, sequences, strict=True):
            if normalize:
                row -= log_sum(row)
            rules.apply(row, sequence)
        try:
            rows, tokens = steps.send(logits)
        except StopIteration as end:
            answers: list[Answer] = end.value
            return answers
        sequences = [[*sequences[row], token] for row, token in zip(rows, tokens, strict=True)]


class Segment:
    """Tokens between two timestamps, in seconds."""

    def __init__(self, start: float, end: float, tokens: list[int]):
        self.start, self.end, self.tokens = start, end, tokens


class Segments:
    """The segments of a window. `ranges`: where their tokens are in `tokens`, without timestamps; `frames`:
    the number of frames until the next window."""

    def __init__(self, tokens: Sequence[int], first: int, frames: int, precision: np.float32, offset: float):
        self._tokens, self._first = tokens, first
        self._precision, self._offset = precision, np.float32(offset)
        self.items: list[Segment] = []
        self.ranges: list[tuple[int, int]] = []
        self.frames = 0
        self._split(frames)
        self.frames = self.frames or frames

    @property
    def text_tokens(self) -> list[int]:
        return [token for segment in self.items for token in segment.tokens]

    def _split(self, frames: int) -> None:
        start = None
        for i, token in enumerate(self._tokens):
            if token < self._first:
                continue
            if start is None:
                start = i
            elif token != self._tokens[start]:
                self._add(start, i, self._time(token))
                self.frames = (token - self._first) * 2  # a timestamp is two frames
                start = None
        if start is None:
            self.frames = frames  # no segment continues in the next window
        elif start < len(self._tokens) - 1 and not self.items:
            self._add(start, len(self._tokens), -1.0)
            self.frames = frames

    def _add(self, start: int, end: int, time: float) -> None:
        tokens = list(self._tokens[start + 1 : end])
        self.items.append(Segment(self._time(self._tokens[start]), time, tokens))
        self.ranges.append((start + 1, end))

    def _time(self, token: int) -> float:
        return float(np.float32(token - self._first) * self._precision + self._offset)
