"""GenerationConfig: how tokens are chosen and when to stop."""

from __future__ import annotations

import copy
import json
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.enums import StopCriteria

#: The value of a number that is not limited.
UNLIMITED = 2**64 - 1


def _size(value: Any) -> int:
    """An unsigned 64-bit integer; -1 wraps around, as in C++."""
    if isinstance(value, (str, float)):
        value = int(float(value))
    return operator.index(value) & UNLIMITED


def _integer(value: Any) -> int:
    return int(float(value)) if isinstance(value, (str, float)) else operator.index(value)


def _float(value: Any) -> float:
    return float(value)


def _bool(value: Any) -> bool:
    return bool(value)


def _texts(value: Any) -> set[str]:
    if not isinstance(value, (set, frozenset)):
        raise TypeError(f"expected a set of str, not {type(value).__name__}")
    return {str(text) for text in value}


def _tokens(value: Any) -> set[int]:
    if not isinstance(value, (set, frozenset)):
        raise TypeError(f"expected a set of int, not {type(value).__name__}")
    return {operator.index(token) for token in value}


def _criteria(value: Any) -> StopCriteria:
    if not isinstance(value, StopCriteria):
        raise TypeError(f"expected a StopCriteria, not {type(value).__name__}")
    return value


def _any(value: Any) -> Any:
    return value


#: Field -> (default, conversion).
FIELDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "adapters": (None, _any), "apply_chat_template": (True, _bool),
    "assistant_confidence_threshold": (0.0, _float), "branching_factor": (1, _size),
    "diversity_penalty": (0.0, _float), "do_sample": (False, _bool), "echo": (False, _bool),
    "eos_token_id": (-1, _integer), "frequency_penalty": (0.0, _float), "ignore_eos": (False, _bool),
    "include_stop_str_in_output": (False, _bool), "length_penalty": (1.0, _float), "logprobs": (0, _size),
    "max_length": (UNLIMITED, _size), "max_new_tokens": (UNLIMITED, _size), "max_ngram_size": (0, _size),
    "min_new_tokens": (0, _size), "min_p": (0.0, _float), "no_repeat_ngram_size": (UNLIMITED, _size),
    "num_assistant_tokens": (None, lambda value: None if value is None else _size(value)),
    "num_beam_groups": (1, _size), "num_beams": (1, _size), "num_return_sequences": (1, _size),
    "parsers": ([], list), "presence_penalty": (0.0, _float), "pruning_ratio": (0, _size),
    "relevance_weight": (0.5, _float), "repetition_penalty": (1.0, _float),
    "return_omni_outputs": (False, _bool), "rng_seed": (0, _size), "stop_criteria": (StopCriteria.HEURISTIC, _criteria),
    "stop_strings": (set(), _texts), "stop_token_ids": (set(), _tokens),
    "structured_output_config": (None, _any), "temperature": (1.0, _float), "top_k": (UNLIMITED, _size),
    "top_p": (1.0, _float), "tree_depth": (0, _size),
}  # fmt: skip
#: Fields of generation_config.json that are read.
_OF_FILES = (
    "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "max_length", "max_new_tokens",
    "min_new_tokens", "num_beams", "num_beam_groups", "diversity_penalty", "length_penalty",
    "num_return_sequences", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty", "ignore_eos",
    "include_stop_str_in_output", "stop_strings", "echo", "logprobs", "min_p", "rng_seed",
)  # fmt: skip


class GenerationConfig:
    """How a pipeline generates: from keywords, or the path of a generation_config.json.

    Attributes are those of `FIELDS`. An unknown attribute is an AttributeError; unknown keywords are ignored,
    as in openvino_genai.
    """

    def __init__(self, json_path: Any = None, **kwargs: Any):
        values = {name: copy.copy(default) for name, (default, _) in FIELDS.items()}
        self.__dict__["_values"] = values
        if json_path is not None:
            self._read(json_path)
        self.update_generation_config(**kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"'GenerationConfig' object has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in FIELDS:
            raise AttributeError(f"'GenerationConfig' object has no attribute {name!r}")
        self.__dict__["_values"][name] = FIELDS[name][1](value)

    def __copy__(self) -> GenerationConfig:
        other = type(self)()
        other._values.update({name: copy.copy(value) for name, value in self._values.items()})
        return other

    def __deepcopy__(self, memo: Any) -> GenerationConfig:
        return self.__copy__()

    def _read(self, path: Any) -> None:
        try:
            with open(os.fsdecode(path), encoding="utf-8") as file:
                content = json.load(file)
        except OSError as error:
            raise OvjitError(f"Failed to open '{os.fsdecode(path)}' with generation config") from error
        except ValueError as error:
            raise OvjitError(f"{os.fsdecode(path)} is no JSON: {error}") from error
        for name in _OF_FILES:
            if content.get(name) is not None:
                value = content[name]
                setattr(
                    self, name, set(value) if name == "stop_strings" and isinstance(value, list) else value
                )
        ends = content.get("eos_token_id")
        if isinstance(ends, int):
            self.set_eos_token_id(ends)
        elif isinstance(ends, list) and ends:
            self.eos_token_id = ends[0]
            self.stop_token_ids = set(ends)

    def set_eos_token_id(self, tokenizer_eos_token_id: int) -> None:
        """Set the token that ends a text. RuntimeError if another one is set."""
        if self.eos_token_id >= 0 and self.eos_token_id != tokenizer_eos_token_id:
            raise OvjitError(
                f"EOS token ID is different in generation config ({self.eos_token_id}) and tokenizer "
                f"({tokenizer_eos_token_id})"
            )
        self.eos_token_id = tokenizer_eos_token_id
        self.stop_token_ids = self.stop_token_ids | {tokenizer_eos_token_id}

    def update_generation_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Set fields by keywords. Unknown ones are ignored; values of other types are RuntimeErrors."""
        for name, value in {**(config or {}), **kwargs}.items():
            if name not in FIELDS:
                continue
            if value is None:
                if FIELDS[name][0] is None:
                    self._values[name] = None
                    continue
                raise OvjitError(f"the value of {name} should not be None")
            if name == "stop_strings" and isinstance(value, str):
                value = set(value.split())
            try:
                setattr(self, name, value)
            except (TypeError, ValueError) as error:
                raise OvjitError(f"the value {value!r} of {name} is not supported: {error}") from error
        eos = self.eos_token_id
        if eos >= 0:
            self._values["stop_token_ids"] = self.stop_token_ids | {eos}

    def is_greedy_decoding(self) -> bool:
        return not self.do_sample and not self.is_beam_search()

    def is_beam_search(self) -> bool:
        return self.num_beams > 1

    def is_multinomial(self) -> bool:
        return self.do_sample

    def is_tree_search(self) -> bool:
        return self.tree_depth > 0

    def is_assisting_generation(self) -> bool:
        return self.assistant_confidence_threshold > 0 or (self.num_assistant_tokens or 0) > 0

    def is_prompt_lookup(self) -> bool:
        return self.max_ngram_size > 0 and (self.num_assistant_tokens or 0) > 0

    def get_max_new_tokens(self, prompt_length: int = 0) -> int:
        """The maximum number of new tokens for a prompt of this length."""
        if self.max_new_tokens != UNLIMITED:
            return self.max_new_tokens
        return UNLIMITED if self.max_length == UNLIMITED else self.max_length - prompt_length

    def validate(self) -> None:
        """RuntimeError if fields are out of range or contradict one another."""

        def check(condition: Any, message: str) -> None:
            if not condition:
                raise OvjitError(message)

        check(self.num_return_sequences > 0, "num_return_sequences must be greater than 0")
        check(
            self.num_return_sequences == 1 or self.is_multinomial() or self.is_beam_search(),
            "num_return_sequences can be more than 1 only in case of beam search or random sampling. "
            f"num_return_sequences = {self.num_return_sequences}",
        )
        check(
            not self.stop_strings or not self.include_stop_str_in_output or self.stop_strings,
            "stop_strings should not be empty if include_stop_str_in_output is set to true",
        )
        check(
            not self.include_stop_str_in_output or self.stop_strings,
            "include_stop_str_in_output is set to True, but stop_strings is empty",
        )
        check(
            not self.ignore_eos or self.max_new_tokens != UNLIMITED or self.max_length != UNLIMITED,
            "ignore_eos is true, in this case either 'max_new_tokens', or 'max_length' should be defined.",
        )
        check(self.echo or self.max_new_tokens > 0, "'max_new_tokens' must be greater than 0")
        check(
            self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens must be less or equal max_new_tokens",
        )
        if self.is_multinomial():
            check(self.num_beams == 1, "Beam search with sampling is not supported yet. Set num_beams to 1")
            check(self.top_k > 0, "When 'do_sample' is true, top_k must be a strictly positive, "
                                  f"but got {self.top_k}")  # fmt: skip
            check(0 < self.top_p <= 1, "When 'do_sample' is true, top_p must be a positive float > 0.0 and "
                                       f"<= 1.0, but got {self.top_p}")  # fmt: skip
            check(self.temperature > 0, "When 'do_sample' is true, temperature must be a strictly positive "
                                        f"float, but got {self.temperature}")  # fmt: skip
            check(
                0 <= self.min_p < 1,
                f"When 'do_sample' is true, min_p must be in [0, 1), but got {self.min_p}",
            )
        if not self.is_beam_search():
            check(self.repetition_penalty > 0, "repetition_penalty must be a strictly positive float, but got "
                                               f"{self.repetition_penalty}")  # fmt: skip
            for name in ("frequency_penalty", "presence_penalty"):
                check(-2 <= getattr(self, name) <= 2, f"{name} must be in range [-2.0, 2.0], but got "
                                                      f"{getattr(self, name)}")  # fmt: skip
            check(self.num_beam_groups == 1, "num_beam_groups is supported only with beam search")
            check(self.diversity_penalty == 0, "diversity_penalty is supported only with beam search")
        else:
            self._validate_beams(check)
        if self.is_assisting_generation():
            check(
                self.num_assistant_tokens in (None, 0) or self.assistant_confidence_threshold == 0,
                "Parameters `assistant_confidence_threshold` and `num_assistant_tokens` are mutually exclusive",
            )
            check(self.num_return_sequences == 1, "num_return_sequences must be 1 for assisted generation")

    def _validate_beams(self, check: Callable[[Any, str], None]) -> None:
        check(self.no_repeat_ngram_size > 0, "no_repeat_ngram_size must be positive")
        check(self.num_beam_groups > 0, "num_beam_groups must be positive")
        check(
            self.num_beams % self.num_beam_groups == 0,
            f"number of beams should be divisible by number of groups: {self.num_beams}, {self.num_beam_groups}",
        )
        check(
            self.num_return_sequences <= self.num_beams,
            f"num_return_sequences ({self.num_return_sequences}) must be less or equal num_beams "
            f"({self.num_beams})",
        )
        if self.num_beam_groups > 1:
            check(
                self.diversity_penalty != 0,
                "For group beam search diversity_penalty should not be zero",
            )
        else:
            check(
                self.diversity_penalty == 0,
                "For beam search with one group diversity_penalty should be 0",
            )
        for name, neutral in (("frequency_penalty", 0), ("presence_penalty", 0), ("repetition_penalty", 1)):
            check(
                getattr(self, name) == neutral,
                f"{name} is not supported with beam search: set it to {neutral}",
            )


#: Keywords of `generate` that are no fields of the configuration.
NOT_FIELDS = frozenset(("generation_config", "streamer"))


def merge(
    config: GenerationConfig | None, default: GenerationConfig, keywords: Mapping[str, Any]
) -> GenerationConfig:
    """The configuration of a call: `config` or a copy of the default, with keywords set, and validated."""
    if config is not None and not isinstance(config, GenerationConfig):
        raise TypeError(f"generation_config should be a GenerationConfig, not {type(config).__name__}")
    merged = copy.copy(default if config is None else config)
    if merged.eos_token_id == -1 and default.eos_token_id != -1:
        merged.set_eos_token_id(default.eos_token_id)
    merged.update_generation_config(**keywords)
    merged.validate()
    return merged
