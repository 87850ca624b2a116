"""ChatHistory: messages, tools, and further values of a chat's template."""

from __future__ import annotations

import json
from typing import Any


def _copy(value: Any, kind: type, name: str) -> Any:
    """A copy through JSON. TypeError for another kind, or if it has values that JSON does not."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} should be a {kind.__name__}, not {type(value).__name__}")
    return json.loads(json.dumps(value))


class ChatHistory:
    """Messages of a chat, each a dict with "role" and "content". Values are JSON's, copied in and out."""

    def __init__(self, messages: list[dict[str, Any]] | None = None):
        self._messages: list[dict[str, Any]] = []
        self._tools: list[dict[str, Any]] = []
        self._extra: dict[str, Any] = {}
        if messages is not None:
            self.set_messages(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __bool__(self) -> bool:
        return bool(self._messages)

    # without these, an object with a length would be iterated by its indices
    __iter__ = None

    def append(self, message: dict[str, Any]) -> None:
        """Add a message."""
        self._messages.append(_copy(message, dict, "a message"))

    def pop(self) -> dict[str, Any]:
        """Remove and return the last message. IndexError without one."""
        if not self._messages:
            raise IndexError("the chat history is empty: no message can be removed")
        return self._messages.pop()

    def _end_at(self, length: int) -> None:
        """Remove the question after the first `length` messages, and its answer; not those of another
        turn."""
        if len(self._messages) <= length + 2:
            del self._messages[length:]

    def clear(self) -> None:
        """Remove all messages."""
        self._messages.clear()

    def get_messages(self) -> list[dict[str, Any]]:
        return _copy(self._messages, list, "messages")

    def set_messages(self, messages: list[dict[str, Any]]) -> None:
        copied = _copy(messages, list, "messages")
        for message in copied:
            if not isinstance(message, dict):
                raise TypeError(f"a message should be a dict, not {type(message).__name__}")
        self._messages = copied

    def get_tools(self) -> list[dict[str, Any]]:
        return _copy(self._tools, list, "tools")

    def set_tools(self, tools: list[dict[str, Any]]) -> None:
        self._tools = _copy(tools, list, "tools")

    def get_extra_context(self) -> dict[str, Any]:
        return _copy(self._extra, dict, "extra_context")

    def set_extra_context(self, extra_context: dict[str, Any]) -> None:
        self._extra = _copy(extra_context, dict, "extra_context")
