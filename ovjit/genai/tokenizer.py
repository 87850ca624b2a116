"""Tokenizer: texts to tokens and back, by the IRs openvino_tokenizer.xml and openvino_detokenizer.xml."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.history import ChatHistory
from ovjit.genai.templates import render_chat

TOKENIZER, DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
#: Names of special tokens -> attributes of an IR's runtime information with their numbers.
SPECIAL = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "pad_token_id"}


class TokenizedInputs:
    """Tokens [texts, length] and their mask, as Tensors."""

    def __init__(self, input_ids: Tensor, attention_mask: Tensor):
        self.input_ids, self.attention_mask = input_ids, attention_mask


def _core() -> Any:
    from ovjit.api.run.core import Core

    return Core()


class Tokenizer:
    """The tokenizer of a folder, or of two IRs in memory. A missing file is an error when it is first
    used."""

    def __init__(
        self,
        tokenizer_path: Any = None,
        *models: Any,
        properties: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        if len(models) == 1 and isinstance(models[0], Mapping):
            properties, models = models[0], ()
        self._properties = {**(properties or {}), **kwargs}
        self._compiled: dict[str, Any] = {}
        self._info: dict[str, Any] = {}
        self._template_override: str | None = None
        self._folder: Path | None = None
        self._sources: dict[str, Any] = {}
        if models:
            self._use_memory(tokenizer_path, *models)
        elif tokenizer_path is not None:
            self._folder = Path(os.fsdecode(tokenizer_path))
            for name in (TOKENIZER, DETOKENIZER):
                file = self._folder if self._folder.name == name else self._folder / name
                if file.is_file():
                    self._sources[name] = str(file)
            if self._folder.is_file():
                self._folder = self._folder.parent
        self._read_settings()

    def _use_memory(self, tokenizer_model: str, *rest: Any) -> None:
        if len(rest) not in (1, 3):
            raise TypeError("incompatible constructor arguments: give the IR and weights of the tokenizer, and those of "
                            "the detokenizer")  # fmt: skip
        self._sources[TOKENIZER] = tokenizer_model, rest[0]
        if len(rest) == 3:
            self._sources[DETOKENIZER] = rest[1], rest[2]

    # -- settings

    def _read_settings(self) -> None:
        folder = self._folder

        def read(name: str) -> dict[str, Any]:
            if folder is None or not (folder / name).is_file():
                return {}
            try:
                content = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise OvjitError(f"{folder / name} is no JSON: {error}") from error
            return content if isinstance(content, dict) else {}

        for name, key in SPECIAL.items():
            for source in (
                read("config.json"),
                read("special_tokens_map.json"),
                read("tokenizer_config.json"),
            ):
                token, number = source.get(name), source.get(key)
                text = token.get("content") if isinstance(token, dict) else token
                if isinstance(text, str):
                    self._info[name] = text
                number = number[0] if isinstance(number, list) and number else number
                if isinstance(number, int):
                    self._info.setdefault(key, number)
        config = read("tokenizer_config.json")
        added = config.get("added_tokens_decoder") or {}
        for number, token in added.items():
            for name, key in SPECIAL.items():
                if isinstance(token, dict) and token.get("content") == self._info.get(name):
                    self._info.setdefault(key, int(number))
        template = _template_in(config.get("chat_template"))
        for name in ("processor_config.json", "chat_template.json"):
            template = _template_in(read(name).get("chat_template")) or template
        if folder is not None and (folder / "chat_template.jinja").is_file():
            template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        self._info["chat_template"] = template

    def _settle(self) -> None:
        """Read what the tokenizer's IR says of special tokens and the template."""
        if self._info.get("settled") or TOKENIZER not in self._sources:
            return
        model = self._model(TOKENIZER)
        self._info["settled"] = True
        for key in (*SPECIAL.values(), "chat_template", "simplified_chat_template"):
            if model.has_rt_info(key):
                value = (
                    model.get_rt_info(key).astype(str) if key.endswith("template") else model.get_rt_info(key)
                )
                value = getattr(value, "value", value)
                if key.endswith("_id"):
                    self._info[key] = int(value)
                else:
                    self._info["chat_template"] = str(value)
        vocabulary = self.get_vocab()
        by_number = {number: text for text, number in vocabulary.items()}
        for name, key in SPECIAL.items():
            if name not in self._info and self._info.get(key) in by_number:
                self._info[name] = by_number[self._info[key]].decode(errors="replace")
            text = self._info.get(name)
            if key not in self._info and text is not None and text.encode() in vocabulary:
                self._info[key] = vocabulary[text.encode()]

    def _model(self, name: str) -> Any:
        source = self._sources.get(name)
        if source is None:
            kind = "tokenizer" if name == TOKENIZER else "detokenizer"
            where = "" if self._folder is None else f" in {str(self._folder)!r}"
            raise OvjitError(f"there is no {kind}: {name} is missing{where}; convert the tokenizer by "
                             "convert_tokenizer of openvino_tokenizers, with_detokenizer=True")  # fmt: skip
        if isinstance(source, str):
            return _core().read_model(source)
        return _core().read_model(source[0], source[1])

    def _run(self, name: str, *inputs: Any) -> dict[str, np.ndarray]:
        if name not in self._compiled:
            compiled = _core().compile_model(self._model(name), "CPU", self._properties)
            self._compiled[name] = compiled
        compiled = self._compiled[name]
        results = compiled(list(inputs))
        return {
            next(iter(port.get_names()), str(i)): np.array(results[port])
            for i, port in enumerate(compiled.outputs)
        }

    # -- texts and tokens

    def encode(
        self,
        prompts: Any,
        prompts_2: Any = None,
        add_special_tokens: bool = True,
        pad_to_max_length: bool = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        truncation: bool = False,
        prompt: Any = None,
    ) -> TokenizedInputs:
        """The tokens of a text, or of a list of texts with padding."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if prompts_2 is not None:
            raise OvjitError("pairs of texts need a tokenizer with add_second_input=True")
        if padding_side not in (None, "left", "right"):
            raise OvjitError(f"padding_side should be 'left' or 'right', not {padding_side!r}")
        rows = [self._encode_one(text, add_special_tokens) for text in texts]
        if truncation and max_length is not None:
            rows = [row[:max_length] for row in rows]
        length = max((len(row) for row in rows), default=0)
        if pad_to_max_length and max_length is not None:
            length = max(length, max_length)
        pad = self.get_pad_token_id() if len({len(row) for row in rows} | {length}) > 1 else 0
        ids = np.full((len(rows), length), max(pad, 0), np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        left = (padding_side or self._padding_side()) == "left"
        for i, row in enumerate(rows):
            place = slice(length - len(row), length) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        return TokenizedInputs(Tensor(ids), Tensor(mask))

    def _padding_side(self) -> str:
        return "left"

    def _encode_one(self, text: str, special: bool) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"a prompt is a str, not {type(text).__name__}")
        found = self._run(TOKENIZER, np.array([text], dtype=object))
        ids = found.get("input_ids", next(iter(found.values())))
        mask = found.get("attention_mask")
        row = ids[0][mask[0] != 0] if mask is not None else ids[0]
        tokens = [int(token) for token in row]
        return tokens if special else self._without_special(tokens)

    def _without_special(self, tokens: list[int]) -> list[int]:
        """Tokens without those that the tokenizer adds to every text."""
        before, behind = self._added()
        if before and tokens[: len(before)] == before:
            tokens = tokens[len(before) :]
        if behind and tokens[-len(behind) :] == behind:
            tokens = tokens[: -len(behind)]
        return tokens

    def _added(self) -> tuple[list[int], list[int]]:
        """The tokens that are added before and behind each text: those of an empty text, split by a probe."""
        if "added" not in self._info:
            found = self._run(TOKENIZER, np.array(["a"], dtype=object))
            empty = self._run(TOKENIZER, np.array([""], dtype=object))
            ids, none = (f.get("input_ids", next(iter(f.values())))[0].tolist() for f in (found, empty))
            before = 0
            while before < min(len(ids), len(none)) and ids[before] == none[before]:
                before += 1
            self._info["added"] = [int(t) for t in none[:before]], [int(t) for t in none[before:]]
        return self._info["added"]

    def decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        """The text of a list of tokens; a list of texts for a tensor or a list of lists."""
        if isinstance(tokens, Tensor):
            tokens = np.array(tokens.data)
        if isinstance(tokens, np.ndarray):
            rows = [list(map(int, row)) for row in tokens.reshape(-1, tokens.shape[-1])]
            return [self._decode_one(row, skip_special_tokens) for row in rows]
        tokens = list(tokens)
        if tokens and isinstance(tokens[0], (list, tuple, np.ndarray)):
            return [self._decode_one(list(map(int, row)), skip_special_tokens) for row in tokens]
        return self._decode_one(list(map(int, tokens)), skip_special_tokens)

    def _decode_one(self, tokens: list[int], skip: bool) -> str:
        if not tokens:
            return ""
        found = self._run(DETOKENIZER, np.array([tokens], np.int64))
        text = next(iter(found.values())).reshape(-1)[0]
        return text.decode(errors="replace") if isinstance(text, bytes) else str(text)

    # -- special tokens and vocabulary

    def _special(self, name: str) -> Any:
        self._settle()
        return self._info.get(name)

    def get_bos_token_id(self) -> int:
        return self._number("bos_token_id")

    def get_eos_token_id(self) -> int:
        return self._number("eos_token_id")

    def get_pad_token_id(self) -> int:
        return self._number("pad_token_id")

    def _number(self, name: str) -> int:
        value = self._special(name)
        return -1 if value is None else int(value)

    def get_bos_token(self) -> str:
        return self._special("bos_token") or ""

    def get_eos_token(self) -> str:
        return self._special("eos_token") or ""

    def get_pad_token(self) -> str:
        return self._special("pad_token") or ""

    def supports_paired_input(self) -> bool:
        return False

    def get_vocab(self) -> dict[bytes, int]:
        """bytes of a token -> its number, from the detokenizer's vocabulary."""
        if "vocabulary" not in self._info:
            self._info["vocabulary"] = _vocabulary(self._model(DETOKENIZER))
        return dict(self._info["vocabulary"])

    def get_vocab_vector(self) -> list[str]:
        """Texts of all tokens, by number. UnicodeDecodeError if one is no text."""
        return [text.decode() for text, _ in sorted(self.get_vocab().items(), key=lambda item: item[1])]

    # -- chat templates

    @property
    def chat_template(self) -> str:
        if self._template_override is not None:
            return self._template_override
        return self._special("chat_template") or ""

    @chat_template.setter
    def chat_template(self, template: str) -> None:
        self.set_chat_template(template)

    def set_chat_template(self, chat_template: str) -> None:
        self._template_override = chat_template

    def get_original_chat_template(self) -> str:
        return self._special("chat_template") or ""

    def apply_chat_template(
        self,
        history: Any,
        add_generation_prompt: bool,
        chat_template: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra_context: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a chat's messages. RuntimeError without a template."""
        if isinstance(history, ChatHistory):
            messages: Sequence[Any] = history.get_messages()
            tools = tools if tools is not None else history.get_tools()
            extra_context = extra_context if extra_context is not None else history.get_extra_context()
        else:
            messages = list(history)
        template = chat_template or self.chat_template
        if not template:
            raise OvjitError(
                "Chat template wasn't found. This may indicate that the model wasn't trained for chat scenario. "
                "Please add 'chat_template' to tokenizer_config.json to use the model in chat scenario."
            )
        tokens = {name: self._special(name) or "" for name in SPECIAL}
        return render_chat(template, messages, add_generation_prompt, tools or (), extra_context, tokens)


def _template_in(value: Any) -> str:
    """The template in a setting: a text, or a list of named ones."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        return named.get("default") or next((text for text in named.values() if text), "")
    return ""


def _vocabulary(model: Any) -> dict[bytes, int]:
    """The vocabulary constant of a detokenizer: begins, ends and bytes of each token's text."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "VocabDecoder":
            begins, ends, content = (
                np.array(node.input_value(i).get_node().data).reshape(-1) for i in (1, 2, 3)
            )
            data = content.astype(np.uint8).tobytes()
            return {data[int(b) : int(e)]: i for i, (b, e) in enumerate(zip(begins, ends, strict=True))}
    return {}


def now_us() -> float:
    """Microseconds of a monotonic clock."""
    return time.perf_counter() * 1e6
