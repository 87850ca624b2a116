"""Runs one sequence through a decoder with state, and rewinds it. Files whose models are changed first are
kept compiled as others are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.api.run.core import Core
from ovjit.errors import OvjitError
from ovjit.generation.head import keep_last
from ovjit.generation.tokenizer import find_gguf, read_settings
from ovjit.records import NamedTuple


class EditingCore(Core):
    """A Core that calls `edit(model)` for each model before it compiles it. `edit` is not called for a model
    that was kept with the same `name`. It returns False for a model that is not to be kept."""

    def __init__(self, edit: Callable[[Any], bool], name: str):
        super().__init__()
        self._edit, self._name = edit, name

    def _read(self, model: Any, weights: Any, use_mmap: bool) -> Any:
        read = super()._read(model, weights, use_mmap)
        read._of_one_file &= self._edit(read)
        return read

    def _config_for(self, device: str, config: Any) -> dict[str, Any]:
        settings = super()._config_for(device, config)
        # names of kept models and cached files derive from the properties that the user has set
        return {**settings, "given": {**settings["given"], "EDITED_BY": self._name}}


#: The inputs of decoders as optimum-intel exports them. Only the first is required.
INPUTS = ("input_ids", "attention_mask", "position_ids", "beam_idx")
#: Maximum tokens that one inference checks. With more rows, products and attention sum in another order.
CHECKED = 8
#: Names of a model's file in a folder.
FILES = ("openvino_model.xml", "model.xml", "openvino_language_model.xml")
#: The key of properties that a model sets for itself, and those with the types of caches.
RUNTIME = "runtime_options"
CACHES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def choose_caches(model: Any, properties: Mapping[str, Any]) -> None:
    """Let the caches of keys and values of a decoder be u8, as in openvino_genai, or f32 if results should be
    exact, unless properties or the model itself name types."""
    hint = properties.get("INFERENCE_PRECISION_HINT") or debug.flag("OVJIT_PRECISION")
    is_exact = str(properties.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY")
    is_exact |= getattr(hint, "_name", hint) in ("f32", "dynamic")
    if not any(name in properties or model.has_rt_info([RUNTIME, name]) for name in CACHES):
        model.set_rt_info("f32" if is_exact else "u8", [RUNTIME, CACHES[0]])


class Decoder:
    """A sequence in a compiled decoder with state: `input_ids` [1, tokens] (and the other `INPUTS`) to
    `logits` [1, tokens, words]. `length` counts the tokens whose keys and values are in its state. From
    position `turn` on, the model may rotate all of its tokens by another table, as Phi 3 does. 0: it has one
    table. `constant_inputs`: names of inputs whose tensors are set by others, and stay.

    Raises OvjitError for a model with other inputs, or without logits.
    """

    def __init__(self, compiled: Any, turn: int = 0, constant_inputs: Collection[str] = ()):
        self.compiled, self.turn = compiled, turn
        names = [sorted(port.get_names())[0] if port.get_names() else "" for port in compiled.inputs]
        self._names = [name for name in names if name not in constant_inputs]
        unknown = sorted(set(self._names) - set(INPUTS))
        if "input_ids" not in self._names or unknown:
            raise OvjitError(
                f"the model is not a stateful decoder: its inputs are {self._names}, expected are "
                f"{list(INPUTS)}; export it with a cache (optimum-cli export openvino --task "
                "text-generation-with-past)"
            )
        if not any("logits" in port.get_names() for port in compiled.outputs):
            raise OvjitError("the model is not a decoder: it has no output named 'logits'")
        self._request = compiled.create_infer_request()
        self.length = 0
        self._mark: _Mark | None = None
        #: For each state, the axes that may be the axis of tokens; and whether they are final.
        self._candidates: list[list[int]] = []
        self._settled = False

    @classmethod
    def load(
        cls, path: str | Path, device: str = "CPU", config: Mapping[str, Any] | None = None,
        change: Callable[[Any], Collection[str]] | None = None, rows: int = CHECKED, in_bytes: bool = False,
    ) -> Decoder:  # fmt: skip
        """The decoder of a file, or of a folder with one. `change` edits its Model, and returns the names of
        constant inputs that it adds. `rows`: the last tokens whose logits are computed. `in_bytes`: by
        default, caches are those of `choose_caches`."""
        file, names = model_file(path), list[str]()
        turn = _turn(None, file)

        def edit(model: Any) -> bool:
            nonlocal turn
            keep_last(model, rows)
            if in_bytes:
                choose_caches(model, config or {})
            names.extend(() if change is None else change(model))
            expected, turn = turn, _turn(model, file)
            return change is None and turn == expected

        name = f"last {rows}{' in bytes' if in_bytes else ''}" if change is None else "changed"
        compiled = EditingCore(edit, name).compile_model(str(file), device, dict(config or {}))
        return cls(compiled, turn, names)

    def reset(self) -> None:
        """Begin a new sequence."""
        self._request.reset_state()
        self.length, self._mark = 0, None

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Append these tokens. Returns the logits [rows, words] of at most the last `CHECKED` of them."""
        ids = np.asarray(tokens, np.int64)[None]
        if not ids.size:
            raise OvjitError("the prompt has no tokens: at least one is needed")
        end = self.length + ids.shape[1]
        arrays = {
            "input_ids": ids,
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self.length, end)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        logits = self._request.infer({name: arrays[name] for name in self._names})["logits"]
        self.length = end
        if self._mark is not None:
            self._mark.tokens.extend(tokens)
        return np.asarray(logits[0, -CHECKED:], np.float32)

    def mark(self) -> None:
        """Save the states without an axis of tokens, such as those of recurrent layers. `rewind` can then
        return to this length, and to larger ones."""
        if self._settled and all(self._candidates):
            return
        pairs = zip(states := self._request.query_state(), self._axes(states), strict=True)
        saved = [(state, np.array(state.state.data)) for state, axis in pairs if axis is None]
        self._mark = _Mark(self.length, saved, []) if saved else None

    def rewind(self, length: int) -> None:
        """Drop all tokens from `length` on. If a state has no axis of tokens, the states of the last `mark`
        are restored, and the tokens after it are computed again. Raises OvjitError without an earlier
        mark."""
        if length == self.length:
            return
        if not 0 < length < self.length:
            raise OvjitError(f"a sequence of {self.length} tokens cannot be truncated to {length}")
        states, mark = self._request.query_state(), self._mark
        axes, back = self._axes(states), length
        for state, axis in zip(states, axes, strict=True):
            cut = axis is not None and state._shape[axis] == self.length
            if not cut and (axis is not None or mark is None or mark.length > length):
                raise OvjitError(
                    f"the state {state.name!r} of shape {list(state._shape)} has no axis of "
                    f"{self.length} tokens, and no earlier state was saved: this model cannot return to "
                    "fewer tokens"
                )
            back = back if cut or mark is None else mark.length
        for state, axis in zip(states, axes, strict=True):
            if axis is not None:
                state._cut(axis, back)
        self.length = back
        if None in axes and mark is not None:
            self._compute_again(mark, length)

    def _compute_again(self, mark: _Mark, length: int) -> None:
        """Restore the states at the mark, and compute the tokens after it up to `length`."""
        from ovjit.api.tensors.tensor import Tensor

        for state, value in mark.states:
            state.state = Tensor(value)
        again = mark.tokens[: length - mark.length]
        mark.tokens.clear()
        for first in range(0, len(again), CHECKED):
            self.feed(again[first : first + CHECKED])

    def _axes(self, states: Sequence[Any]) -> list[int | None]:
        """The axis of tokens of each state; None without one. It is a dynamic dimension whose extent has
        equalled the number of tokens at every call."""
        if not self._settled:
            now = [
                [
                    a
                    for a in state._open
                    if state._shape[a : a + 1] == (self.length,) and (a or self.length > 1)
                ]
                for state in states
            ]
            self._candidates = [
                [a for a in one if a in other]
                for one, other in zip(now, self._candidates or now, strict=True)
            ]
            self._settled = all(len(axes) < 2 for axes in self._candidates)
        # if the head's size equals the length too, the axis of tokens is the second last one
        return [
            None if not axes else middle if (middle := len(state._shape) - 2) in axes else axes[0]
            for state, axes in zip(states, self._candidates, strict=True)
        ]


class _Mark(NamedTuple):
    """States at a length, and the tokens that have been fed since."""

    length: int
    states: list[tuple[Any, np.ndarray]]
    tokens: list[int]


def _turn(model: Any, file: Path) -> int:
    """The original context length, by the metadata of a model or the config.json beside its file; else 0."""
    key = "rope.scaling.original_context_length"
    if model is not None and model.has_rt_info(["gguf", "general.architecture"]):
        name = ["gguf", f"{model.get_rt_info(['gguf', 'general.architecture']).value}.{key}"]
        length = model.get_rt_info(name).value if model.has_rt_info(name) else 0
    else:
        config, inside = read_settings(file.parent / "config.json"), "original_max_position_embeddings"
        # transformers 5 writes rope_parameters where others wrote rope_scaling
        scalings = [config, config.get("rope_scaling"), config.get("rope_parameters")]
        length = next((s[inside] for s in scalings if isinstance(s, dict) and s.get(inside)), 0)
    return int(length) if str(length).isdigit() else 0


def model_file(path: str | Path) -> Path:
    """The model's file at `path`, which may be the folder. OvjitError where there is none."""
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise OvjitError(f"Could not find a model in the directory {str(path)!r}: it does not exist")
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    files = [*find_gguf(path), *sorted(path.glob("*.xml"))]
    files = [file for file in files if "tokenizer" not in file.name]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        expected = f"{' or '.join(FILES)}, an .xml or a .gguf"
        raise OvjitError(
            f"Could not find a model in the directory {str(path)!r}: it should hold one model, {expected}; "
            f"found: {names}"
        )
    return files[0]
