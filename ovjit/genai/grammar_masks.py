"""Masks of grammars over a vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import measure, now_us
from ovjit.genai.gguf_texts import CHARACTERS
from ovjit.genai.grammar_library import BoundLibrary, load_library
from ovjit.genai.grammars import StructuralTagsConfig, StructuredOutputConfig, format_of
from ovjit.genai.results import PerfMetrics

_CHARACTERS = {byte[0]: character for character, byte in CHARACTERS.items()}
#: Time, file and line before xgrammar's messages, and lines of a trace after its newer ones.
_PLACE = re.compile(r"^(\[[\d:]+\] )?(\S+:\d+: )?(Check failed: .*? is false: )?")


class GrammarCompiler:
    """Compiles grammars for a vocabulary: the bytes of each token, and the token that ends a text."""

    init_us = 0.0

    def __init__(self, words: Sequence[bytes], end: int):
        if not words:
            raise OvjitError("structured output needs the vocabulary of a detokenizer, and this one has none")
        self._size = len(words)
        # bytes would end at a zero
        tokens = [word.decode("latin-1").translate(_CHARACTERS) for word in words]
        self._library = load_library(tokens, end)

    def start(self, config: StructuredOutputConfig, ends: Sequence[int]) -> Matcher:
        """A matcher at the start of a text. Any of the tokens `ends` may end it. RuntimeError for a grammar
        that is not valid, and without such tokens."""
        if not ends:
            raise OvjitError("structured output needs a token that ends texts: set eos_token_id")
        try:
            compiled = self._compile(config)
        except OvjitError:
            raise
        except (RuntimeError, ValueError) as error:
            message = _PLACE.sub("", str(error).strip())
            raise OvjitError(f"structured_output_config: Failed to create grammar: {message}") from error

        return Matcher(self._library, lambda: self._library.start(compiled, ends), self._size)

    def _compile(self, config: StructuredOutputConfig) -> Any:
        for kind in ("json_schema", "regex", "grammar"):
            text = getattr(config, kind)
            if text is not None:
                return self._library.compile(kind, text)
        grammar: Any = config.structural_tags_config
        if grammar is None:
            grammar = config.compound_grammar
        if isinstance(grammar, StructuralTagsConfig):
            grammar = grammar.to_grammar()
        if not isinstance(grammar, str):
            grammar = json.dumps({"type": "structural_tag", "format": format_of(grammar)})
        return self._library.compile("structural_tag", grammar)


class Matcher:
    """The state of a grammar after the tokens of one sequence. `start` creates xgrammar's matcher of an empty
    text."""

    def __init__(self, library: BoundLibrary, start: Callable[[], Any], size: int):
        self._library, self._start, self._size = library, start, size
        self._handle, self._tokens = start(), list[int]()
        self._bits = np.zeros((1, -(-size // 32)), np.int32)

    def mask(self, logits: np.ndarray) -> None:
        """Set `logits` [words] of tokens that the grammar does not allow to -inf; of none after its end.
        RuntimeError if it allows no token of the vocabulary."""
        if self._handle.is_terminated():
            return
        self._library.fill(self._handle, self._bits)
        allowed = np.unpackbits(self._bits.view(np.uint8), count=self._size, bitorder="little")
        if not allowed.any():
            raise OvjitError("the vocabulary has no token that the grammar allows here")
        count = min(self._size, len(logits))
        np.putmask(logits[:count], allowed[:count] == 0, -np.inf)
        logits[count:] = -np.inf

    def advance(self, token: int) -> None:
        """Accept a token that `mask` allowed."""
        if self._handle.is_terminated():
            return
        if not self._library.take_token(self._handle, token):
            raise OvjitError(f"the grammar does not allow the token {token} here")
        self._tokens.append(token)

    def fork(self) -> Matcher:
        """A matcher for another sequence with the same tokens."""
        other = Matcher(self._library, self._start, self._size)
        for token in self._tokens:
            other.advance(token)
        return other


def start_matcher(config: GenerationConfig, tokenizer: Any, metrics: PerfMetrics) -> Matcher | None:
    """The matcher of a configuration with structured output, else None. The compiler is kept with the
    tokenizer. `metrics` gets the times."""
    grammar, compiler, start_us = config.structured_output_config, tokenizer._grammar_compiler, now_us()
    if grammar is not None and compiler is None:
        compiler = GrammarCompiler(tokenizer._words(), tokenizer.get_eos_token_id())
        compiler.init_us, tokenizer._grammar_compiler = now_us() - start_us, compiler
    if compiler is not None:
        metrics._grammar_init = {"xgrammar": compiler.init_us}
    if grammar is None:
        return None
    with measure(metrics.raw_metrics.grammar_compile_times):
        return compiler.start(grammar, sorted(config.stop_token_ids))
