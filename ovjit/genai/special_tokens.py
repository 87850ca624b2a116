"""Special tokens and the chat template of a tokenizer's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ovjit.generation.tokenizer import read_settings, read_template, read_token

#: Special tokens by the names that templates use -> the settings with their numbers.
SPECIAL = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "pad_token_id"}
#: Files with a template; a later one overrides.
_TEMPLATES = ("tokenizer_config.json", "processor_config.json", "chat_template.json")


class SpecialTokens:
    """Texts and numbers (-1: none) of special tokens by name, and the chat template."""

    def __init__(self) -> None:
        self.texts = dict.fromkeys(SPECIAL, "")
        self.numbers = dict.fromkeys(SPECIAL, -1)
        self.template = ""

    @classmethod
    def read(cls, folder: Path) -> SpecialTokens:
        """The special tokens of config.json, special_tokens_map.json and tokenizer_config.json. OvjitError if
        a file is no JSON."""
        tokens = cls()
        config = read_settings(folder / "config.json")
        for name, key in SPECIAL.items():
            if isinstance(config.get(key), int):
                tokens.numbers[name] = config[key]
            content = read_settings(folder / "special_tokens_map.json").get(name)
            if isinstance(content, dict):
                tokens.texts[name] = str(content.get("content") or "")
        settings = read_settings(folder / "tokenizer_config.json")
        if settings:
            tokens._complete(settings)
        tokens.template = read_template(folder, _TEMPLATES)
        return tokens

    def _complete(self, settings: dict[str, Any]) -> None:
        """Add what tokenizer_config.json has."""
        if all(self.texts.values()) and min(self.numbers.values()) != -1:
            return
        for name, text in self.texts.items():
            self.texts[name] = text or read_token(settings, name)
        self.texts["pad_token"] = self.texts["pad_token"] or self.texts["eos_token"]
        added = settings.get("added_tokens_decoder")
        if not isinstance(added, dict):
            return
        for number, token in added.items():
            for name in SPECIAL:
                is_named = isinstance(token, dict) and token.get("content") == self.texts[name]
                if is_named and self.numbers[name] == -1:
                    self.numbers[name] = int(number)
        if self.numbers["pad_token"] == -1:
            self.numbers["pad_token"] = self.numbers["eos_token"]

    def read_model(self, model: Any) -> None:
        """Add what a tokenizer's IR says; it overrides the files."""
        for name, key in SPECIAL.items():
            if model.has_rt_info(key):
                self.numbers[name] = int(str(model.get_rt_info(key).value))
        for path in ("chat_template", ["chat_template", "default"]):
            value = model.get_rt_info(path).value if model.has_rt_info(path) else None
            if isinstance(value, str):
                self.template = value
