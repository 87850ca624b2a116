"""GenerationHandle: the results of one request of ContinuousBatchingPipeline, step after step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer, Writer
from ovjit.genai.enums import GenerationFinishReason, GenerationStatus, StreamingStatus
from ovjit.genai.results import PerfMetrics
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase
from ovjit.genai.vision.results import VLMPerfMetrics


class GenerationOutput:
    """Tokens of a sequence, their log-probabilities, the sum of these so far, and the reason of the end."""

    def __init__(self) -> None:
        self.generated_ids: list[int] = []
        self.generated_log_probs: list[float] = []
        self.score = 0.0
        self.finish_reason = GenerationFinishReason.NONE

    @classmethod
    def of(cls, tokens: Sequence[int], logs: Sequence[float], answer: Answer) -> GenerationOutput:
        output = cls()
        output.generated_ids, output.generated_log_probs = list(tokens), list(logs)
        output.score, output.finish_reason = answer.score, answer.finish or GenerationFinishReason.NONE
        return output


class GenerationHandle:
    """The results of a request. Methods that read run steps of the pipeline while there is nothing to read,
    and raise RuntimeError after `stop` and `cancel`."""

    def __init__(self, step: Callable[[], None], metrics: PerfMetrics):
        self._step, self._metrics = step, metrics
        self._status = GenerationStatus.RUNNING
        self._reason = GenerationFinishReason.STOP
        self._outputs: deque[dict[int, GenerationOutput]] = deque()
        #: The sequences that `read_all` returns; `read` returns all beams.
        self._most = 1

    def get_status(self) -> GenerationStatus:
        return self._status

    def get_perf_metrics(self) -> PerfMetrics:
        return self._metrics

    def get_vlm_perf_metrics(self) -> VLMPerfMetrics:
        """The figures of a request to a model that takes pictures. RuntimeError for others."""
        if not isinstance(self._metrics, VLMPerfMetrics):
            raise OvjitError("the model takes no pictures: call get_perf_metrics")
        return self._metrics

    def can_read(self) -> bool:
        """True if there are results that have not been read."""
        return bool(self._outputs) and self._status not in (GenerationStatus.STOP, GenerationStatus.CANCEL)

    def stop(self, finish_reason: GenerationFinishReason = GenerationFinishReason.STOP) -> None:
        """End the request at the next step."""
        if not isinstance(finish_reason, GenerationFinishReason):
            raise TypeError(
                f"finish_reason should be a GenerationFinishReason, not {type(finish_reason).__name__}"
            )
        if self._status is GenerationStatus.RUNNING:
            self._status, self._reason = GenerationStatus.STOP, finish_reason

    def cancel(self) -> None:
        """End the request at the next step, and drop its tokens."""
        if self._status is GenerationStatus.RUNNING:
            self._status = GenerationStatus.CANCEL

    def _check_usable(self) -> None:
        if self._status in (GenerationStatus.STOP, GenerationStatus.CANCEL):
            raise OvjitError("GenerationHandle cannot be used after it is stopped / cancelled.")

    def read(self) -> dict[int, GenerationOutput]:
        """The next tokens of each sequence. RuntimeError if all have been read."""
        self._check_usable()
        while not self._outputs:
            if self._status is not GenerationStatus.RUNNING:
                raise OvjitError("all results of this request have been read: ask can_read before")
            self._step()
            self._check_usable()
        return self._outputs.popleft()

    def read_all(self) -> list[GenerationOutput]:
        """All tokens of each sequence that have not been read, at the end of the request; the best first."""
        self._check_usable()
        while self._status is GenerationStatus.RUNNING:
            self._step()
        self._check_usable()
        merged: dict[int, GenerationOutput] = {}
        while self._outputs:
            for number, output in self._outputs.popleft().items():
                total = merged.setdefault(number, GenerationOutput())
                total.generated_ids = total.generated_ids + output.generated_ids
                total.generated_log_probs = total.generated_log_probs + output.generated_log_probs
                total.score, total.finish_reason = output.score, output.finish_reason
        best = sorted(merged, key=lambda number: (-merged[number].score, number))
        return [merged[number] for number in best[: self._most]]


class HandleWriter(Writer):
    """Gives the tokens of a single sequence to a handle as they come, those of several at the end; and those
    of a streamer to it. `prompt_logs`: the log-probabilities of echoed tokens."""

    def __init__(self, handle: GenerationHandle, stream: StreamerBase | None, stops: Stops,
                 echoed: Sequence[int], prompt_logs: Sequence[float] = ()):  # fmt: skip
        super().__init__(stream, stops, echoed)
        self._handle, self._prompt_logs = handle, prompt_logs
        config = stops.config
        handle._most = config.num_return_sequences
        self._is_single = config.num_return_sequences == 1 and not config.is_beam_search()

    def _give(self, echoed: list[int], tokens: list[int], answer: Answer) -> StreamingStatus:
        if self._is_single:
            logs = answer.logs[self._count - len(tokens) : self._count]
            logs = [*self._prompt_logs, *logs] if echoed else logs
            self._handle._outputs.append({0: GenerationOutput.of([*echoed, *tokens], logs, answer)})
        return super()._give(echoed, tokens, answer)

    def finish(self, answers: Sequence[Answer]) -> None:
        """Pass the sequences of the request to the handle."""
        if self._is_single and not answers[0].tokens and answers[0].finish is GenerationFinishReason.STOP:
            self._handle._outputs.append({})  # a stop string removed all of them
        elif not self._is_single:
            logs = [[*self._prompt_logs, *answer.logs] for answer in answers]
            order = sorted(range(len(answers)), key=lambda i: answers[i].number)
            # the last sequence comes first, as in openvino_genai
            outputs = {n: GenerationOutput.of(answers[i].tokens, logs[i], answers[i])
                       for n, i in reversed([*enumerate(order)])}  # fmt: skip
            self._handle._outputs.append(outputs)


class PipelineMetrics:
    """Figures of a ContinuousBatchingPipeline: requests at the last step, those that it computed, and the use
    of the cache in percent."""

    def __init__(self) -> None:
        self.requests = self.scheduled_requests = self.la_peak_pool_blocks = 0
        self.cache_size_in_bytes = self.kv_cache_size_in_bytes = 0
        self.cache_usage = self.max_cache_usage = self.avg_cache_usage = 0.0
