"""The forms of `Tokenizer.encode`: a text, texts, and pairs of texts, each with the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.fields import BOOL, SIZE, Kind, Optional, Text

#: Option -> (default, kind), in the order of positional arguments.
_OPTIONS: dict[str, tuple[Any, Kind]] = {
    "add_special_tokens": (True, BOOL), "pad_to_max_length": (False, BOOL),
    "max_length": (None, Optional(SIZE)), "padding_side": (None, Optional(Text())),
    "truncation": (False, BOOL),
}  # fmt: skip


def read_encode_arguments(
    arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """(texts, second texts, options). TypeError for other arguments, RuntimeError for another side."""
    first, second, *_ = [*arguments, None, None]
    is_pair = keywords.keys() & {"prompts_1", "prompts_2"} or isinstance(second, (list, tuple))
    is_text = "prompt" in keywords or isinstance(first, str)
    texts = ("prompts_1", "prompts_2") if is_pair else ("prompt",) if is_text else ("prompts",)
    names = [*texts, *_OPTIONS]
    values = {**dict(zip(names, arguments, strict=False)), **keywords}
    kinds = str if is_text and not is_pair else (list, tuple)
    is_twice = not keywords.keys().isdisjoint(names[: len(arguments)]) or len(arguments) > len(names)
    if is_twice or values.keys() - names or not all(isinstance(values.get(n), kinds) for n in texts):
        raise TypeError(
            "encode(): incompatible function arguments. It takes prompt (a str), prompts (a list), or "
            f"prompts_1 and prompts_2, then {', '.join(_OPTIONS)}"
        )
    options = {name: kind.assign(values.get(name, default)) for name, (default, kind) in _OPTIONS.items()}
    side = options.pop("padding_side")
    if side not in (None, "left", "right"):
        raise OvjitError(f"padding_side should be 'left' or 'right', not {side!r}")
    options["pad_right"] = None if side is None else side == "right"
    return values[texts[0]], values[texts[-1]] if is_pair else None, options
