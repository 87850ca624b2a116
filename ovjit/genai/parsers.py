"""Parsers of answers: they split reasoning from content, and find calls of tools. Incremental ones do so
while an answer is generated, for TextParserStreamer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.enums import StreamingStatus
from ovjit.genai.fields import Kind
from ovjit.genai.streamers import TextStreamer, status_of

_CALL = re.compile(r"\[(.*?)\]")
_ARGUMENT = re.compile(r'(\w+)\s*=\s*"([^"]*)"', re.ASCII)
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def _content_of(message: Any) -> str:
    if not isinstance(message, dict):
        raise TypeError(f"parse(): message should be a dict, not {type(message).__name__}")
    if not isinstance(message.get("content"), str):
        raise OvjitError("the message should have a str with the key 'content'")
    return message["content"]


class Parser:
    """The base of parsers: `parse` changes a message, a dict with the whole answer as "content"."""

    def parse(self, message: dict[str, Any]) -> None:
        raise OvjitError(f"{type(self).__name__} should have a method parse(message)")


class ReasoningParser(Parser):
    """Puts the text between two tags into "reasoning_content"; without `keep_original_content` it is removed
    from "content". Without `expect_open_tag`, reasoning begins at once."""

    def __init__(self, expect_open_tag: bool = True, keep_original_content: bool = True,
                 open_tag: str = "<think>", close_tag: str = "</think>"):  # fmt: skip
        self._is_tag_expected, self._is_kept = bool(expect_open_tag), bool(keep_original_content)
        self._open, self._close = open_tag, close_tag

    def parse(self, message: dict[str, Any]) -> None:
        content = _content_of(message)
        if not self._is_tag_expected and self._close not in content:
            message["reasoning_content"] = content
            message["content"] = content if self._is_kept else ""
            return
        message["reasoning_content"] = ""
        begin = content.find(self._open) if self._is_tag_expected else 0
        start = begin + (len(self._open) if self._is_tag_expected else 0)
        end = content.find(self._close)
        if begin < 0 or end < start:
            return
        message["reasoning_content"] = content[start:end]
        if not self._is_kept:
            message["content"] = content[:begin] + content[end + len(self._close) :]


class DeepSeekR1ReasoningParser(ReasoningParser):
    """Parses answers that begin with reasoning, without an opening tag."""

    def __init__(self) -> None:
        super().__init__(expect_open_tag=False)


class Phi4ReasoningParser(ReasoningParser):
    """Parses answers with an opening and a closing tag around the reasoning."""

    def __init__(self) -> None:
        super().__init__(expect_open_tag=True)


class Llama3PythonicToolParser(Parser):
    """Puts a call such as [name(key="value")] into "tool_calls". Only arguments in double quotes are read."""

    def parse(self, message: dict[str, Any]) -> None:
        match = _CALL.search(_content_of(message))
        if match is not None:
            name, _, arguments = match[1].partition("(")
            values = dict(_ARGUMENT.findall(arguments or name))
            message["tool_calls"] = [{"arguments": values, "name": name}]


class Llama3JsonToolParser(Parser):
    """Puts the JSON object of an answer into "tool_calls". RuntimeError if it is no JSON."""

    def parse(self, message: dict[str, Any]) -> None:
        match = _OBJECT.search(_content_of(message))
        if match is None:
            return
        try:
            message["tool_calls"] = [json.loads(match[0])]
        except ValueError as error:
            raise OvjitError(f"the call of a tool is no JSON: {error}") from error


class VLLMParserWrapper(Parser):
    """A parser of vLLM as a Parser: an object with `extract_tool_calls(content, request)`, whose result has
    `model_dump_json` or `json`, or with `extract_reasoning(content, request)`, whose result is a tuple
    (reasoning, content), or with both. `request` is None."""

    def __init__(self, py_parser: Any):
        self._parser = py_parser
        if not any(hasattr(py_parser, name) for name in ("extract_tool_calls", "extract_reasoning")):
            raise OvjitError(
                "Provided vLLM parser does not have supported parsing methods: 'extract_tool_calls' or "
                "'extract_reasoning'"
            )

    def parse(self, message: dict[str, Any]) -> None:
        content, contents = _content_of(message), list[str]()
        if hasattr(self._parser, "extract_tool_calls"):
            fields = _fields_of(self._parser.extract_tool_calls(content, None))
            message.update(fields)
            if isinstance(fields.get("content"), str):
                contents.append(fields["content"])
        if hasattr(self._parser, "extract_reasoning"):
            parts = self._parser.extract_reasoning(content, None)
            if not isinstance(parts, tuple) or len(parts) != 2:
                raise OvjitError("extract_reasoning: Parsed object is not a tuple of length 2")
            if not all(isinstance(part, str) for part in parts):
                raise OvjitError("extract_reasoning: the reasoning and the content should be str")
            message["reasoning"] = parts[0]
            contents.append(parts[1])
        if contents:
            message["content"] = "".join(contents)


def _fields_of(result: Any) -> dict[str, Any]:
    """The fields of an object of pydantic. RuntimeError if it is none, or its JSON is no object."""
    dump = getattr(result, "model_dump_json", getattr(result, "json", None))
    if dump is None:
        raise OvjitError("extract_tool_calls: Parsed object does not have model_dump_json() or json() method")
    try:
        fields = json.loads(dump())
    except (TypeError, ValueError) as error:
        raise OvjitError(f"extract_tool_calls: the result's JSON cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise OvjitError("extract_tool_calls: the result's JSON should be an object")
    return fields


class IncrementalParser:
    """The base of incremental parsers: `parse` gets the new text, changes the message of this piece, and
    returns the text that becomes its "content". `reset` begins another answer."""

    def __init__(self) -> None:
        self._status = StreamingStatus.RUNNING

    def parse(self, delta_message: dict[str, Any], delta_text: str,
              delta_tokens: Sequence[int] | None = None) -> str:  # fmt: skip
        raise OvjitError(f"{type(self).__name__} should have a method parse(message, text, tokens)")

    def reset(self) -> None:
        raise OvjitError(f"{type(self).__name__} should have a method reset()")

    def get_status(self) -> StreamingStatus:
        return self._status

    def set_status(self, status: StreamingStatus) -> None:
        """End the generation by another status than RUNNING."""
        if not isinstance(status, StreamingStatus):
            raise TypeError(f"status should be a StreamingStatus, not {type(status).__name__}")
        self._status = status


class ReasoningIncrementalParser(IncrementalParser):
    """The incremental form of ReasoningParser."""

    def __init__(self, expect_open_tag: bool = True, keep_original_content: bool = True,
                 open_tag: str = "<think>", close_tag: str = "</think>"):  # fmt: skip
        super().__init__()
        self._is_tag_expected, self._is_kept = bool(expect_open_tag), bool(keep_original_content)
        self._open, self._close = open_tag, close_tag
        self.reset()

    def reset(self) -> None:
        self._is_open, self._is_closed = not self._is_tag_expected, False
        self._pending = ""

    def parse(self, delta_message: dict[str, Any], delta_text: str,
              delta_tokens: Sequence[int] | None = None) -> str:  # fmt: skip
        if self._is_closed:
            return delta_text
        text, before, suffix_size = self._pending + delta_text, "", 0
        remainder = text
        if not self._is_open:
            begin = text.find(self._open)
            if begin < 0:
                self._pending = text
                return ""
            self._is_open, remainder = True, text[begin + len(self._open) :]
            before = text[: begin + len(self._open)]
        else:
            sizes = range(min(len(remainder), len(self._close) - 1), 0, -1)
            suffix_size = next(
                (n for n in sizes if self._close.startswith(remainder[len(remainder) - n :])), 0
            )
        end = remainder.find(self._close)
        if end >= 0:
            self._is_closed, self._pending = True, ""
            delta_message["reasoning_content"] = remainder[:end]
            delta_message["content"] = remainder[end + len(self._close) :]
            return before + remainder if self._is_kept else delta_message["content"]
        shown = remainder[: len(remainder) - suffix_size]
        self._pending = remainder[len(remainder) - suffix_size :]
        delta_message["reasoning_content"] = shown
        return before + shown if self._is_kept else ""


class DeepSeekR1ReasoningIncrementalParser(ReasoningIncrementalParser):
    """Incrementally parses answers that begin with reasoning, without an opening tag."""

    def __init__(self) -> None:
        super().__init__(expect_open_tag=False)


class Phi4ReasoningIncrementalParser(ReasoningIncrementalParser):
    """Incrementally parses answers with an opening and a closing tag around the reasoning."""

    def __init__(self) -> None:
        super().__init__(expect_open_tag=True)


class TextParserStreamer(TextStreamer):
    """The base of streamers that get messages: `write` takes the dict of a piece of the answer, which went
    through the parsers one after another."""

    def __init__(self, tokenizer: Any, parsers: Sequence[IncrementalParser] = ()):
        if not all(isinstance(parser, IncrementalParser) for parser in parsers):
            raise TypeError("parsers should be a list of IncrementalParser")
        self._parsers = list(parsers)
        self._message: dict[str, Any] = {"content": ""}
        super().__init__(tokenizer, self._parse)

    def _give(self, piece: bytes, tokens: list[int]) -> StreamingStatus:
        return self._parse(piece.decode(errors="replace"), tokens)

    def _parse(self, text: str, tokens: Sequence[int] = ()) -> StreamingStatus:
        """Take a text through the parsers, up to one that ends the generation."""
        piece, end = dict[str, Any](), StreamingStatus.RUNNING
        for parser in self._parsers:
            text = parser.parse(piece, text, list(tokens))
            end = parser.get_status()
            if end is not StreamingStatus.RUNNING:
                break
        piece["content"] = text
        for key, value in piece.items():
            before = self._message.get(key)
            self._message[key] = before + value if isinstance(before, (str, list)) else value
        status = status_of(self.write(piece))  # type: ignore[arg-type]
        return status if end is StreamingStatus.RUNNING else end

    def _write(self, chunk: Sequence[int] | str) -> StreamingStatus:
        """Take a text, or tokens."""
        return self._parse(chunk) if isinstance(chunk, str) else super().write(chunk)

    def get_parsed_message(self) -> dict[str, Any]:
        """The whole message so far."""
        return dict(self._message)

    def reset(self) -> None:
        """Begin another answer."""
        self._message = {"content": ""}
        for parser in self._parsers:
            parser.reset()


class Parsers(Kind):
    """A list of Parser."""

    def assign(self, value: Any) -> list[Parser]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, Parser) for each in value):
            raise TypeError("expected a list of Parser")
        return list(value)


def parse_texts(texts: Sequence[str], parsers: Sequence[Parser], streamer: Any) -> list[dict[str, Any]]:
    """The message of each text, which a TextParserStreamer may have begun; [] without any parsers."""
    if isinstance(streamer, TextParserStreamer):
        messages = [streamer.get_parsed_message()]
    else:
        messages = [{"content": text} for text in texts] if parsers else []
    for message in messages:
        for parser in parsers:
            parser.parse(message)
    return messages
