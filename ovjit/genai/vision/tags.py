"""Tags of pictures and videos in prompts, and those of a chat's messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ovjit.errors import OvjitError
from ovjit.generation.speculative import count_common

#: The kind of what is shown -> its tag with a number.
UNIVERSAL = {kind: re.compile(rf"<ov_genai_{kind}_(\d+)>") for kind in ("image", "video")}


class Media:
    """The pictures, videos and sounds of a message."""

    def __init__(self, images: Sequence[Any] = (), videos: Sequence[Any] = (), sounds: Sequence[Any] = ()):
        self.images, self.videos, self.sounds = list(images), list(videos), list(sounds)


def check_numbers(numbers: Sequence[int], base: int, count: int, kind: str = "image") -> None:
    """RuntimeError for numbers that are not those of the `count` new pictures."""
    for number in numbers:
        if not base <= number < base + count:
            raise OvjitError(
                f"<ov_genai_{kind}_{number}> is not one of the {count} new {kind}s, whose numbers begin "
                f"with {base}"
            )


def insert_tags(
    prompt: str, native: str, base: int, count: int, kind: str = "image", automatic: str = ""
) -> tuple[str, list[int]]:
    """(the prompt with a native tag for each picture, the pictures' numbers). `<ov_genai_image_i>` is
    replaced; without tags, all `count` new pictures from number `base` on come first. RuntimeError for other
    numbers, and if both kinds of tags are mixed. `kind`: image or video. `automatic`: a native tag with what
    follows it, where the text had none."""
    tag, automatic = UNIVERSAL[kind], automatic or native
    numbers = [int(number) for number in tag.findall(prompt)]
    natives = prompt.count(native)
    if numbers:
        if natives:
            raise OvjitError(
                f"Prompt cannot mix universal tags (<ov_genai_{kind}_i>) with native tags ({native})"
            )
        check_numbers(numbers, base, count, kind)
        return tag.sub(lambda match: automatic, prompt), numbers
    if natives:
        if natives != count:
            raise OvjitError(
                f"The number of native vision tags ({natives}) must match the number of provided {kind}s "
                f"({count})"
            )
        return prompt, list(range(base, base + count))
    return automatic * count + prompt, list(range(base, base + count))


def find_tags(prompt: str, tags: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the pieces of a prompt between tags, the tags)."""
    parts = re.split("(" + "|".join(map(re.escape, tags)) + ")", prompt)
    return parts[::2], parts[1::2]


class PictureChat:
    """The messages of a chat as the model reads them, with their pictures and videos. Messages that
    have been read before are not read again, unless the history has changed. `other` is copied."""

    def __init__(self, other: PictureChat | None = None) -> None:
        #: The numbers of pictures and of videos.
        self._counts: tuple[int, int] = (0, 0) if other is None else other._counts
        #: (the message, its text with native tags, what it shows, the numbers of pictures and videos before).
        self._messages: list[tuple[Any, str, list[Any], tuple[int, int]]] = (
            [] if other is None else list(other._messages)
        )

    def read(
        self,
        messages: Sequence[dict[str, Any]],
        media: Media,
        insert: Callable[[str, tuple[int, int], Media], tuple[str, list[Any]]],
    ) -> tuple[list[dict[str, Any]], list[Any]]:
        """(the messages with native tags, the pictures and videos in order). New ones belong to the
        last message of the user. `insert`: a prompt, the numbers of its first picture and video, these
        -> its text, and those that it shows."""
        users = [i for i, message in enumerate(messages) if message.get("role") == "user"]
        shared = count_common(messages, [message for message, *_ in self._messages])
        if shared < len(self._messages):
            self._counts = self._messages[shared][3]
            del self._messages[shared:]
        if (media.images or media.videos or media.sounds) and (not users or users[-1] < len(self._messages)):
            raise OvjitError("pictures need a new message of the user in the history")
        for i, message in enumerate(messages[len(self._messages) :], len(self._messages)):
            bases, content = self._counts, message.get("content", "")
            shown: list[Any] = []
            if message.get("role") == "user":
                new = media if i == users[-1] else Media()
                content, shown = insert(_join_parts(content, bases), bases, new)
                self._counts = (bases[0] + len(new.images), bases[1] + len(new.videos))
            self._messages.append((message, content, shown, bases))
        texts = [{**message, "content": content} for message, content, _, _ in self._messages]
        return texts, [visual for _, _, shown, _ in self._messages for visual in shown]


def _join_parts(content: Any, bases: tuple[int, int]) -> str:
    """The text of a message's content: a str, or a list of parts of the types text, image and video."""
    if isinstance(content, str):
        return content
    texts, numbers = [], dict(zip(UNIVERSAL, bases, strict=True))
    for part in content:
        kind = part.get("type")
        if kind == "text":
            texts.append(part["text"])
        elif kind in numbers:
            texts.append(f"<ov_genai_{kind}_{numbers[kind]}>")
            numbers[kind] += 1
        else:
            raise OvjitError(f"Unsupported content type in multipart message: {kind}")
    return "".join(texts)
