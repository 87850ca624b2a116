"""The sequences of one request, token after token: apart from the engine that computes the logits."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from ovjit.genai.beams import normalize_score, search
from ovjit.genai.enums import GenerationFinishReason, StreamingStatus
from ovjit.genai.figures import Figures
from ovjit.genai.grammar_masks import Matcher
from ovjit.genai.sampler import Choice, Sampler
from ovjit.genai.stops import OutOfBlocks, Stops
from ovjit.genai.streamers import StreamerBase, status_of

#: Reasons of ends by the streamer's answer.
_REASONS = {
    StreamingStatus.STOP: GenerationFinishReason.STOP,
    StreamingStatus.CANCEL: GenerationFinishReason.NONE,
    StreamingStatus.TOOL_CALL_STOP: GenerationFinishReason.TOOL_CALL,
}


class Answer:
    """One generated sequence: tokens, the sum of log-probabilities, the reason of its end."""

    def __init__(self, tokens: list[int], score: float = 0.0, matcher: Matcher | None = None) -> None:
        self.tokens, self.score, self.matcher = tokens, score, matcher
        self.finish: GenerationFinishReason | None = None
        self.row = self.number = 0
        self.logs: list[float] = []

    def take(self, choice: Choice, stops: Stops) -> None:
        """Append a token, and end with it where it is due."""
        self.tokens.append(choice.token)
        self.logs.append(choice.log_probability)
        self.score += choice.log_probability
        self.finish = stops.end(self.tokens)
        # a grammar refuses a token that ends texts where it goes on, even if it allows its letters
        if self.matcher is not None and self.finish is None:
            self.matcher.advance(choice.token)
        self.score -= sum(self.logs[len(self.tokens) :])  # those of a stop string
        del self.logs[len(self.tokens) :]


#: Yields (rows of the step before, the token that each of them takes); first ([], []) for the prompt. Gets
#: the logits [rows, words]. Returns the sequences, the best first.
Steps = Generator[tuple[list[int], list[int]], np.ndarray, list[Answer]]


class Writer:
    """Passes tokens to a streamer. Tokens that may be part of a stop string wait until it is certain that
    they are not."""

    def __init__(self, stream: StreamerBase | None, stops: Stops, echoed: Sequence[int]):
        self._stream, self._window = stream, stops.window
        #: The streamer's last answer.
        self.status = StreamingStatus.RUNNING
        self._echoed = list(echoed)
        self._count = 0

    def write(self, answer: Answer, even_none: bool = False) -> StreamingStatus:
        """Pass new tokens to the streamer, with `even_none` also if there are none. Returns the streamer's
        status."""
        tokens = answer.tokens
        end = len(tokens) - (0 if answer.finish is not None else self._window)
        is_empty = (end <= self._count and tokens) or not (tokens or self._echoed)
        if is_empty and not even_none:
            return StreamingStatus.RUNNING
        begin, self._count = self._count, max(end, 0)
        echoed, self._echoed = self._echoed, []
        return self._give(echoed, tokens[begin : self._count], answer)

    def _give(self, echoed: list[int], tokens: list[int], answer: Answer) -> StreamingStatus:
        """Pass echoed tokens of the prompt, and new ones, to the streamer."""
        if self._stream is not None and (echoed or tokens):
            # `write` of a TextParserStreamer is the program's, and takes messages
            write = getattr(self._stream, "_write", self._stream.write)
            self.status = status_of(write([*echoed, *tokens]))
        return self.status

    def end(self) -> None:
        if self._stream is not None:
            self._stream.end()


def answer_prompt(
    prompt: Sequence[int], stops: Stops, writer: Writer, figures: Figures, normalize: bool = True
) -> Steps:
    """Generate the sequences of one prompt by the configuration of `stops`. Without `normalize` beams get
    log-probabilities, not logits."""
    config, answers, is_refused = stops.config, list[Answer](), False
    try:
        if config.is_beam_search() and stops.most:
            for beam in (yield from search(prompt, stops, figures, normalize)):
                score = normalize_score(sum(beam.logs), len(beam.tokens), config.length_penalty)
                answers.append(Answer(beam.tokens, score))
                answers[-1].finish, answers[-1].logs = beam.finish, beam.logs[: len(beam.tokens)]
        elif stops.most:
            answers = yield from _choose(prompt, stops, writer, figures)
    except OutOfBlocks:
        is_refused = True  # the prompt
    if not answers:
        answers = [Answer([])]
        end_early(answers, writer, even_none=is_refused)
    if config.echo:
        for answer in answers:
            answer.tokens = [*prompt, *answer.tokens]
    return sorted(answers, key=lambda answer: -answer.score)


def echo_prompt(prompt: Sequence[int], writer: Writer) -> Steps:
    """Pass the tokens of a prompt to the streamer when it is computed."""
    yield [], []
    answer = Answer([])
    answer.finish = GenerationFinishReason.LENGTH
    writer.write(answer)
    answer.tokens = list(prompt)
    return [answer]


def _choose(prompt: Sequence[int], stops: Stops, writer: Writer, figures: Figures) -> Steps:
    """Generate by greedy choices or by sampling: all sequences take a token in turn."""
    sampler, matcher = Sampler(stops.config, prompt), stops.matcher
    logits = yield [], []
    figures.end_inference()
    answers = []
    for choice in sampler.choose(logits[0], 0, stops.config.num_return_sequences, matcher):
        answers.append(Answer([], matcher=None if matcher is None else matcher.fork()))
        answers[-1].number = len(answers)
        answers[-1].take(choice, stops)
    figures.end_step(1)
    running = find_running(answers, writer)
    while running:
        try:
            logits = yield [answer.row for answer in running], [answer.tokens[-1] for answer in running]
        except OutOfBlocks:
            end_early(running, writer)
            break
        figures.end_inference()
        for i, answer in enumerate(running):
            answer.row = i
            choices = sampler.choose(logits[i], len(answer.tokens), matcher=answer.matcher)
            answer.take(choices[0], stops)
        figures.end_step(len(running))
        running = find_running(running, writer)
    figures.finish()
    return answers


def end_early(answers: list[Answer], writer: Writer, even_none: bool = False) -> None:
    """End sequences without a finish reason, and pass the remaining tokens of the first one to the
    streamer."""
    for answer in answers:
        answer.finish = GenerationFinishReason.NONE
    writer.write(answers[0], even_none)
    writer.end()


def find_running(answers: list[Answer], writer: Writer) -> list[Answer]:
    """Pass new tokens to the streamer. Returns the sequences that go on."""
    answer = answers[0]
    status = writer.write(answer)
    if status is not StreamingStatus.RUNNING and answer.finish is None:
        answer.finish = _REASONS[status]
    elif status is StreamingStatus.CANCEL:
        answer.finish = GenerationFinishReason.NONE
    if answer.finish is not None:
        writer.end()
    return [answer for answer in answers if answer.finish is None]
