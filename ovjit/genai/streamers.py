"""Streamers: they get tokens as these are generated, and may end the generation."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.enums import StreamingStatus

#: A text that ends so is incomplete: the bytes of a character are missing.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
#: Tokens that are held back, since a later token may change the end of the text.
DELAY = 3


def status_of(answer: Any) -> StreamingStatus:
    """The status of what a callback returns: None, False and 0 go on; 2 cancels; 3 is a tool's call; all
    others stop."""
    if isinstance(answer, StreamingStatus):
        return answer
    if answer is None or answer is False or answer == 0:
        return StreamingStatus.RUNNING
    if answer is not True and answer in (2, 3):
        return StreamingStatus(answer)
    return StreamingStatus.STOP


class StreamerBase:
    """The base of streamers in Python: `write` gets a token, or a list of tokens; `end` is called at the
    end."""

    def write(self, token: int | Sequence[int]) -> StreamingStatus | bool | None:
        raise OvjitError(f"{type(self).__name__} should have a method write(token)")

    def end(self) -> None:
        raise OvjitError(f"{type(self).__name__} should have a method end()")


class TextStreamer(StreamerBase):
    """Gives texts to `callback`, as soon as later tokens cannot change them. `detokenization_params`:
    keywords of `Tokenizer.decode`."""

    def __init__(
        self,
        tokenizer: Any,
        callback: Callable[[str], Any],
        detokenization_params: Mapping[str, Any] | None = None,
    ):
        self._tokenizer, self._callback = tokenizer, callback
        self._params = dict(detokenization_params or {})
        self._tokens: list[int] = []
        self._lengths: list[int] = []  # of the decoded text after each token; -1 if incomplete
        self._printed = 0

    def write(self, token: int | Sequence[int]) -> StreamingStatus:
        """Take a token or several, and call the callback with new text. Returns its status."""
        tokens = [token] if isinstance(token, int) or hasattr(token, "__index__") else list(token)  # type: ignore[arg-type]
        status = StreamingStatus.RUNNING
        for each in tokens:
            status = self._write_one(int(each))
            if status is not StreamingStatus.RUNNING:
                break
        return status

    def _write_one(self, token: int) -> StreamingStatus:
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens, **self._params)
        self._lengths.append(len(text))
        if text.endswith("\n") and len(text) > self._printed:
            status = self._give(text[self._printed :])
            self._tokens, self._lengths, self._printed = [], [], 0
            return status
        if text.endswith(_INCOMPLETE):
            self._lengths[-1] = -1
            return StreamingStatus.RUNNING
        if len(self._lengths) < DELAY:
            return StreamingStatus.RUNNING
        end = self._lengths[-DELAY]
        if end <= self._printed:
            return StreamingStatus.RUNNING
        status = self._give(text[self._printed : end])
        self._printed = end
        return status

    def end(self) -> None:
        """Give the remaining text."""
        if self._tokens:
            text = self._tokenizer.decode(self._tokens, **self._params)
            if len(text) > self._printed:
                self._give(text[self._printed :])
        self._tokens, self._lengths, self._printed = [], [], 0

    def _give(self, text: str) -> StreamingStatus:
        return status_of(self._callback(text))


class _Printed(TextStreamer):
    """The streamer of a plain function: its exceptions are printed, and generation goes on."""

    def _give(self, text: str) -> StreamingStatus:
        try:
            return super()._give(text)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return StreamingStatus.RUNNING


def streamer_of(given: Any, tokenizer: Any) -> StreamerBase | None:
    """The streamer that `generate` uses: a StreamerBase, or one of a function that gets texts."""
    if given is None or isinstance(given, StreamerBase):
        return given
    if callable(given):
        return _Printed(tokenizer, given)
    raise TypeError(f"streamer should be a function or a StreamerBase, not {type(given).__name__}")
