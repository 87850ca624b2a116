"""GenerationConfig: how tokens are chosen and when to stop."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ovjit.errors import OvjitError
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.enums import StopCriteria
from ovjit.genai.fields import (
    BOOL,
    REAL,
    SIZE,
    TOKEN,
    UNLIMITED,
    Copied,
    Instance,
    Kind,
    Optional,
    Set,
    Settings,
)
from ovjit.genai.grammars import StructuredOutputConfig
from ovjit.genai.json_files import read_json
from ovjit.genai.parsers import Parsers

#: Field -> (default, kind).
FIELDS: dict[str, tuple[Any, Kind]] = {
    "adapters": (None, Optional(Copied(AdapterConfig))), "apply_chat_template": (True, BOOL),
    "assistant_confidence_threshold": (0.0, REAL), "branching_factor": (1, SIZE),
    "diversity_penalty": (0.0, REAL), "do_sample": (False, BOOL), "echo": (False, BOOL),
    "eos_token_id": (-1, TOKEN), "frequency_penalty": (0.0, REAL), "ignore_eos": (False, BOOL),
    "include_stop_str_in_output": (False, BOOL), "length_penalty": (1.0, REAL), "logprobs": (0, SIZE),
    "max_length": (UNLIMITED, SIZE), "max_new_tokens": (UNLIMITED, SIZE), "max_ngram_size": (0, SIZE),
    "min_new_tokens": (0, SIZE), "min_p": (0.0, REAL), "no_repeat_ngram_size": (UNLIMITED, SIZE),
    "num_assistant_tokens": (None, Optional(SIZE)), "num_beam_groups": (1, SIZE), "num_beams": (1, SIZE),
    "num_return_sequences": (1, SIZE), "parsers": ([], Parsers()), "presence_penalty": (0.0, REAL),
    "pruning_ratio": (0, SIZE), "relevance_weight": (0.5, REAL), "repetition_penalty": (1.0, REAL),
    "return_omni_outputs": (False, BOOL), "rng_seed": (0, SIZE),
    "stop_criteria": (StopCriteria.HEURISTIC, Instance(StopCriteria)), "stop_strings": (set(), Set(str)),
    "stop_token_ids": (set(), Set(int)),
    "structured_output_config": (None, Optional(Copied(StructuredOutputConfig))),
    "temperature": (1.0, REAL), "top_k": (UNLIMITED, SIZE), "top_p": (1.0, REAL), "tree_depth": (0, SIZE),
}  # fmt: skip
#: Fields of generation_config.json that are read.
_OF_FILES = (
    "max_new_tokens", "max_length", "ignore_eos", "min_new_tokens", "include_stop_str_in_output", "echo",
    "logprobs", "repetition_penalty", "frequency_penalty", "presence_penalty", "num_beam_groups", "num_beams",
    "diversity_penalty", "length_penalty", "num_return_sequences", "no_repeat_ngram_size", "do_sample",
    "temperature", "top_p", "top_k", "min_p", "assistant_confidence_threshold", "num_assistant_tokens",
    "max_ngram_size", "branching_factor", "tree_depth",
)  # fmt: skip
_CRITERIA = {"never": StopCriteria.NEVER, True: StopCriteria.EARLY, False: StopCriteria.HEURISTIC}


class GenerationConfig(Settings):
    """Settings of a generation: from keywords, or the path of a generation_config.json.

    Attributes are those of `FIELDS`. Unknown keywords are ignored, as in openvino_genai.
    """

    _fields = FIELDS

    def __init__(self, json_path: Any = None, **kwargs: Any):
        if json_path is not None and not isinstance(json_path, (str, bytes, os.PathLike)):
            raise TypeError(f"json_path should be a path, not {type(json_path).__name__}")
        super().__init__()
        if json_path is not None:
            self._read(json_path)
        self.update_generation_config(**kwargs)

    def _read(self, path: Any) -> None:
        content = read_json(path, " with generation config")
        for name, value in self._select(content).items():
            try:
                self._values[name] = self._fields[name][1].convert(value)
            except (TypeError, ValueError) as error:
                raise OvjitError(f"{name} in {os.fsdecode(path)}: {error}") from error
        strings = content.get("stop_strings")
        if isinstance(strings, list):
            self.stop_strings = set(strings)
        criteria = content.get("early_stopping")
        if isinstance(criteria, (bool, str)) and criteria in _CRITERIA:
            self.stop_criteria = _CRITERIA[criteria]
        ends = content.get("eos_token_id")
        if isinstance(ends, list) and ends:
            self.stop_token_ids = set(ends)
            ends = ends[0]
        if isinstance(ends, int):
            self.eos_token_id = ends
        if self.eos_token_id != -1:
            self.set_eos_token_id(self.eos_token_id)

    def _select(self, content: dict[str, Any]) -> dict[str, Any]:
        """The values in a file's content that are read as fields."""
        values = {name: content.get(name) for name in _OF_FILES}
        return {name: v for name, v in values.items() if v is not None and not isinstance(v, list)}

    def inherit(self, default: Any) -> None:
        """Take the ends from `default` if this configuration has none."""
        if not self.stop_token_ids:
            self.stop_token_ids = default.stop_token_ids
        if self.eos_token_id == -1 and default.eos_token_id != -1:
            self.set_eos_token_id(default.eos_token_id)

    def set_eos_token_id(self, tokenizer_eos_token_id: int) -> None:
        """Set the token that ends a text, and add it to `stop_token_ids`."""
        self.eos_token_id = tokenizer_eos_token_id
        self.stop_token_ids = self.stop_token_ids | {tokenizer_eos_token_id}

    def update_generation_config(self, **kwargs: Any) -> None:
        """Set fields by keywords. Unknown ones are ignored; values of other types are RuntimeErrors."""
        self.update_fields(kwargs)
        if self.eos_token_id != -1:
            self.set_eos_token_id(self.eos_token_id)

    def _prefer_new_tokens(self) -> None:
        """Ignore `max_length` beside `max_new_tokens`, as openvino_genai does with speech and with
        ATTENTION_BACKEND SDPA."""
        if self.max_new_tokens != UNLIMITED:
            self.max_length = UNLIMITED

    def is_greedy_decoding(self) -> bool:
        return not (self.do_sample or self.is_beam_search() or self.is_tree_search())

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

    def validate(self) -> None:
        """RuntimeError if fields are out of range or contradict each other."""
        for check in (_check_stops, _check_choice, _check_beams, _check_assistant):
            check(self)
        if self.structured_output_config is not None:
            self.structured_output_config.validate()


C = TypeVar("C", bound=GenerationConfig)


def read_config(kind: type[C], folder: Path) -> C:
    """The configuration in the generation_config.json of a folder; that without keywords if there is none."""
    file = folder / "generation_config.json"
    return kind(file if file.is_file() else None)


def add_eos(config: GenerationConfig, tokenizer: Any) -> None:
    """Take the token that ends texts from the tokenizer, if the configuration has none and it has one."""
    if config.eos_token_id == -1 and tokenizer.get_eos_token_id() != -1:
        config.set_eos_token_id(tokenizer.get_eos_token_id())


def demand(condition: Any, message: str) -> None:
    if not condition:
        raise OvjitError(message)


def _check_stops(config: GenerationConfig) -> None:
    demand(config.num_return_sequences > 0, "num_return_sequences should be at least 1")
    demand(
        config.eos_token_id == -1 or config.eos_token_id in config.stop_token_ids,
        "stop_token_ids should have eos_token_id: call set_eos_token_id",
    )
    demand(all(token >= 0 for token in config.stop_token_ids), "stop_token_ids should not be negative")
    limited = config.max_new_tokens != UNLIMITED or config.max_length != UNLIMITED
    demand(limited or not config.ignore_eos, "with ignore_eos, max_new_tokens or max_length should be set")
    demand(
        limited or config.eos_token_id != -1 or config.stop_token_ids or config.stop_strings,
        "eos_token_id, stop_token_ids, stop_strings, max_new_tokens or max_length should be set",
    )
    demand(config.echo or config.max_new_tokens > 0, "max_new_tokens should be at least 1, or 0 with echo")
    demand(
        config.min_new_tokens <= config.max_new_tokens,
        f"min_new_tokens ({config.min_new_tokens}) should not be above max_new_tokens "
        f"({config.max_new_tokens})",
    )


def _check_choice(config: GenerationConfig) -> None:
    demand(
        config.num_return_sequences == 1 or config.is_multinomial() or config.is_beam_search(),
        f"num_return_sequences ({config.num_return_sequences}) can be above 1 only with do_sample or beams",
    )
    if not config.is_beam_search():
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(config, name)
            demand(-2 <= value <= 2, f"{name} should be in [-2, 2], not {value}")
        demand(
            config.repetition_penalty > 0,
            f"repetition_penalty should be above 0, not {config.repetition_penalty}",
        )
    if config.is_multinomial():
        demand(0 < config.top_p <= 1, f"top_p should be in (0, 1], not {config.top_p}")
        demand(config.temperature > 0, f"temperature should be above 0, not {config.temperature}")
        demand(0 <= config.min_p < 1, f"min_p should be in [0, 1), not {config.min_p}")


def _check_beams(config: GenerationConfig) -> None:
    if not config.is_beam_search():
        return
    for name, neutral in (("frequency_penalty", 0), ("presence_penalty", 0), ("repetition_penalty", 1)):
        demand(getattr(config, name) == neutral, f"{name} is not supported with beams: leave it at {neutral}")
    beams, groups = config.num_beams, config.num_beam_groups
    demand(
        groups and beams % groups == 0,
        f"num_beams ({beams}) should be a multiple of num_beam_groups ({groups})",
    )
    demand(
        beams >= config.num_return_sequences,
        f"num_return_sequences ({config.num_return_sequences}) should not be above num_beams ({beams})",
    )
    demand(not config.do_sample, "beams need do_sample=False: set num_beams=1 for sampling")
    demand(config.no_repeat_ngram_size > 0, "no_repeat_ngram_size should be at least 1")
    demand(
        (groups > 1) == (config.diversity_penalty != 0),
        "diversity_penalty should be set with several num_beam_groups, and with them only",
    )


def _check_assistant(config: GenerationConfig) -> None:
    drafted = config.num_assistant_tokens or 0
    if config.is_tree_search():
        demand(not config.do_sample, "tree_depth is not supported with do_sample")
        demand(config.num_beams == 1, "tree_depth is not supported with beams")
        demand(config.branching_factor > 0, "branching_factor should be at least 1 with tree_depth")
        demand(
            drafted >= config.tree_depth,
            f"num_assistant_tokens ({drafted}) should not be below tree_depth ({config.tree_depth})",
        )
    if config.is_assisting_generation():
        demand(
            not config.is_beam_search() and config.num_return_sequences == 1,
            "beams and several sequences are not supported with a draft model or prompt lookup",
        )
        demand(
            config.assistant_confidence_threshold == 0 or drafted == 0,
            "set one of assistant_confidence_threshold and num_assistant_tokens, not both",
        )
    demand(drafted or config.max_ngram_size == 0, "max_ngram_size needs num_assistant_tokens above 0")


def count_new_tokens(config: GenerationConfig, prompt_length: int) -> int:
    """The maximum number of new tokens for a prompt of this length. RuntimeError if it is too long."""
    if config.max_length != UNLIMITED and config.max_length <= prompt_length:
        raise OvjitError(
            f"max_length ({config.max_length}) should be above the number of the prompt's tokens "
            f"({prompt_length})"
        )
    if config.max_new_tokens != UNLIMITED or config.max_length == UNLIMITED:
        return config.max_new_tokens
    return config.max_length - prompt_length


def merge(config: C | None, default: C, keywords: Mapping[str, Any]) -> C:
    """The configuration of a call: `config` or a copy of the default, with keywords set, and validated.
    TypeError if it is not of the default's class."""
    if config is not None and not isinstance(config, type(default)):
        kind = type(default).__name__
        raise TypeError(f"generation_config should be a {kind}, not {type(config).__name__}")
    merged = copy.copy(default if config is None else config)
    merged.update_generation_config(**keywords)
    merged.inherit(default)
    merged.validate()
    return merged


def check_single(streamer: object, config: GenerationConfig, prompts: int) -> None:
    """Raise RuntimeError for a streamer (not None) of several prompts or sequences."""
    several = prompts > 1 or config.num_return_sequences > 1 or config.is_beam_search()
    if streamer is not None and several:
        raise OvjitError(
            "a streamer takes one sequence: give one prompt, without beams and num_return_sequences"
        )
