"""Times of the steps of a generation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ovjit.genai.results import PerfMetrics


def now_us() -> float:
    """Microseconds of a monotonic clock."""
    return time.perf_counter() * 1e6


@contextmanager
def measure(durations: list[float]) -> Iterator[None]:
    """Append the duration of a block in microseconds."""
    start_us = now_us()
    try:
        yield
    finally:
        durations.append(now_us() - start_us)


#: The lists of figures that steps fill.
MEASURED = ("grammar_compile_times", "inference_durations", "m_batch_sizes", "m_durations",
            "m_new_token_times", "m_times_to_first_token", "sampling_durations",
            "token_infer_durations")  # fmt: skip


class Figures:
    """Measures the steps of one request. A step of a beam search has one token, or one for each sequence that
    it continues if figures `counts_beams`, as those of speech do."""

    def __init__(self, metrics: PerfMetrics, start_us: float, counts_beams: bool = False):
        self.counts_beams = counts_beams
        self.metrics, self._raw = metrics, metrics.raw_metrics
        self._start_us = self._last = start_us
        self._start = self._middle = now_us()
        self._inference = 0.0

    def begin(self) -> None:
        """Note the begin of a sequence's first inference, after other work."""
        self._start = now_us()

    def end_inference(self) -> None:
        """Note the end of an inference."""
        self._middle = now_us()
        self._raw.token_infer_durations.append(self._middle - self._start)
        self._inference += self._middle - self._start

    def end_step(self, count: int) -> None:
        """Note the end of a step with so many tokens."""
        now = now_us()
        self._raw.sampling_durations.append(now - self._middle)
        if self._raw.m_times_to_first_token:
            # an entry for each token, so that means weigh steps by their tokens
            self._raw.m_durations += [(now - self._last) / count] * count
        else:
            self._raw.m_times_to_first_token.append(now - self._start_us)
        self._raw.m_new_token_times.append(now / 1000)
        self._raw.m_batch_sizes.append(count)
        self.metrics._generated_tokens += count
        self._start = self._last = now

    def finish(self) -> None:
        self._raw.inference_durations.append(self._inference)


class SharedFigures(Figures):
    """Measures the steps of several requests that run together. Each of them notes its part of a step."""

    _count = 0

    def end_inference(self) -> None:
        if not self._count:
            super().end_inference()

    def end_step(self, count: int) -> None:
        self._count += count

    def finish(self) -> None:
        """Nothing yet: others may go on."""

    def end_common_step(self) -> None:
        """Note the end of a step of all requests."""
        if self._count:
            super().end_step(self._count)
        self._count = 0

    def finish_all(self) -> None:
        super().finish()

    def copy_to(self, metrics: PerfMetrics) -> None:
        """Copy the figures of a request to the metrics of all requests."""
        metrics._generated_tokens = self.metrics._generated_tokens
        metrics._grammar_init = self.metrics._grammar_init
        for name in MEASURED:
            setattr(metrics.raw_metrics, name, list(getattr(self._raw, name)))
