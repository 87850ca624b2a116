"""Masks of grammars over a vocabulary, by the compiled part of xgrammar. Its Python part needs torch, and is
not imported."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.config import GenerationConfig
from ovjit.genai.gguf_texts import CHARACTERS
from ovjit.genai.grammars import StructuralTagsConfig, StructuredOutputConfig, format_of

#: Threads that compile a grammar.
_MOST_THREADS = 8
#: Bytes of compiled grammars that a compiler keeps.
_CACHE_BYTES = 2**28
#: xgrammar's type of vocabularies whose tokens have a character for each byte.
_BYTE_LEVEL = 2
_CHARACTERS = {byte[0]: character for character, byte in CHARACTERS.items()}
#: The release of xgrammar inside openvino_genai. Others read schemas, blanks and escapes in another way.
_RELEASE = "0.1.31"
#: Time, file and line before xgrammar's messages.
_PLACE = re.compile(r"^(\[[\d:]+\] )?(\S+:\d+: )?(Check failed: .*? is false: )?")


@lru_cache(maxsize=1)
def _load_bindings() -> Any:
    """The extension module of xgrammar. RuntimeError without it, or if it is of another release."""
    from importlib import metadata  # takes 15 ms

    package = importlib.util.find_spec("xgrammar")
    release = "" if package is None else metadata.version("xgrammar")
    if package is None or release != _RELEASE:
        raise OvjitError(
            f"structured output needs the package xgrammar {_RELEASE}: pip install --no-deps "
            f"xgrammar=={_RELEASE}" + (f" (release {release} is installed)" if release else "")
        )
    spec = PathFinder.find_spec("xgrammar_bindings", package.submodule_search_locations)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GrammarCompiler:
    """Compiles grammars for a vocabulary: the bytes of each token, and the token that ends a text."""

    def __init__(self, words: Sequence[bytes], end: int):
        if not words:
            raise OvjitError("structured output needs the vocabulary of a detokenizer, and this one has none")
        self._size = len(words)
        self._bindings = _load_bindings()
        # bytes would end at a zero
        tokens = [word.decode("latin-1").translate(_CHARACTERS) for word in words]
        info = self._bindings.TokenizerInfo(tokens, _BYTE_LEVEL, self._size, [end], True)
        self._compiler = self._bindings.GrammarCompiler(
            info, min(os.cpu_count() or 1, _MOST_THREADS), True, _CACHE_BYTES
        )

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

        def start() -> Any:
            return self._bindings.GrammarMatcher(compiled, list(ends), False, -1)

        return Matcher(start, self._size)

    def _compile(self, config: StructuredOutputConfig) -> Any:
        if config.json_schema is not None:
            return self._compiler.compile_json_schema(config.json_schema, True, None, None, True, None)
        if config.regex is not None:
            return self._compiler.compile_regex(config.regex)
        if config.grammar is not None:
            return self._compiler.compile_grammar(config.grammar, "root")
        grammar: Any = config.structural_tags_config
        if grammar is None:
            grammar = config.compound_grammar
        if isinstance(grammar, StructuralTagsConfig):
            grammar = grammar.to_grammar()
        if not isinstance(grammar, str):
            grammar = json.dumps({"type": "structural_tag", "format": format_of(grammar)})
        return self._compiler.compile_structural_tag(grammar)


class Matcher:
    """The state of a grammar after the tokens of one sequence. `start` creates xgrammar's matcher of an empty
    text."""

    def __init__(self, start: Callable[[], Any], size: int):
        self._start, self._size = start, size
        self._handle, self._tokens = start(), list[int]()
        self._bits = np.zeros((1, -(-size // 32)), np.int32)

    def mask(self, logits: np.ndarray) -> None:
        """Set `logits` [words] of tokens that the grammar does not allow to -inf; of none after its end.
        RuntimeError if it allows no token of the vocabulary."""
        if self._handle.is_terminated():
            return
        self._handle.fill_next_token_bitmask(self._bits, 0, False)
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
        if not self._handle.accept_token(token, False):
            raise OvjitError(f"the grammar does not allow the token {token} here")
        self._tokens.append(token)

    def fork(self) -> Matcher:
        """A matcher for another sequence with the same tokens."""
        other = Matcher(self._start, self._size)
        for token in self._tokens:
            other.advance(token)
        return other


def start_matcher(config: GenerationConfig, tokenizer: Any) -> Matcher | None:
    """The matcher of a configuration with structured output, else None. The compiler is kept with the
    tokenizer."""
    grammar = config.structured_output_config
    if grammar is None:
        return None
    if tokenizer._grammar_compiler is None:
        tokenizer._grammar_compiler = GrammarCompiler(tokenizer._words(), tokenizer.get_eos_token_id())
    return tokenizer._grammar_compiler.start(grammar, sorted(config.stop_token_ids))
