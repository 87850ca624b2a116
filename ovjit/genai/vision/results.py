"""Results of VLMPipeline, and their performance figures."""

from __future__ import annotations

from typing import Any

from ovjit.genai.results import DecodedResults, PerfMetrics, durations


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

    _raw_groups = ("raw_metrics", "vlm_raw_metrics")

    def __init__(self) -> None:
        super().__init__()
        self.vlm_raw_metrics = VLMRawPerfMetrics()

    get_prepare_embeddings_duration = durations("prepare_embeddings_durations")
    get_vision_encoding_duration = durations("vision_encoding_durations")
    get_audio_encoding_duration = durations("audio_encoding_durations")
    get_text_embedding_duration = durations("text_embedding_durations")

    def get_total_image_slice_count(self) -> int:
        return sum(self.vlm_raw_metrics.per_image_slice_counts)


class VLMDecodedResults(DecodedResults):
    """Texts with scores. str() gives the texts, each on its lines. Tokens and hidden states are those of
    models that speak, empty for others."""

    perf_metrics: VLMPerfMetrics

    def __init__(self) -> None:
        super().__init__()
        self.perf_metrics = VLMPerfMetrics()
        self.full_token_ids: list[int] = []
        self.intermediate_hidden_states: list[Any] = []
