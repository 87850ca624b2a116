"""ChatHistory: messages, tools, and further values of a chat's template."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any


class ChatHistory:
    """Messages of a chat, each a dict with "role" and "content". Values are copied in and out."""

    def __init__(self, messages: Iterable[dict[str, Any]] = ()):
        self._messages: list[dict[str, Any]] = []
        self._tools: list[dict[str, Any]] = []
        self._extra: dict[str, Any] = {}
        self.set_messages(list(messages))

    def __len__(self) -> int:
        return len(self._messages)

    def __bool__(self) -> bool:
        return bool(self._messages)

    def append(self, message: dict[str, Any]) -> None:
        """Add a message."""
        if not isinstance(message, dict):
            raise TypeError(f"a message is a dict, not {type(message).__name__}")
        self._messages.append(copy.deepcopy(message))

    def pop(self) -> dict[str, Any]:
        """Remove and return the last message. IndexError without one."""
        if not self._messages:
            raise IndexError("pop from an empty ChatHistory")
        return self._messages.pop()

    def clear(self) -> None:
        self._messages.clear()

    def get_messages(self) -> list[dict[str, Any]]:
        return copy.deepcopy(self._messages)

    def set_messages(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if not isinstance(message, dict):
                raise TypeError(f"a message is a dict, not {type(message).__name__}")
        self._messages = copy.deepcopy(messages)

    def get_tools(self) -> list[dict[str, Any]]:
        return copy.deepcopy(self._tools)

    def set_tools(self, tools: list[dict[str, Any]]) -> None:
        self._tools = copy.deepcopy(tools)

    def get_extra_context(self) -> dict[str, Any]:
        return copy.deepcopy(self._extra)

    def set_extra_context(self, extra_context: dict[str, Any]) -> None:
        self._extra = copy.deepcopy(extra_context)
