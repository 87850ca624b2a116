"""Tags of pictures in prompts, and the pictures of a chat's messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import OvjitError

_TAG = re.compile(r"<ov_genai_image_(\d+)>")


def insert_tags(prompt: str, native: str, base: int, count: int) -> tuple[str, list[int]]:
    """(the prompt with a native tag for each picture, the pictures' numbers). `<ov_genai_image_i>` is
    replaced; without tags, all `count` new pictures from number `base` on come first. RuntimeError for other
    numbers, and if both kinds of tags are mixed."""
    numbers = [int(number) for number in _TAG.findall(prompt)]
    natives = prompt.count(native)
    if numbers:
        if natives:
            raise OvjitError(
                f"Prompt cannot mix universal tags (<ov_genai_image_i>) with native tags ({native})"
            )
        for number in numbers:
            if not base <= number < base + count:
                raise OvjitError(
                    f"<ov_genai_image_{number}> is not one of the {count} new pictures, whose numbers begin "
                    f"with {base}"
                )
        return _TAG.sub(lambda match: native, prompt), numbers
    if natives:
        if natives != count:
            raise OvjitError(
                f"The number of native vision tags ({natives}) must match the number of provided images "
                f"({count})"
            )
        return prompt, list(range(base, base + count))
    return native * count + prompt, list(range(base, base + count))


class PictureChat:
    """The messages of a chat as the model reads them, with the features of their pictures. Messages that
    have been read before are not read again, unless the history has changed. `other` is copied."""

    def __init__(self, other: PictureChat | None = None) -> None:
        self.features: list[np.ndarray] = [] if other is None else list(other.features)
        #: (the message, its text with native tags, its pictures, the number of pictures before it).
        self._messages: list[tuple[Any, str, list[int], int]] = [] if other is None else list(other._messages)

    def read(
        self,
        messages: Sequence[dict[str, Any]],
        features: Sequence[np.ndarray],
        insert: Callable[[str, int, Sequence[np.ndarray]], tuple[str, list[int]]],
    ) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """(the messages with native tags, the features of pictures in order). New pictures belong to the
        last message of the user. `insert`: a prompt, the number of its first picture, the features of its
        pictures -> its text and its pictures."""
        users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
        pairs = zip(messages, self._messages, strict=False)
        same = next((i for i, (new, old) in enumerate(pairs) if new != old[0]), None)
        self._cut(min(len(messages), len(self._messages)) if same is None else same)
        if features and (not users or users[-1] < len(self._messages)):
            raise OvjitError("pictures need a new message of the user in the history")
        for i, message in enumerate(messages[len(self._messages) :], len(self._messages)):
            base, content = len(self.features), message.get("content", "")
            sequence: list[int] = []
            if message.get("role") == "user":
                new = list(features) if i == users[-1] else []
                content, sequence = insert(_join_parts(content, base), base, new)
                self.features += new
            self._messages.append((message, content, sequence, base))
        texts = [{**message, "content": content} for message, content, _, _ in self._messages]
        order = [number for _, _, sequence, _ in self._messages for number in sequence]
        return texts, [self.features[number] for number in order]

    def _cut(self, count: int) -> None:
        """Forget the messages from number `count` on, and their pictures."""
        if count < len(self._messages):
            del self.features[self._messages[count][3] :]
            del self._messages[count:]


def _join_parts(content: Any, base: int) -> str:
    """The text of a message's content: a str, or a list of parts of the types text and image."""
    if isinstance(content, str):
        return content
    texts, number = [], base
    for part in content:
        if part.get("type") == "text":
            texts.append(part["text"])
        elif part.get("type") == "image":
            texts.append(f"<ov_genai_image_{number}>")
            number += 1
        else:
            raise OvjitError(f"Unsupported content type in multipart message: {part.get('type')}")
    return "".join(texts)
