"""`openvino_genai` on ovjit: pipelines that generate texts and pictures, and those of speech.

    import ovjit.genai as ov_genai
    pipeline = ov_genai.LLMPipeline("folder", "CPU")
    print(pipeline.generate("The sun is", max_new_tokens=20))

Under `ovjit.as_openvino` and `python -m ovjit run` it is the module `openvino_genai`.
"""

from __future__ import annotations

import importlib
from typing import Any

from ovjit.module_cache import imports_from_file

#: The names of each module, which is imported when one of them is first used.
_NAMES = {
    "adapters": "Adapter AdapterConfig",
    "batching": "ContinuousBatchingPipeline",
    "config": "GenerationConfig",
    "enums": "AggregationMode GenerationFinishReason GenerationStatus KVCrushAnchorPointMode "
    "SparseAttentionMode StopCriteria StreamingStatus",
    "grammars": "StructuralTagItem StructuralTagsConfig StructuredOutputConfig",
    "handles": "GenerationHandle GenerationOutput PipelineMetrics",
    "history": "ChatHistory",
    "images.autoencoder": "AutoencoderKL",
    "images.config": "ImageGenerationConfig",
    "images.denoisers": "Flux2Transformer2DModel FluxTransformer2DModel SD3Transformer2DModel "
    "UNet2DConditionModel",
    "images.generators": "CppStdGenerator Generator TorchGenerator",
    "images.metrics": "ImageGenerationPerfMetrics RawImageGenerationPerfMetrics",
    "images.pipelines": "Image2ImagePipeline InpaintingPipeline Text2ImagePipeline",
    "images.qwen_image": "Qwen2_5_VLForConditionalGeneration QwenImageTransformer2DModel",
    "images.schedulers": "Scheduler",
    "images.taylor": "TaylorSeerCacheConfig",
    "images.text_encoders": "CLIPTextModel CLIPTextModelWithProjection Qwen3TextEncoder T5EncoderModel",
    "images.z_image": "ZImageTransformer2DModel",
    "llm": "LLMPipeline",
    "parsers": "DeepSeekR1ReasoningIncrementalParser DeepSeekR1ReasoningParser IncrementalParser "
    "Llama3JsonToolParser Llama3PythonicToolParser Parser Phi4ReasoningIncrementalParser "
    "Phi4ReasoningParser ReasoningIncrementalParser ReasoningParser TextParserStreamer VLLMParserWrapper",
    "results": "DecodedResults EncodedGenerationResult EncodedResults ExtendedPerfMetrics GenerationResult "
    "MeanStdPair PerfMetrics RawPerfMetrics SummaryStats",
    "retrieval": "TextEmbeddingPipeline TextRerankPipeline",
    "scheduler": "AdaptiveRKVConfig CacheEvictionConfig KVCrushConfig SchedulerConfig "
    "SparseAttentionConfig",
    "speculation": "SDPerModelsPerfMetrics SDPerfMetrics draft_model",
    "speech.config": "SpeechGenerationConfig",
    "speech.pipeline": "Text2SpeechPipeline",
    "speech.results": "SpeechGenerationPerfMetrics Text2SpeechDecodedResults",
    "streamers": "StreamerBase TextStreamer",
    "tokenizer": "TokenizedInputs Tokenizer",
    "videos.config": "VideoGenerationConfig VideoGenerationPerfMetrics VideoGenerationResult",
    "videos.networks": "AutoencoderKLLTXVideo LTXVideoTransformer3DModel",
    "videos.pipeline": "Text2VideoPipeline",
    "vision.embeddings": "EmbedResult EmbeddingPipeline",
    "vision.pipeline": "VLMPipeline VLMPipelineBase",
    "vision.results": "VLMDecodedResults VLMPerfMetrics VLMRawPerfMetrics",
    "vision.videos": "VideoMetadata",
    "whisper.config": "ASRGenerationConfig WhisperGenerationConfig",
    "whisper.pipeline": "ASRPipeline WhisperPipeline",
    "whisper.results": "ASRDecodedResultChunk ASRDecodedResults ASRPerfMetrics ASRRawPerfMetrics "
    "WhisperDecodedResultChunk WhisperDecodedResults WhisperPerfMetrics WhisperRawPerfMetrics "
    "WhisperWordTiming",
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted([*_MODULES, "get_version"])
#: The release of openvino_genai whose names and behaviour these are.
__version__ = "2026.4.1.0"


def get_version() -> str:
    return __version__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        with imports_from_file():
            value = getattr(importlib.import_module(f"ovjit.genai.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"ovjit's openvino_genai has no {name}: it has {', '.join(__all__)} (docs/genai.md). Other pipelines "
        "need the real openvino and openvino_genai, in a separate environment"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
