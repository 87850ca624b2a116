"""Ends of sequences: stop tokens, stop strings and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.genai.config import GenerationConfig, count_new_tokens
from ovjit.genai.enums import GenerationFinishReason
from ovjit.genai.grammar_masks import start_matcher
from ovjit.genai.results import PerfMetrics


class OutOfBlocks(Exception):
    """Thrown into the steps of a request for whose next tokens the cache has no room: its sequences end."""


class Stops:
    """The ends of the sequences of one request. `window`: the tokens of the longest stop string, that are
    decoded to look for one. `matcher`: the grammar's state at the begin of a sequence, None without one.
    `metrics`: figures that get the time to compile it."""

    def __init__(self, config: GenerationConfig, tokenizer: Any, prompt_length: int,
                 metrics: PerfMetrics | None = None):  # fmt: skip
        self.config, self._tokenizer = config, tokenizer
        self.most = count_new_tokens(config, prompt_length)
        self.texts = sorted(config.stop_strings)
        encoded = (tokenizer.encode(text, add_special_tokens=False) for text in self.texts)
        self.matcher = start_matcher(config, tokenizer, metrics or PerfMetrics())
        self.window = max((each.input_ids.shape[1] for each in encoded), default=0)

    def is_stop_token(self, token: int) -> bool:
        return token in self.config.stop_token_ids

    def end(self, tokens: list[int]) -> GenerationFinishReason | None:
        """The reason why generation ends with these tokens, None if it goes on. Removes the tokens after a
        stop string."""
        if self.is_stop_token(tokens[-1]) and not self.config.ignore_eos:
            return GenerationFinishReason.STOP
        if len(tokens) >= self.most:
            return GenerationFinishReason.LENGTH
        extra = self.count_after_stop(tokens)
        if extra is None:
            return None
        del tokens[len(tokens) - extra :]
        return GenerationFinishReason.STOP

    def count_after_stop(self, tokens: Sequence[int]) -> int | None:
        """The number of tokens to remove from the end so that the text ends at a stop string; None without
        one. The tokens of the string itself are removed too, unless the output shall include it. Texts end at
        a token's border."""
        if not self.texts or len(tokens) < self.window:
            return None
        last = list(tokens[len(tokens) - self.window :])
        text = self._tokenizer.decode(last)
        for stop in self.texts:
            begin = text.find(stop)
            if begin >= 0:
                included = len(stop) if self.config.include_stop_str_in_output else 0
                return self._count_after(last, text[: begin + included].rstrip(" \n"))
        return None

    def _count_after(self, tokens: Sequence[int], text: str) -> int:
        """The number of last tokens that are not needed for a text."""
        if not text:
            return len(tokens)
        for count in range(1, len(tokens)):
            if text in self._tokenizer.decode(tokens[:count]):
                return len(tokens) - count
        return 0
