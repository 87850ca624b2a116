"""Streamers: they get tokens as these are generated, and may end the generation."""

from __future__ import annotations

import operator
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.errors import OvjitError, unless_of_signal
from ovjit.genai.enums import StreamingStatus

#: A text that ends so is incomplete: the bytes of a character are missing.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}".encode()
#: Tokens that are held back, since a later token may change the end of the text.
DELAY = 3


def status_of(answer: Any) -> StreamingStatus:
    """The status of a callback's answer: None, False and 0 go on; 2 cancels; 3 is a tool's call; all other
    integers stop. TypeError for other types."""
    if isinstance(answer, StreamingStatus):
        return answer
    if answer is not None and not hasattr(answer, "__index__"):
        raise TypeError(
            "a streamer should answer with a StreamingStatus, a bool, an int or None, not "
            f"{type(answer).__name__}"
        )
    number = 0 if answer is None else operator.index(answer)
    return StreamingStatus(number) if number in (0, 2, 3) else StreamingStatus.STOP


class StreamerBase:
    """The base of streamers in Python: `write` gets a token, or a list of tokens; `end` is called at the
    end."""

    def write(self, token: int | Sequence[int]) -> StreamingStatus | bool | None:
        raise OvjitError(f"{type(self).__name__} should have a method write(token)")

    def end(self) -> None:
        raise OvjitError(f"{type(self).__name__} should have a method end()")


#: Lengths of texts that are not known yet, and of those that end within a character.
_UNKNOWN, _WITHIN = -2, -1


class TextStreamer(StreamerBase):
    """Gives texts to `callback`, as soon as later tokens cannot change them. `detokenization_params`:
    keywords of `Tokenizer.decode`."""

    def __init__(
        self,
        tokenizer: Any,
        callback: Callable[[str], Any],
        detokenization_params: Mapping[str, Any] | None = None,
    ):
        if not callable(callback):
            raise TypeError(f"callback should be a function, not {type(callback).__name__}")
        self._tokenizer, self._callback = tokenizer, callback
        self._params = dict(detokenization_params or {})
        self._start_line()

    def _start_line(self) -> None:
        self._tokens: list[int] = []
        self._lengths: list[int] = []  # of the decoded text in UTF-8 after each token
        self._printed = self._first = 0  # bytes, and the first token, of the next piece

    def _decode(self, count: int) -> bytes:
        text = self._tokenizer.decode(self._tokens[:count], **self._params)
        return text.encode(errors="replace")

    def write(self, token: int | Sequence[int]) -> StreamingStatus:
        """Take a token or several, and call the callback with new text. Returns its status."""
        tokens = [token] if hasattr(token, "__index__") else [int(each) for each in token]
        if not tokens:
            return StreamingStatus.RUNNING
        self._tokens += [operator.index(each) for each in tokens]
        self._lengths += [_UNKNOWN] * len(tokens)
        text = self._decode(len(self._tokens))
        self._lengths[-1] = len(text)
        if text.endswith(b"\n") and len(text) > self._printed:
            piece, tokens = text[self._printed :], self._tokens[self._first :]
            self._start_line()
            return self._give(piece, tokens)
        if text.endswith(_INCOMPLETE):
            self._lengths[-1] = _WITHIN
            return StreamingStatus.RUNNING
        if len(self._lengths) < DELAY:
            return StreamingStatus.RUNNING
        last = len(self._lengths) - DELAY
        end = self._length_at(last)
        if end <= self._printed:
            return StreamingStatus.RUNNING
        while last + 1 < len(self._lengths) and self._lengths[last + 1] == end:
            last += 1  # tokens without a text belong to that which they follow
        piece, self._printed = text[self._printed : end], end
        tokens, self._first = self._tokens[self._first : last + 1], last + 1
        return self._give(piece, tokens) if piece else StreamingStatus.RUNNING

    def _length_at(self, index: int) -> int:
        if self._lengths[index] == _UNKNOWN:
            text = self._decode(index + 1)
            self._lengths[index] = _WITHIN if text.endswith(_INCOMPLETE) else len(text)
        return self._lengths[index]

    def end(self) -> None:
        """Pass the remaining text to the callback."""
        piece, tokens = self._decode(len(self._tokens))[self._printed :], self._tokens[self._first :]
        if piece:
            self._start_line()
            self._give(piece, tokens)

    def _give(self, piece: bytes, tokens: list[int]) -> StreamingStatus:
        """Pass a text that is not empty to the callback, and its tokens to those that take tokens."""
        return status_of(self._callback(piece.decode(errors="replace")))


def _print_errors(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a function as a callback: its exceptions are printed, and generation goes on."""

    def call(text: str) -> Any:
        try:
            return function(text)
        except unless_of_signal(Exception):
            traceback.print_exc(file=sys.stderr)
            return StreamingStatus.RUNNING

    return call


def streamer_of(streamer: Any, tokenizer: Any) -> StreamerBase | None:
    """The streamer that `generate` uses: a StreamerBase, or one of a function that gets texts."""
    if streamer is None or isinstance(streamer, StreamerBase):
        return streamer
    if callable(streamer):
        return TextStreamer(tokenizer, _print_errors(streamer))
    raise TypeError(f"streamer should be a function or a StreamerBase, not {type(streamer).__name__}")
