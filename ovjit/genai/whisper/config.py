"""WhisperGenerationConfig and ASRGenerationConfig: how speech is written down."""

from __future__ import annotations

from typing import Any

from ovjit.genai.config import FIELDS, GenerationConfig, demand
from ovjit.genai.fields import BOOL, SIZE, TOKEN, Kind, Optional, Pairs, Text, Tokens, TokensByName

_TEXT = Optional(Text())
#: Field -> (default, kind). Defaults of tokens are those of the large model.
_SPEECH: dict[str, tuple[Any, Kind]] = {
    "alignment_heads": ([], Pairs()), "begin_suppress_tokens": ([], Tokens()),
    "decoder_start_token_id": (50258, TOKEN), "hotwords": (None, _TEXT), "initial_prompt": (None, _TEXT),
    "is_multilingual": (True, BOOL), "lang_to_id": ({}, TokensByName()), "language": (None, _TEXT),
    "max_initial_timestamp_index": (50, SIZE), "no_timestamps_token_id": (50363, TOKEN),
    "pad_token_id": (50257, TOKEN), "prev_sot_token_id": (50361, TOKEN), "return_timestamps": (False, BOOL),
    "suppress_tokens": ([], Tokens()), "task": (None, _TEXT), "transcribe_token_id": (50359, TOKEN),
    "translate_token_id": (50358, TOKEN), "word_timestamps": (False, BOOL),
}  # fmt: skip
#: Fields that generation_config.json has by these names.
_OF_FILES = (
    "begin_suppress_tokens", "suppress_tokens", "decoder_start_token_id", "pad_token_id",
    "no_timestamps_token_id", "max_initial_timestamp_index", "prev_sot_token_id", "is_multilingual",
    "lang_to_id", "alignment_heads",
)  # fmt: skip
_TASKS = ("transcribe", "translate")


class SpeechConfig(GenerationConfig):
    """The fields that configurations of speech share."""

    _fields = {**FIELDS, **_SPEECH, "apply_chat_template": (False, BOOL)}

    def _select(self, content: dict[str, Any]) -> dict[str, Any]:
        values = {name: content[name] for name in _OF_FILES if content.get(name) is not None}
        if values.get("is_multilingual", True):
            tasks = content.get("task_to_id") or {}
            values |= {f"{task}_token_id": tasks[task] for task in _TASKS if task in tasks}
        return super()._select(content) | values

    def inherit(self, default: Any) -> None:
        """Take the ends and the languages from `default` if this configuration has none. `max_new_tokens`
        counts alone."""
        super().inherit(default)
        self._prefer_new_tokens()
        self._values["lang_to_id"] = self.lang_to_id or default.lang_to_id

    def validate(self) -> None:
        """RuntimeError if fields are out of range or contradict each other."""
        super().validate()
        demand(
            self.num_return_sequences == 1,
            f"'num_return_sequences' must be 1. Provided: {self.num_return_sequences}.",
        )
        demand(not self.is_assisting_generation(), "Assisted generation is not supported.")


class WhisperGenerationConfig(SpeechConfig):
    """Settings of WhisperPipeline: from keywords, or the path of a generation_config.json. Unknown keywords
    are ignored, as in openvino_genai."""

    def validate(self) -> None:
        """RuntimeError if fields are out of range or contradict each other."""
        super().validate()
        if self.is_multilingual:
            demand(
                self.lang_to_id,
                "'lang_to_id' map must be provided for multilingual models: take it from "
                "generation_config.json or from get_generation_config() of the pipeline",
            )
            if self.language is not None:
                find_language(self)
            demand(
                self.task is None or self.task in _TASKS,
                f"'task' must be 'transcribe' or 'translate'. Task provided: '{self.task}'.",
            )
        for name in ("language", "task"):
            demand(
                self.is_multilingual or getattr(self, name) is None,
                f"Cannot specify '{name}' for not multilingual model.",
            )
        demand(
            not self.word_timestamps or self.alignment_heads,
            "'word_timestamps' can be true only when 'alignment_heads' is set and not empty.",
        )


class ASRGenerationConfig(SpeechConfig):
    """Settings of ASRPipeline. `context` is for models other than Whisper."""

    _fields = {**SpeechConfig._fields, "context": (None, _TEXT)}

    def for_whisper(self) -> WhisperGenerationConfig:
        """A WhisperGenerationConfig with these settings, without `context`."""
        config = WhisperGenerationConfig()
        config._values.update({name: self._values[name] for name in config._fields})
        return config


def find_language(config: SpeechConfig) -> tuple[str, int]:
    """(name, token) of the configured language, which is written as `en` or `<|en|>`. RuntimeError for an
    unknown one."""
    language = config.language
    is_token = len(language) > 4 and language.startswith("<|") and language.endswith("|>")
    name = language if is_token else f"<|{language}|>"
    demand(
        name in config.lang_to_id,
        f"'language' {language} must be provided in 'lang_to_id' map. Languages: {sorted(config.lang_to_id)}",
    )
    return name, config.lang_to_id[name]
