"""One sequence through a decoder with state, token by token, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.generation.tokenizer import read_settings
from ovjit.readers.gguf.header import is_later_part

#: The inputs of decoders as optimum-intel exports them. Only the first is required.
INPUTS = ("input_ids", "attention_mask", "position_ids", "beam_idx")
#: Names of a model's file in a folder.
FILES = ("openvino_model.xml", "model.xml", "openvino_language_model.xml")


class Decoder:
    """A sequence in a compiled decoder with state: `input_ids` [1, tokens] (and the other `INPUTS`) to
    `logits` [1, tokens, words]. `length` counts the tokens whose keys and values are in its state. From the
    position `turn` on the model may turn all its tokens by another table, as Phi 3 does; 0: nowhere.

    Raises OvjitError for a model with other inputs, or without logits.
    """

    def __init__(self, compiled: Any, turn: int = 0):
        self.compiled, self.turn = compiled, turn
        self._names = [sorted(port.get_names())[0] if port.get_names() else "" for port in compiled.inputs]
        unknown = sorted(set(self._names) - set(INPUTS))
        if "input_ids" not in self._names or unknown:
            raise OvjitError(
                f"not a decoder with state: its inputs are {self._names}, where {list(INPUTS)} are expected; "
                "export it with a cache (optimum-cli export openvino --task text-generation-with-past)"
            )
        if not any("logits" in port.get_names() for port in compiled.outputs):
            raise OvjitError("not a decoder: it has no output named 'logits'")
        self._request = compiled.create_infer_request()
        self.length = 0

    @classmethod
    def load(cls, path: str | Path, device: str = "CPU", config: Mapping[str, Any] | None = None) -> Decoder:
        """The decoder of a file, or of a folder with one."""
        from ovjit.api.run.core import Core

        file = model_file(path)
        model = Core().read_model(str(file))
        return cls(Core().compile_model(model, device, dict(config or {})), _turn(model, file))

    def reset(self) -> None:
        """Begin a new sequence."""
        self._request.reset_state()
        self.length = 0

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """The logits [tokens, words] of these tokens, which follow those before."""
        ids = np.asarray(tokens, np.int64)[None]
        if not ids.size:
            raise OvjitError("no tokens: a prompt has at least one")
        end = self.length + ids.shape[1]
        given = {
            "input_ids": ids,
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self.length, end)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        found = self._request.infer({name: given[name] for name in self._names})["logits"]
        self.length = end
        return np.asarray(found[0], np.float32)

    def rewind(self, length: int) -> None:
        """Forget all tokens from `length` on. OvjitError for a state that has no axis of tokens, as that of
        recurrent layers."""
        if length == self.length:
            return
        if not 0 < length < self.length:
            raise OvjitError(f"{self.length} tokens cannot be cut to {length}")
        found = []
        for state in self._request.query_state():
            shape = state._shape
            axes = [axis for axis, extent in enumerate(shape) if extent == self.length and axis]
            if not axes:
                raise OvjitError(
                    f"the state {state.name!r} of shape {list(shape)} has no axis of {self.length} "
                    "tokens: this model cannot go back, as speculative decoding does"
                )
            # of a head as long as the sequence, the axis of tokens is the one before the last
            found.append((state, len(shape) - 2 if len(shape) - 2 in axes else axes[0]))
        for state, axis in found:
            state._cut(axis, length)
        self.length = length


def _turn(model: Any, file: Path) -> int:
    """The context that a model was made for at first, by its metadata or the config.json beside it; or 0."""
    key = "rope.scaling.original_context_length"
    if model.has_rt_info(["gguf", "general.architecture"]):
        name = ["gguf", f"{model.get_rt_info(['gguf', 'general.architecture']).value}.{key}"]
        told = model.get_rt_info(name).value if model.has_rt_info(name) else 0
    else:
        config = read_settings(file.parent / "config.json")
        scaling, inside = config.get("rope_scaling"), "original_max_position_embeddings"
        told = config.get(inside) or (scaling.get(inside) if isinstance(scaling, dict) else 0)
    return int(told) if str(told).isdigit() else 0


def model_file(path: str | Path) -> Path:
    """The model's file at `path`, which may be the folder. OvjitError where there is none."""
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise OvjitError(f"can't open the model {str(path)!r}: there is no such file or folder")
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    found = [*sorted(path.glob("*.gguf")), *sorted(path.glob("*.xml"))]
    found = [file for file in found if "tokenizer" not in file.name and not is_later_part(file)]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        wanted = f"{' or '.join(FILES)}, an .xml or a .gguf"
        raise OvjitError(f"{str(path)!r} should have one model: {wanted}; found: {names}")
    return found[0]
