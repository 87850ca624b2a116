"""Runs the sequences of one request through a decoder with state: rows that fork and end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer, Steps
from ovjit.genai.prefixes import BLOCK, Prefixes
from ovjit.generation.decoder import Decoder, choose_caches
from ovjit.generation.head import keep_last
from ovjit.generation.speculative import count_common

#: The inputs that are fed. `Decoder` refuses a model with others.
INPUTS = frozenset(("input_ids", "attention_mask", "position_ids", "beam_idx"))
#: Maximum rows that generate together, and maximum tokens of prompts that are padded to one length.
MAX_ROWS, MAX_TOKENS = 64, 4096
#: Maximum tokens of each prompt that one inference reads.
PART = 256
#: The axis of tokens in states that grow.
AXIS = 2
#: Edits a Model, and returns the names of constant inputs that it adds.
Change = Callable[[Any], Collection[str]] | None


class StepRunner:
    """Runs the steps of one request. Subclasses compute the logits."""

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        """Read a prompt as the one row. Returns the logits [1, words] of the next token. The logits of this
        class are valid until its next call."""
        raise NotImplementedError

    def step(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Rows that continue the rows `parents` by one token each. Returns the logits [rows, words]."""
        raise NotImplementedError

    def start_rows(self, prompts: Sequence[Any]) -> np.ndarray:
        """Read prompts as a row each. Returns the logits [rows, words] of their next tokens."""
        (prompt,) = prompts
        return self.start(prompt)

    def run(self, prompt: Any, steps: Steps) -> list[Answer]:
        """Compute the steps of one request, whose prompt is what `start` takes. Returns its sequences."""
        return self.run_together([prompt], [steps])[0]

    def run_together(
        self, prompts: Sequence[Any], steps: Sequence[Steps], end_step: Callable[[], None] = lambda: None
    ) -> list[list[Answer]]:
        """Compute the steps of several requests, each step for all that still run. `end_step` is called when
        all have chosen their tokens. Returns the sequences of each request."""
        answers: dict[int, list[Answer]] = {}
        running: list[tuple[int, int]] = []  # (request, number of its rows)
        for i, each in enumerate(steps):
            try:
                next(each)
                running.append((i, 1))
            except StopIteration as end:
                answers[i] = end.value
        logits = self.start_rows([prompts[i] for i, _ in running]) if running else np.empty(0)
        while running:
            parents, tokens, first, before = list[int](), list[int](), 0, running
            running = []
            for i, count in before:
                try:
                    rows, chosen = steps[i].send(logits[first : first + count])
                    parents += [first + row for row in rows]
                    tokens += chosen
                    running.append((i, len(rows)))
                except StopIteration as end:
                    answers[i] = end.value
                first += count
            end_step()
            if running:
                logits = self.step(parents, tokens)
        return [answers[i] for i in range(len(steps))]


def group_prompts(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of prompts that one inference reads, padded to the longest of them. Padding is at most a fifth
    of the tokens, or 64 of them."""
    groups: list[list[int]] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups:
            padded = lengths[groups[-1][0]] * (len(groups[-1]) + 1)
            if padded <= MAX_TOKENS and padded - total - lengths[i] <= max(64, padded // 5):
                groups[-1].append(i)
                total += lengths[i]
                continue
        groups.append([i])
        total = lengths[i]
    return groups


class Engine(StepRunner):
    """A compiled decoder: `start` reads a prompt as one row, `step` appends a token to rows. The rows of a
    step continue any rows of the one before."""

    _input_name = "input_ids"
    #: The padding before each row in the state.
    _pads = np.zeros(1, np.int64)

    def __init__(self, decoder: Decoder):
        compiled, self.decoder = decoder.compiled, decoder
        self._names = [name for port in compiled.inputs for name in INPUTS & port.get_names()]
        self._request = decoder._request
        self._can_extend = not decoder.turn
        #: Whether a prompt may be read in parts, and a state be truncated.
        self._can_split = not decoder.turn and self._states_grow()
        #: Whether prompts of different lengths can be rows of one state, with padding before them.
        self.can_join = self._can_split and INPUTS <= {*self._names}
        self._length = 0
        #: The tokens in the state, [] if it has several rows.
        self._tokens: list[int] = []
        #: Tokens at the begin of other prompts that are not read again. There are at least `BLOCK` of them:
        #: shorter prompts give the same bits in each call, since tokens that are read alone are rounded in
        #: another way.
        self._prefixes = Prefixes(AXIS)

    def _states_grow(self) -> bool:
        """True if all states have an axis of tokens."""
        return all(state._open == [0, AXIS] for state in self._request.query_state())

    @classmethod
    def load(
        cls, path: Path, device: str, properties: Mapping[str, Any], change: Change = None, rows: int = 1,
        in_bytes: bool = False,
    ) -> Engine:  # fmt: skip
        """The decoder of a file, or of a folder with one. Further arguments: see `Decoder.load`."""
        return cls(Decoder.load(path, device, properties, change, rows, in_bytes))

    @classmethod
    def load_text(
        cls, model: Any, weights: Any, device: str, properties: Mapping[str, Any], change: Change = None,
        rows: int = 1, in_bytes: bool = False,
    ) -> Engine:  # fmt: skip
        """The decoder of an IR in memory. Further arguments: see `Decoder.load`."""
        from ovjit.api.run.core import Core

        read = Core().read_model(model, weights)
        keep_last(read, rows)
        if in_bytes:
            choose_caches(read, properties)
        names = () if change is None else change(read)
        return cls(Decoder(Core().compile_model(read, device, dict(properties)), 0, names))

    @property
    def requests(self) -> list[Any]:
        """The requests whose inputs are matrices of adapters."""
        return [self._request]

    def forget(self) -> None:
        """Begin the next prompt anew: the state is another sequence's."""
        self._tokens = []
        self._prefixes.clear()

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        """Read a prompt as the one row, but for tokens at its begin that were read before: those of a chat's
        last turn, or of other prompts. Returns the logits [1, words] of the next token."""
        count = self._keep_common(prompt)
        if not count:
            self._reset([0])
        logits = self._read(np.asarray(prompt[count:], np.int64)[None])
        self._tokens = list(prompt)
        return logits

    def _keep_common(self, prompt: Sequence[int]) -> int:
        """Make the state that of tokens that a prompt begins with, without its last one. Returns their
        number, 0 if the prompt is to be read from its begin."""
        cached, begin = self._tokens, prompt[:-1]
        count = count_common(cached, begin)
        if not self._can_split:
            self._tokens = []  # until it is read
            return count if count == len(cached) and self._can_extend else 0
        blocks, states = self._prefixes.find(begin), self._request.query_state()
        stored = self._prefixes.join(blocks) if count < len(blocks) * BLOCK else []
        if count == len(cached) and not stored:
            self._tokens = []
            return count
        self._save()
        if stored:
            count = len(blocks) * BLOCK
            for state, value in zip(states, stored, strict=True):
                state._restore(value)
        elif count < BLOCK:
            return 0
        else:
            for state in states:
                state._cut(AXIS, count)
        self._length, self._pads = count, np.zeros(1, np.int64)
        return count

    def _save(self) -> None:
        """Store the state of the one row for prompts that begin like it, since the next ones change it."""
        if self._tokens and self._can_split:
            values = [state._read_stored() for state in self._request.query_state()]
            stored = [value for value in values if value is not None]
            if stored and len(stored) == len(values):
                self._prefixes.add(self._tokens, stored)
        self._tokens = []

    def step(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Rows that continue the rows `parents` by one token each. Returns the logits [rows, words]."""
        row = self._tokens
        if len(tokens) > 1:
            self._save()
        logits = self._infer(self.embed(np.asarray(tokens, np.int64)[:, None]), np.asarray(parents, np.int32))
        if row and len(tokens) == 1:
            row.extend(tokens)
            self._tokens = row
        return logits

    def start_rows(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Read prompts as a row each. Those of several inferences are joined afterwards."""
        if len(prompts) == 1:
            return self.start(prompts[0])
        self._save()
        groups = group_prompts([len(prompt) for prompt in prompts])
        if len(groups) == 1:
            return self._read_rows(prompts)
        states, rows = self._request.query_state(), list[np.ndarray]()
        parts = []
        for group in groups:
            rows.append(np.array(self._read_rows([prompts[i] for i in group])))
            parts.append([np.array(state.state.data) for state in states])
        self._join(groups, parts, [len(prompt) for prompt in prompts])
        return np.concatenate(rows)[np.argsort(np.concatenate(groups))]

    def _read_rows(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Read prompts by one inference."""
        longest = max(map(len, prompts))
        self._reset([longest - len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), longest), np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt) :] = prompt
        return self._read(ids)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        """Append tokens [rows, tokens] of prompts to the rows. Tokens of a part do not attend to later parts,
        which takes less time than to mask them."""
        rows, count = ids.shape
        parts = -(-count // PART) if self._can_split else 1
        parents = np.arange(rows, dtype=np.int32)
        for part in np.array_split(ids, max(parts, 1), 1):
            logits = self._infer(self.embed(part), parents)
        return logits

    def _join(
        self, groups: Sequence[Sequence[int]], parts: Sequence[Sequence[np.ndarray]], lengths: Sequence[int]
    ) -> None:
        """Make one state of those that prompts of the groups have left, in the order of the prompts."""
        self._length = max(lengths)
        self._pads = self._length - np.asarray(lengths)
        for state, *values in zip(self._request.query_state(), *parts, strict=True):
            first = values[0]
            joined = np.zeros((len(lengths), first.shape[1], self._length, first.shape[3]), first.dtype)
            for group, value in zip(groups, values, strict=True):
                joined[group, :, self._length - value.shape[2] :] = value
            state.state = Tensor(joined)

    def _reset(self, pads: Sequence[int]) -> None:
        """Begin rows with so much padding before them."""
        self._request.reset_state()
        self._length, self._pads = 0, np.array(pads, np.int64)

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
        inputs = {name: feeds[name] for name in self._names}
        logits = self._request.infer(inputs, share_inputs=True, share_outputs=True)["logits"]
        self._length, self._pads = self._length + count, self._pads[parents]
        return np.asarray(logits[:, -1], np.float32)

    def _feed(self, values: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
        """The model's inputs by name, for `values` [rows, tokens, ...] after the state's tokens."""
        end, pads = self._length + values.shape[1], self._pads[parents]
        columns = np.arange(end)
        return {
            self._input_name: values,
            "attention_mask": (columns >= pads[:, None]).astype(np.int64),
            "position_ids": np.maximum(columns[self._length :] - pads[:, None], 0),
            "beam_idx": parents,
        }
