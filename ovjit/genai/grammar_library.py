"""Compiles grammars by xgrammar: by the compiled part of the release inside openvino_genai, which needs no
torch, or by the Python package of another release."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import Any

import numpy as np

from ovjit.errors import OvjitError

#: Threads that compile a grammar.
_THREADS = min(os.cpu_count() or 1, 8)
#: Bytes of compiled grammars that a compiler keeps.
_CACHE_BYTES = 2**28
#: xgrammar's type of vocabularies whose tokens have a character for each byte.
_BYTE_LEVEL = 2
#: The release of xgrammar inside openvino_genai. Others read schemas, blanks and escapes in another way.
RELEASE = "0.1.31"


class BoundLibrary:
    """The extension module of release 0.1.31, for tokens as strs with a character for each byte. `kind` of a
    grammar: json_schema, regex, grammar (EBNF) or structural_tag."""

    def __init__(self, bindings: Any, tokens: Sequence[str], end: int):
        self._bindings = bindings
        info = bindings.TokenizerInfo(tokens, _BYTE_LEVEL, len(tokens), [end], True)
        self._compiler = bindings.GrammarCompiler(info, _THREADS, True, _CACHE_BYTES)

    def compile(self, kind: str, text: str) -> Any:
        further = {"json_schema": (True, None, None, True, None), "grammar": ("root",)}
        return getattr(self._compiler, f"compile_{kind}")(text, *further.get(kind, ()))

    def start(self, compiled: Any, ends: Sequence[int]) -> Any:
        """A matcher of an empty text that any of the tokens `ends` may end."""
        return self._bindings.GrammarMatcher(compiled, list(ends), False, -1)

    def fill(self, matcher: Any, bits: np.ndarray) -> None:
        """Set the bits i32 [1, words / 32] of tokens that may follow."""
        matcher.fill_next_token_bitmask(bits, 0, False)

    def take_token(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token, False))


class PackageLibrary(BoundLibrary):
    """The public classes of another release, by its Python package."""

    def __init__(self, package: Any, tokens: Sequence[str], end: int):
        self._bindings = package
        kind = package.VocabType(_BYTE_LEVEL)
        # newer releases accept the characters of the token that ends texts as text
        words = ["" if i == end else token for i, token in enumerate(tokens)]
        info = package.TokenizerInfo(words, kind, vocab_size=len(words), stop_token_ids=[end],
                                     add_prefix_space=True)  # fmt: skip
        limit = {"cache_enabled": True, "cache_limit_bytes": _CACHE_BYTES}
        self._compiler = package.GrammarCompiler(info, max_threads=_THREADS, **limit)
        #: The bits of torch's type, which share their memory with those of NumPy.
        self._mask = package.allocate_token_bitmask(1, len(tokens))

    def compile(self, kind: str, text: str) -> Any:
        return getattr(self._compiler, f"compile_{kind}")(text)

    def start(self, compiled: Any, ends: Sequence[int]) -> Any:
        return self._bindings.GrammarMatcher(compiled, override_stop_tokens=list(ends))

    def fill(self, matcher: Any, bits: np.ndarray) -> None:
        matcher.fill_next_token_bitmask(self._mask, 0)
        bits[:] = self._mask.numpy()

    def take_token(self, matcher: Any, token: int) -> bool:
        return bool(matcher.accept_token(token))


@lru_cache(maxsize=1)
def _load() -> tuple[type[BoundLibrary], Any]:
    """(the class for the installed release, its module). RuntimeError without xgrammar."""
    from importlib import metadata  # takes 15 ms

    package = importlib.util.find_spec("xgrammar")
    release = "" if package is None else metadata.version("xgrammar")
    if package is None:
        raise OvjitError(
            f"structured output needs the package xgrammar: pip install --no-deps xgrammar=={RELEASE}"
        )
    if release != RELEASE:
        warnings.warn(
            f"structured output by xgrammar {release}: openvino_genai has {RELEASE}, which reads some "
            f"schemas in another way (pip install --no-deps xgrammar=={RELEASE})",
            RuntimeWarning,
            stacklevel=2,
        )
        return PackageLibrary, importlib.import_module("xgrammar")
    spec = PathFinder.find_spec("xgrammar_bindings", package.submodule_search_locations)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return BoundLibrary, module


def load_library(tokens: Sequence[str], end: int) -> BoundLibrary:
    """xgrammar for a vocabulary whose text ends with the token `end`. RuntimeError without it."""
    kind, module = _load()
    return kind(module, tokens, end)
