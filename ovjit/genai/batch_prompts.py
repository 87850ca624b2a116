"""The prompts of a ContinuousBatchingPipeline: texts, chats, tokens, and what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.config import GenerationConfig
from ovjit.genai.history import ChatHistory
from ovjit.genai.prompts import Prompts, ids_of
from ovjit.genai.results import PerfMetrics
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Prompt
from ovjit.genai.vision.reader import PictureReader, Shown
from ovjit.genai.vision.results import VLMPerfMetrics
from ovjit.genai.vision.tags import PictureChat

#: The arguments with what prompts show.
SHOWN = ("images", "videos", "videos_metadata")


class ReadPrompt:
    """A prompt that is read: its tokens, those that penalties count, its figures, and for a model that takes
    pictures its embeddings."""

    def __init__(self, tokens: list[int], metrics: PerfMetrics, embedded: Prompt | None = None):
        self.tokens, self.metrics, self.embedded = tokens, metrics, embedded
        self.words = tokens if embedded is None else embedded.words
        self.chat: tuple[ChatHistory, PictureChat] | None = None


class BatchPrompts(Prompts):
    """Reads prompts, by `reader` if the model takes pictures."""

    def __init__(self, tokenizer: Tokenizer, reader: PictureReader | None = None):
        super().__init__(tokenizer)
        self.reader = reader
        self.load_time = 0.0

    def new_metrics(self) -> PerfMetrics:
        metrics = PerfMetrics() if self.reader is None else VLMPerfMetrics()
        metrics._load_time = self.load_time
        return metrics

    def check_shown(self, options: Mapping[str, Any], index: int | None = None) -> Shown:
        """The pictures and videos of a prompt; with an index, of one of several. RuntimeError if the model
        takes none."""
        lists = {name: options.get(name) or () for name in SHOWN}
        if index is not None:
            lists = {name: values[index] if values else () for name, values in lists.items()}
        if self.reader is not None:
            return self.reader.check(*lists.values())
        if any(len(values) for values in lists.values()):
            raise OvjitError("the model takes no pictures: leave images and videos out")
        return Shown()

    def read_request(self, item: Any, config: GenerationConfig, shown: Shown) -> ReadPrompt:
        """A prompt without a chat: a text has no template, if the model takes no pictures."""
        metrics = self.new_metrics()
        if self.reader is None:
            tokens = self.encode([item], True, metrics)[0] if isinstance(item, str) else _row_of(item)
            return ReadPrompt(tokens, metrics)
        return self._read_shown(item, None, config, shown, metrics)

    def read(
        self, items: Sequence[Any], configs: Sequence[GenerationConfig], shown: Sequence[Shown]
    ) -> list[ReadPrompt]:
        """Prompts of one kind; a text in a chat is its next message."""
        if isinstance(items[0], str) and self.in_chat and len(items) > 1:
            raise OvjitError("Can't chat with multiple prompts")
        return [self._read_one(*each) for each in zip(items, configs, shown, strict=True)]

    def _read_one(self, item: Any, config: GenerationConfig, shown: Shown) -> ReadPrompt:
        metrics = self.new_metrics()
        if self.reader is None:
            if isinstance(item, str):
                return ReadPrompt(self.read_texts([item], config, metrics)[0], metrics)
            if isinstance(item, ChatHistory):
                return ReadPrompt(self.read_chat(item, config, metrics), metrics)
            return ReadPrompt(_row_of(item), metrics)
        history = item if isinstance(item, ChatHistory) else None
        if history is not None and not (history and config.apply_chat_template):
            raise OvjitError("a ChatHistory needs messages, and apply_chat_template=True")
        if isinstance(item, str) and self.in_chat:
            history = self.history
            history.append({"role": "user", "content": item})
        return self._read_shown(item, history, config, shown, metrics)

    def _read_shown(
        self, item: Any, history: ChatHistory | None, config: GenerationConfig, shown: Shown,
        metrics: PerfMetrics,
    ) -> ReadPrompt:  # fmt: skip
        assert self.reader is not None and isinstance(metrics, VLMPerfMetrics)
        if isinstance(item, Tensor):
            raise OvjitError("a model that takes pictures reads texts and chats, not tokens")
        prompt, chat = self.reader.read(item, history, config, shown, metrics)
        read = ReadPrompt(prompt.tokens, metrics, prompt)
        if history is not None:
            read.chat = history, chat
        return read

    def keep(self, reads: Sequence[ReadPrompt]) -> None:
        """Store the pictures of chats whose last messages are answered."""
        for read in reads:
            if read.chat is not None and self.reader is not None:
                self.reader.keep(*read.chat)


def bind_arguments(
    arguments: Sequence[Any], keywords: Mapping[str, Any], shown: type | tuple[type, ...]
) -> dict[str, Any]:
    """The keyword arguments of a call, with the positional ones after the prompts added by name. Lists of the
    types `shown` are images, then videos. TypeError for other arguments."""
    options = {**keywords}
    names = ["images", "videos", "generation_config", "streamer"]
    for i, value in enumerate(arguments):
        is_list = isinstance(value, (list, tuple)) and all(isinstance(each, shown) for each in value)
        is_list = is_list and (bool(value) or i + 1 < len(arguments))  # configurations of no prompts
        if names[:1] in (["images"], ["videos"]) and not is_list:
            names = names[names.index("generation_config") :]
        if not names or names[0] in options:
            raise TypeError(f"incompatible function arguments: {type(value).__name__} is not expected")
        options[names.pop(0)] = value
    unknown = sorted(set(options) - {*SHOWN, "generation_config", "streamer"})
    if unknown:
        raise TypeError(f"incompatible function arguments: there is no {', '.join(unknown)}")
    return options


def _row_of(tensor: Tensor) -> list[int]:
    """The tokens of a Tensor [length] or [1, length]. RuntimeError for several rows."""
    ids = ids_of(tensor)
    if ids.ndim not in (1, 2) or ids.ndim == 2 and len(ids) != 1:
        raise OvjitError(f"input_ids should have the shape [length] or [1, length], not {list(ids.shape)}")
    return [int(token) for token in ids.reshape(-1)]
