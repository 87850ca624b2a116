"""Tokenizer: texts to tokens and back, by the IRs openvino_tokenizer.xml and openvino_detokenizer.xml."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.encode_arguments import read_encode_arguments
from ovjit.genai.gguf_texts import GgufTexts
from ovjit.genai.grammar_masks import GrammarCompiler
from ovjit.genai.history import ChatHistory
from ovjit.genai.pairs import join_pairs, pad, read_pair_template
from ovjit.genai.special_tokens import SpecialTokens
from ovjit.genai.templates import render_chat
from ovjit.genai.tokenizer_graphs import add_flags, add_skip, unpack_texts
from ovjit.generation.tokenizer import is_gguf
from ovjit.locks import rlock

TOKENIZER, DETOKENIZER = "openvino_tokenizer.xml", "openvino_detokenizer.xml"
#: Properties that the tokenizer's models get; others are those of the pipeline's model.
_PROPERTIES = frozenset(
    ("PERFORMANCE_HINT", "PERFORMANCE_HINT_NUM_REQUESTS", "ENABLE_CPU_PINNING", "NUM_STREAMS",
     "INFERENCE_NUM_THREADS", "EXECUTION_MODE_HINT", "ENABLE_HYPER_THREADING", "ENABLE_CPU_RESERVATION",
     "PERF_COUNT")
)  # fmt: skip

#: The longest rows that are padded without a `max_length`. A larger number says that there is no limit.
_PADDED = 2**20


class TokenizedInputs:
    """Tokens [texts, length] and their mask, as Tensors."""

    __slots__ = ("input_ids", "attention_mask", "_types")

    def __init__(self, input_ids: Tensor, attention_mask: Tensor):
        for name, value in (("input_ids", input_ids), ("attention_mask", attention_mask)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} should be a Tensor, not {type(value).__name__}")
        self.input_ids, self.attention_mask = input_ids, attention_mask
        #: Whether a token is of the first or the second text, where the tokenizer says.
        self._types: np.ndarray | None = None


class _Texts:
    """A compiled tokenizer or detokenizer. Flags that the graph has no input for are ignored."""

    def __init__(self, model: Any, flags: Mapping[str, np.ndarray], properties: Mapping[str, Any]):
        from ovjit.api.run.core import Core

        self.names = [next(iter(port.get_names()), str(i)) for i, port in enumerate(model.outputs)]
        self.defaults = flags
        self._compiled = Core().compile_model(model, "CPU", dict(properties))
        self._count = len(self._compiled.inputs) - len(flags)

    def longest(self) -> int:
        """The length to which rows are truncated or padded by default; 0 without the flag."""
        return int(self.defaults.get("max_length", np.zeros(1)).reshape(-1)[0])

    def run(self, inputs: Sequence[np.ndarray], options: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs by name. `options`: values of flags; None for the default."""
        feeds = list(inputs) + [np.zeros(0, object)] * (self._count - len(inputs))
        for name, default in self.defaults.items():
            value = options.get(name)
            feeds.append(default if value is None else np.full(default.shape, value, default.dtype))
        results = self._compiled(feeds)
        return {name: np.array(results[i]) for i, name in enumerate(self.names)}


class Tokenizer:
    """The tokenizer of a folder or a GGUF file: Tokenizer(tokenizer_path, **properties), or of IRs in memory:
    Tokenizer(tokenizer_model, tokenizer_weights, detokenizer_model, detokenizer_weights, **properties). A
    missing file is an error when it is first used."""

    def __init__(self, tokenizer_path: Any = None, *models: Any, properties: Any = None, **kwargs: Any):
        in_memory = ("tokenizer_weights", "detokenizer_model", "detokenizer_weights")
        if tokenizer_path is None:
            tokenizer_path = kwargs.pop("tokenizer_model", None)
        models += tuple(kwargs.pop(name) for name in in_memory if name in kwargs)
        if len(models) == 1 and isinstance(models[0], Mapping):
            properties, models = models[0], ()
        if properties:
            warnings.warn("properties is deprecated: use keywords", DeprecationWarning, 2)
        if len(models) not in (0, 3) or not isinstance(tokenizer_path, (str, bytes, os.PathLike)):
            raise TypeError(
                "__init__(): incompatible constructor arguments. Tokenizer takes the path of a folder, or "
                "the text and the weights of two IRs"
            )
        options = {**(properties or {}), **kwargs}
        self._pairs = bool(options.pop("add_second_input", False))
        self._properties = {name: value for name, value in options.items() if name in _PROPERTIES}
        self._lock = rlock("tokenizer")
        self._texts: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._vocabulary: list[bytes] | None = None
        #: Made when a grammar is first used.
        self._grammar_compiler: GrammarCompiler | None = None
        self._tokens = SpecialTokens()
        self._read_models(tokenizer_path, models)
        self._template = self._tokens.template

    def _read_models(self, path: Any, models: Sequence[Any]) -> None:
        from ovjit.api.run.core import Core

        self._folder = "" if models else os.fsdecode(path)
        self._gguf = None
        if not models and is_gguf(Path(self._folder)):
            self._gguf = GgufTexts(Path(self._folder))
            self._texts = {TOKENIZER: self._gguf.encoder(), DETOKENIZER: self._gguf.decoder()}
            self._tokens = self._gguf.special_tokens()
        elif models:
            self._models = {
                TOKENIZER: Core().read_model(path, models[0]),
                DETOKENIZER: Core().read_model(models[1], models[2]),
            }
        elif self._folder.endswith(".xml"):
            raise OvjitError(f"the path of a folder is needed, not that of a file: {self._folder!r}")
        else:
            folder = Path(self._folder)
            for name in (TOKENIZER, DETOKENIZER):
                if (folder / name).is_file():
                    self._models[name] = Core().read_model(str(folder / name))
            self._tokens = SpecialTokens.read(folder)
        model = self._models.get(TOKENIZER)
        self._takes_pairs = model is not None and len(model.inputs) == 2
        if model is not None:
            self._tokens.read_model(model)
        self._pair_template: list[tuple[int, int]] | None = None
        if self._pairs and (model is not None or self._gguf) and not self._takes_pairs:
            self._pair_template = None if model is None else read_pair_template(model)
            if self._pair_template is None:
                raise UnsupportedError(
                    "add_second_input needs a tokenizer with a template of pairs: convert the tokenizer with "
                    "number_of_inputs=2"
                )
            self._takes_pairs = True

    def _load(self, name: str) -> Any:
        with self._lock:
            if name not in self._texts:
                model = self._models.get(name)
                if model is None:
                    kind = "tokenizer" if name == TOKENIZER else "detokenizer"
                    raise OvjitError(
                        f"there is no {kind}: {name} is missing in {self._folder!r}; write it by "
                        "convert_tokenizer of openvino_tokenizers, with_detokenizer=True"
                    )
                versions = ("openvino_tokenizers_version", "openvino_genai_version")
                change = add_flags if name == TOKENIZER else add_skip
                # older tokenizers have other graphs, whose flags cannot be changed
                is_new = any(model.has_rt_info(key) for key in versions)
                changed, flags = change(model.clone()) if is_new else (model.clone(), {})
                if name == DETOKENIZER:
                    changed = unpack_texts(changed)
                self._texts[name] = _Texts(changed, flags, self._properties)
            return self._texts[name]

    # -- texts and tokens

    def encode(self, *arguments: Any, **keywords: Any) -> TokenizedInputs:
        """encode(prompt or prompts, add_special_tokens=True, pad_to_max_length=False, max_length=None,
        padding_side=None, truncation=False), or encode(prompts_1, prompts_2, ...): the tokens of a text, of a
        list of texts with padding, or of pairs. `max_length` counts only with `truncation` or
        `pad_to_max_length`."""
        texts, others, options = read_encode_arguments(arguments, keywords)
        inputs = self._texts_of(texts, others)
        if self._pair_template is not None and len(inputs) == 2:
            return self._encode_pairs(inputs, options)
        tokenizer = self._load(TOKENIZER)
        if options["pad_to_max_length"] and options["max_length"] is None and tokenizer.longest() > _PADDED:
            raise OvjitError("pad_to_max_length needs max_length: the tokenizer has no limit of its own")
        results = tokenizer.run(inputs, options)
        if "input_ids" not in results or "attention_mask" not in results:
            raise OvjitError(
                f"the tokenizer should have the outputs input_ids and attention_mask, not {list(results)}"
            )
        encoded = TokenizedInputs(Tensor(results["input_ids"]), Tensor(results["attention_mask"]))
        encoded._types = results.get("token_type_ids")
        return encoded

    def _encode_pairs(self, columns: list[np.ndarray], options: Mapping[str, Any]) -> TokenizedInputs:
        """Pairs by the template, for a tokenizer of one input."""
        tokenizer, most = self._load(TOKENIZER), options["max_length"]
        if options["pad_to_max_length"] and most is None:
            raise OvjitError("pad_to_max_length needs max_length: the tokenizer has no limit of its own")
        template = [t for t in self._pair_template or [] if options["add_special_tokens"] or t[0] < 0]
        tokens = []
        for column in columns:
            results = tokenizer.run([column], {"add_special_tokens": False, "truncation": False})
            pairs = zip(results["input_ids"], results["attention_mask"], strict=True)
            tokens.append([row[mask != 0].tolist() for row, mask in pairs])
        rows = join_pairs(tokens, template, most if options["truncation"] else None)
        right = options["pad_right"]
        if right is None:
            right = bool(tokenizer.defaults.get("pad_right", np.ones(1)).reshape(-1)[0])
        length = most if options["pad_to_max_length"] else 0
        ids, types, mask = pad(rows, length or 0, max(self.get_pad_token_id(), 0), right)
        paired = TokenizedInputs(Tensor(ids), Tensor(mask))
        paired._types = types
        return paired

    def _texts_of(self, texts: Any, others: Any) -> list[np.ndarray]:
        """The inputs of the tokenizer: arrays of texts."""
        texts = [texts] if isinstance(texts, str) else texts
        if others is None and texts and all(isinstance(text, list) for text in texts):
            if any(len(pair) != 2 for pair in texts):
                raise OvjitError("pairs of prompts should be lists of two texts")
            texts, others = [pair[0] for pair in texts], [pair[1] for pair in texts]
        columns = [list(texts)] if others is None else [list(texts), list(others)]
        for column in columns:
            if not all(isinstance(text, str) for text in column):
                raise OvjitError("prompts should be a str or a list of str")
        if len(columns) == 2 and not self._takes_pairs:
            raise OvjitError("the tokenizer takes no pairs: convert it with number_of_inputs=2")
        if len(columns) == 2 and len(columns[0]) != len(columns[1]) and 1 not in map(len, columns):
            raise OvjitError(
                f"as many second texts as first ones are needed, or one: {len(columns[0])}, {len(columns[1])}"
            )
        arrays = [np.empty(len(column), object) for column in columns]
        for array, column in zip(arrays, columns, strict=True):
            array[:] = column
        return arrays

    def decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        """The text of a list of tokens; a list of texts for a Tensor [texts, length] or a list of lists."""
        if isinstance(tokens, Tensor):
            ids = np.array(tokens.data)
            if ids.dtype != np.int64 or ids.ndim != 2:
                raise OvjitError(
                    f"tokens should be a Tensor of i64 [texts, length], not of {ids.dtype} {list(ids.shape)}"
                )
            return self._decode_rows(ids, skip_special_tokens)
        if isinstance(tokens, (str, bytes)) or not hasattr(tokens, "__len__"):
            raise TypeError(f"tokens should be a list of int or a Tensor, not {type(tokens).__name__}")
        rows = list(tokens)
        if not rows or not hasattr(rows[0], "__len__"):
            return self._decode_rows(np.array([rows], np.int64), skip_special_tokens)[0]
        length = max(map(len, rows))
        ids = np.full((len(rows), length), self.get_pad_token_id(), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return self._decode_rows(ids, skip_special_tokens)

    def _decode_rows(self, ids: np.ndarray, skip: bool) -> list[str]:
        results = self._load(DETOKENIZER).run([ids], {"skip_special_tokens": int(skip)})
        if len(results) == 1:
            return [str(text) for text in next(iter(results.values())).reshape(-1)]
        begins, ends, data = (array.reshape(-1) for array in results.values())
        chars = data.tobytes()
        return [
            chars[begin:end].decode(errors="replace")
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]

    # -- special tokens and vocabulary

    def _text_of(self, name: str) -> str:
        number = self._tokens.numbers[name]
        if not self._tokens.texts[name] and number != -1 and DETOKENIZER in self._models:
            self._tokens.texts[name] = self.decode([number], skip_special_tokens=False)
        return self._tokens.texts[name]

    def get_bos_token_id(self) -> int:
        return self._tokens.numbers["bos_token"]

    def get_eos_token_id(self) -> int:
        return self._tokens.numbers["eos_token"]

    def get_pad_token_id(self) -> int:
        return self._tokens.numbers["pad_token"]

    def get_bos_token(self) -> str:
        return self._text_of("bos_token")

    def get_eos_token(self) -> str:
        return self._text_of("eos_token")

    def get_pad_token(self) -> str:
        return self._text_of("pad_token")

    def supports_paired_input(self) -> bool:
        return self._takes_pairs

    def _words(self) -> list[bytes]:
        if self._vocabulary is None:
            model = self._models.get(DETOKENIZER)
            words = [] if self._gguf is None else self._gguf.vocabulary()
            self._vocabulary = words if model is None else vocabulary_of(model)
        return self._vocabulary

    def get_vocab(self) -> dict[bytes, int]:
        """bytes of a token -> its number, from the detokenizer's vocabulary."""
        return {word: i for i, word in enumerate(self._words())}

    def get_vocab_vector(self) -> list[str]:
        """Texts of all tokens, by number. UnicodeDecodeError if one is no text."""
        return [word.decode() for word in self._words()]

    # -- chat templates

    @property
    def chat_template(self) -> str:
        return self._template

    @chat_template.setter
    def chat_template(self, template: str) -> None:
        self.set_chat_template(template)

    def set_chat_template(self, chat_template: str) -> None:
        """Use this template from now on; "" for none."""
        if not isinstance(chat_template, str):
            raise TypeError(f"a template is a str, not {type(chat_template).__name__}")
        self._template = self._tokens.template = chat_template

    def get_original_chat_template(self) -> str:
        return self._tokens.template

    def apply_chat_template(
        self,
        history: Any,
        add_generation_prompt: bool,
        chat_template: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra_context: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a chat's messages. RuntimeError without a template, or if it fails."""
        if not isinstance(history, (ChatHistory, list, tuple)):
            raise TypeError(f"history should be a ChatHistory or a list, not {type(history).__name__}")
        chat = history if isinstance(history, ChatHistory) else ChatHistory(list(history))
        tools = chat.get_tools() if tools is None else tools
        extra = chat.get_extra_context() if extra_context is None else extra_context
        template = chat_template or self._template
        if not template:
            raise OvjitError(
                "there is no chat template: add 'chat_template' to tokenizer_config.json, or call "
                "set_chat_template; texts are used as they are with apply_chat_template=False"
            )
        tokens = {name: self._text_of(name) for name in ("bos_token", "eos_token", "pad_token")}
        return render_chat(template, chat.get_messages(), add_generation_prompt, tools, extra, tokens)


def vocabulary_of(model: Any) -> list[bytes]:
    """The texts of all tokens in a detokenizer; [] if it has no such constants."""
    decoders = [node for node in model.get_ordered_ops() if node.get_type_name() == "VocabDecoder"]
    if not decoders:
        return []
    nodes = [decoders[-1].input_value(i).get_node() for i in (1, 2, 3)]
    if any(node.get_type_name() != "Constant" for node in nodes):
        return []
    begins, ends, content = (np.array(node.data).reshape(-1) for node in nodes)
    data = content.astype(np.uint8).tobytes()
    return [data[int(b) : int(e)] for b, e in zip(begins, ends, strict=True)]
