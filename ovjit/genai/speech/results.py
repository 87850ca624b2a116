"""Results of Text2SpeechPipeline, and their performance figures."""

from __future__ import annotations

from ovjit.api.tensors.tensor import Tensor
from ovjit.genai.results import MeanStdPair, PerfMetrics, SummaryStats


class SpeechGenerationPerfMetrics(PerfMetrics):
    """Figures of a call of `generate`: durations in milliseconds, and samples in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.num_generated_samples = 0
        self.m_evaluated = False
        self.generate_duration, self.throughput = MeanStdPair(), MeanStdPair()

    def get_ttft(self) -> MeanStdPair:
        """0: it is not measured."""
        return MeanStdPair()

    get_tpot = get_ipot = get_inference_duration = get_ttft

    def get_grammar_compile_time(self) -> SummaryStats:
        return SummaryStats()

    def get_throughput(self) -> MeanStdPair:
        """Samples in a second."""
        self.evaluate()
        return self.throughput

    def evaluate(self) -> None:
        """Compute the figures from the durations of the call."""
        total = self.get_generate_duration()
        samples, self.generate_duration = 1000.0 * self.num_generated_samples, total
        self.throughput = MeanStdPair(samples / total.mean, total.std * samples / total.mean**2)
        self.m_evaluated = True


class Text2SpeechDecodedResults:
    """Speeches f32 [samples], one for each text, and their samples in a second."""

    def __init__(self) -> None:
        self.speeches: list[Tensor] = []
        self.output_sample_rate = 0
        self.perf_metrics = SpeechGenerationPerfMetrics()
