"""Beam search: in groups, with a penalty for tokens that earlier groups have chosen."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.enums import GenerationFinishReason, StopCriteria
from ovjit.genai.figures import Figures
from ovjit.genai.grammar_masks import Matcher
from ovjit.genai.sampler import log_sum
from ovjit.genai.stops import OutOfBlocks, Stops


class Beam:
    """A sequence: its tokens, their log-probabilities, and its row in the last step."""

    def __init__(self, tokens: list[int], logs: list[float], row: int, total: float, matcher: Matcher | None):
        self.tokens, self.logs, self.row = tokens, logs, row
        #: The grammar after the tokens; of a candidate, before its last one.
        self.matcher = matcher
        #: The sum after penalties of groups, that ranks candidates.
        self.total = total
        self.finish = GenerationFinishReason.LENGTH


def normalize_score(total: float, length: int, penalty: float) -> float:
    """A sum of log-probabilities divided by a power of its length, in f32, where it may be 0 or infinite."""
    with np.errstate(all="ignore"):
        return float(np.float32(np.float64(total) / np.float64(max(length, 1)) ** penalty))


class _Group:
    """The beams of one group, and the best sequences that have ended."""

    def __init__(self, size: int, stops: Stops):
        self.size, self.stops, self.config = size, stops, stops.config
        self.beams = [Beam([], [], 0, 0.0 if i == 0 else -np.inf, stops.matcher) for i in range(size)]
        self.ended: list[tuple[float, int, Beam]] = []
        self._count = 0
        self.is_done = False

    def add_ended(self, beam: Beam, length: int) -> None:
        """Keep a sequence if it is among the best. Its score is divided by a power of its length."""
        self._count += 1
        rank = normalize_score(beam.total, length, self.config.length_penalty)
        heapq.heappush(self.ended, (rank, -self._count, beam))
        if len(self.ended) > self.size:
            heapq.heappop(self.ended)

    def advance(self, log_rows: np.ndarray, prompt: Sequence[int], chosen: Sequence[int]) -> list[Beam]:
        """Choose the beams of the next step. `chosen`: tokens of earlier groups, each of which is penalized.
        Returns them."""
        candidates = []
        for beam in self.beams:
            values = log_rows[beam.row].copy()
            for token in chosen:
                values[token] -= np.float32(self.config.diversity_penalty)
            values[_find_repeats([*prompt, *beam.tokens], self.config.no_repeat_ngram_size)] = -np.inf
            if beam.matcher is not None:
                beam.matcher.mask(values)
            for token in np.argsort(-values, kind="stable")[: 2 * self.size]:
                total = float(np.float32(beam.total) + values[token])
                if beam.matcher is not None and total == -np.inf:
                    continue
                logs = [*beam.logs, float(values[token])]
                candidates.append(Beam([*beam.tokens, int(token)], logs, beam.row, total, beam.matcher))
        if len(candidates) < 2 * self.size and self.stops.matcher is None:
            raise OvjitError("beam search has no tokens left: set fewer num_beams")
        candidates.sort(key=lambda beam: -beam.total)
        children: list[Beam] = []
        for i, beam in enumerate(candidates):
            if len(children) == self.size:
                break
            if not self._end(beam, i < self.size):
                if beam.matcher is not None:
                    beam.matcher = beam.matcher.fork()
                    beam.matcher.advance(beam.tokens[-1])
                children.append(beam)
        self._check_done()
        self.is_done = self.is_done or not children
        self.beams = [] if self.is_done else children
        return children

    def _end(self, beam: Beam, is_best: bool) -> bool:
        """True if a candidate ends, by a stop token or string. It becomes an answer only if it `is_best`."""
        length = len(beam.tokens)
        if not self.stops.is_stop_token(beam.tokens[-1]):
            extra = self.stops.count_after_stop(beam.tokens)
            if extra is None:
                return False
            del beam.tokens[length - extra :]
            length = max(length - 1, 1)
        beam.finish = GenerationFinishReason.STOP
        if is_best:
            self.add_ended(beam, length)
        return True

    def _check_done(self) -> None:
        if len(self.ended) < self.size:
            return
        best = self.beams[0]
        length = len(best.tokens)
        if self.config.stop_criteria is StopCriteria.EARLY:
            self.is_done = True
            return
        if self.config.stop_criteria is StopCriteria.NEVER and self.config.length_penalty > 0:
            length = self.stops.most
        self.is_done = self.ended[0][0] >= normalize_score(best.total, length, self.config.length_penalty)


def _find_repeats(tokens: Sequence[int], size: int) -> list[int]:
    """Tokens that would end a sequence of `size` tokens that is there already."""
    if len(tokens) < 2 or len(tokens) < size:
        return []
    tail = list(tokens[len(tokens) - size + 1 :])
    starts = range(len(tokens) - size + 1)
    return [tokens[i + size - 1] for i in starts if list(tokens[i : i + size - 1]) == tail]


def search(
    prompt: Sequence[int], stops: Stops, figures: Figures, normalize: bool = True
) -> Generator[tuple[list[int], list[int]], np.ndarray, list[Beam]]:
    """The sequences of a prompt. Yields rows and tokens as `answer_prompt` does. Without `normalize` the
    rows that it gets are log-probabilities."""
    config = stops.config
    logits = yield [], []
    figures.end_inference()
    size = config.num_beams // config.num_beam_groups
    groups = [_Group(size, stops) for _ in range(config.num_beam_groups)]
    for length in range(1, stops.most + 1):
        log_rows = np.stack([row - log_sum(row) for row in logits]) if normalize else logits
        chosen: list[int] = []
        for group in groups:
            if not group.is_done:
                chosen += [beam.tokens[-1] for beam in group.advance(log_rows, prompt, chosen)]
        running = [beam for group in groups for beam in group.beams]
        figures.end_step(len(log_rows) if figures.counts_beams else 1)
        if not running or length == stops.most:
            break
        try:
            logits = yield [beam.row for beam in running], [beam.tokens[-1] for beam in running]
        except OutOfBlocks:
            for beam in running:
                beam.finish = GenerationFinishReason.NONE
            break
        figures.end_inference()
        for i, beam in enumerate(running):
            beam.row = i
    figures.finish()
    for group in groups:
        for beam in group.beams:
            group.add_ended(beam, len(beam.tokens))
    return [beam for group in groups for _, _, beam in group.ended]
