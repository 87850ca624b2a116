"""Results of VLMPipeline, and their performance figures."""

from __future__ import annotations

from ovjit.genai.results import DecodedResults, MeanStdPair, PerfMetrics


class VLMRawPerfMetrics:
    """Lists of durations in microseconds, and the number of slices of each picture."""

    def __init__(self) -> None:
        self.prepare_embeddings_durations: list[float] = []
        self.vision_encoding_durations: list[float] = []
        self.audio_encoding_durations: list[float] = []
        self.text_embedding_durations: list[float] = []
        self.per_image_slice_counts: list[int] = []


class VLMPerfMetrics(PerfMetrics):
    """Figures of one or several calls of VLMPipeline.generate; they are added by `+`."""

    def __init__(self) -> None:
        super().__init__()
        self.vlm_raw_metrics = VLMRawPerfMetrics()

    def __add__(self, metrics: PerfMetrics) -> VLMPerfMetrics:
        total = super().__add__(metrics)
        assert isinstance(total, VLMPerfMetrics)
        others = metrics.vlm_raw_metrics if isinstance(metrics, VLMPerfMetrics) else VLMRawPerfMetrics()
        for name, values in vars(self.vlm_raw_metrics).items():
            setattr(total.vlm_raw_metrics, name, values + getattr(others, name))
        return total

    __iadd__ = __add__

    def _of_vision(self, name: str) -> MeanStdPair:
        """Milliseconds."""
        return MeanStdPair.of(getattr(self.vlm_raw_metrics, name), 1000.0)

    def get_prepare_embeddings_duration(self) -> MeanStdPair:
        return self._of_vision("prepare_embeddings_durations")

    def get_vision_encoding_duration(self) -> MeanStdPair:
        return self._of_vision("vision_encoding_durations")

    def get_audio_encoding_duration(self) -> MeanStdPair:
        return self._of_vision("audio_encoding_durations")

    def get_text_embedding_duration(self) -> MeanStdPair:
        return self._of_vision("text_embedding_durations")

    def get_total_image_slice_count(self) -> int:
        return sum(self.vlm_raw_metrics.per_image_slice_counts)


class VLMDecodedResults(DecodedResults):
    """Texts with scores. str() gives the texts, each on its lines."""

    perf_metrics: VLMPerfMetrics
