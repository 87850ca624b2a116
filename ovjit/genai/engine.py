"""Runs the sequences of one request through a decoder with state: rows that fork and end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer, Steps
from ovjit.generation.decoder import CHECKED, Decoder
from ovjit.generation.head import keep_last

#: The inputs that are fed. `Decoder` refuses a model with others.
INPUTS = frozenset(("input_ids", "attention_mask", "position_ids", "beam_idx"))
#: Edits a Model, and returns the names of constant inputs that it adds.
Change = Callable[[Any], Collection[str]] | None


class StepRunner:
    """Runs the steps of one request. Subclasses compute the logits."""

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        """Read a prompt as the one row. Returns the logits [1, words] of the next token."""
        raise NotImplementedError

    def step(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Rows that continue the rows `parents` by one token each. Returns the logits [rows, words]."""
        raise NotImplementedError

    def run(self, prompt: Any, steps: Steps) -> list[Answer]:
        """Compute the steps of one request, whose prompt is what `start` takes. Returns its sequences."""
        try:
            next(steps)
            logits = self.start(prompt)
            while True:
                logits = self.step(*steps.send(logits))
        except StopIteration as end:
            return end.value


class Engine(StepRunner):
    """A compiled decoder: `start` reads a prompt as one row, `step` appends a token to rows. The rows of a
    step continue any rows of the one before."""

    _input_name = "input_ids"

    def __init__(self, decoder: Decoder):
        compiled, self.decoder = decoder.compiled, decoder
        self._names = [name for port in compiled.inputs for name in INPUTS & port.get_names()]
        self._request = decoder._request
        self._can_extend = not decoder.turn
        self._length = 0
        #: The tokens in the state, [] if it has several rows.
        self._tokens: list[int] = []

    @classmethod
    def load(cls, path: Path, device: str, properties: Mapping[str, Any], change: Change = None) -> Engine:
        """The decoder of a file, or of a folder with one. `change`: see `Decoder.load`."""
        return cls(Decoder.load(path, device, properties, change))

    @classmethod
    def load_text(
        cls, model: Any, weights: Any, device: str, properties: Mapping[str, Any], change: Change = None
    ) -> Engine:
        """The decoder of an IR in memory."""
        from ovjit.api.run.core import Core

        read = Core().read_model(model, weights)
        keep_last(read, CHECKED)
        names = () if change is None else change(read)
        return cls(Decoder(Core().compile_model(read, device, dict(properties)), 0, names))

    def forget(self) -> None:
        """Begin the next prompt anew: the state is another sequence's."""
        self._tokens = []

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        """Read a prompt as the one row. A chat's prompt begins with the tokens that are in the state: of it
        only the new ones are read. Returns the logits [1, words] of the next token."""
        count = len(self._tokens)
        if not (self._can_extend and 0 < count < len(prompt) and self._tokens == list(prompt[:count])):
            self._request.reset_state()
            self._length = count = 0
        logits = self._infer(self.embed(np.asarray(prompt[count:], np.int64)[None]), np.zeros(1, np.int32))
        self._tokens = list(prompt)
        return logits

    def step(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Rows that continue the rows `parents` by one token each. Returns the logits [rows, words]."""
        row = self._tokens
        logits = self._infer(self.embed(np.asarray(tokens, np.int64)[:, None]), np.asarray(parents, np.int32))
        if row and len(tokens) == 1:
            row.extend(tokens)
            self._tokens = row
        return logits

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """The model's input [rows, tokens, ...] for tokens."""
        return ids

    def _infer(self, values: np.ndarray, parents: np.ndarray) -> np.ndarray:
        self._tokens = []  # until it is done: it may fail
        rows, count = values.shape[:2]
        if "beam_idx" not in self._names and (rows > 1 or parents.any()):
            raise OvjitError(
                "the model has no input beam_idx, so it generates one sequence at a time: export it with "
                "optimum-cli for several sequences or beams"
            )
        feeds = self._feed(values, parents)
        logits = self._request.infer({name: feeds[name] for name in self._names})["logits"]
        self._length += count
        return np.asarray(logits[:, -1], np.float32)

    def _feed(self, values: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
        """The model's inputs by name, for `values` [rows, tokens, ...] behind the state's tokens."""
        rows, count = values.shape[:2]
        end = self._length + count
        return {
            self._input_name: values,
            "attention_mask": np.ones((rows, end), np.int64),
            "position_ids": np.broadcast_to(np.arange(self._length, end), (rows, count)).copy(),
            "beam_idx": parents,
        }
