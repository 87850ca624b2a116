"""`openvino_genai` on ovjit: pipelines that generate texts and pictures, and those of speech.

    import ovjit.genai as ov_genai
    pipeline = ov_genai.LLMPipeline("folder", "CPU")
    print(pipeline.generate("The sun is", max_new_tokens=20))

Under `ovjit.as_openvino` and `python -m ovjit run` it is the module `openvino_genai`.
"""

from __future__ import annotations

import importlib
from typing import Any

from ovjit.genai.adapters import Adapter, AdapterConfig
from ovjit.genai.config import GenerationConfig
from ovjit.genai.enums import (
    AggregationMode,
    GenerationFinishReason,
    GenerationStatus,
    KVCrushAnchorPointMode,
    SparseAttentionMode,
    StopCriteria,
    StreamingStatus,
)
from ovjit.genai.grammars import StructuralTagItem, StructuralTagsConfig, StructuredOutputConfig
from ovjit.genai.handles import GenerationHandle, GenerationOutput, PipelineMetrics
from ovjit.genai.history import ChatHistory
from ovjit.genai.images.config import ImageGenerationConfig
from ovjit.genai.images.generators import CppStdGenerator, Generator, TorchGenerator
from ovjit.genai.images.metrics import ImageGenerationPerfMetrics, RawImageGenerationPerfMetrics
from ovjit.genai.images.taylor import TaylorSeerCacheConfig
from ovjit.genai.llm import LLMPipeline
from ovjit.genai.parsers import (
    DeepSeekR1ReasoningIncrementalParser,
    DeepSeekR1ReasoningParser,
    IncrementalParser,
    Llama3JsonToolParser,
    Llama3PythonicToolParser,
    Parser,
    Phi4ReasoningIncrementalParser,
    Phi4ReasoningParser,
    ReasoningIncrementalParser,
    ReasoningParser,
    TextParserStreamer,
    VLLMParserWrapper,
)
from ovjit.genai.results import (
    DecodedResults,
    EncodedGenerationResult,
    EncodedResults,
    ExtendedPerfMetrics,
    GenerationResult,
    MeanStdPair,
    PerfMetrics,
    RawPerfMetrics,
    SummaryStats,
)
from ovjit.genai.scheduler import (
    AdaptiveRKVConfig,
    CacheEvictionConfig,
    KVCrushConfig,
    SchedulerConfig,
    SparseAttentionConfig,
)
from ovjit.genai.speculation import SDPerfMetrics, SDPerModelsPerfMetrics, draft_model
from ovjit.genai.speech.config import SpeechGenerationConfig
from ovjit.genai.speech.results import SpeechGenerationPerfMetrics, Text2SpeechDecodedResults
from ovjit.genai.streamers import StreamerBase, TextStreamer
from ovjit.genai.tokenizer import TokenizedInputs, Tokenizer
from ovjit.genai.vision.results import VLMDecodedResults, VLMPerfMetrics, VLMRawPerfMetrics
from ovjit.genai.vision.videos import VideoMetadata
from ovjit.genai.whisper.config import ASRGenerationConfig, WhisperGenerationConfig
from ovjit.genai.whisper.results import (
    ASRDecodedResultChunk,
    ASRDecodedResults,
    ASRPerfMetrics,
    ASRRawPerfMetrics,
    WhisperDecodedResultChunk,
    WhisperDecodedResults,
    WhisperPerfMetrics,
    WhisperRawPerfMetrics,
    WhisperWordTiming,
)

__all__ = [
    "ASRDecodedResultChunk", "ASRDecodedResults", "ASRGenerationConfig", "ASRPerfMetrics", "ASRPipeline",
    "ASRRawPerfMetrics", "Adapter", "AdapterConfig", "AdaptiveRKVConfig", "AggregationMode", "AutoencoderKL",
    "AutoencoderKLLTXVideo", "CLIPTextModel", "CLIPTextModelWithProjection", "CacheEvictionConfig",
    "ChatHistory", "ContinuousBatchingPipeline", "CppStdGenerator", "DecodedResults",
    "DeepSeekR1ReasoningIncrementalParser", "DeepSeekR1ReasoningParser", "EmbedResult", "EmbeddingPipeline",
    "EncodedGenerationResult", "EncodedResults", "ExtendedPerfMetrics", "Flux2Transformer2DModel",
    "FluxTransformer2DModel", "GenerationConfig", "GenerationFinishReason", "GenerationHandle",
    "GenerationOutput", "GenerationResult", "GenerationStatus", "Generator", "Image2ImagePipeline",
    "ImageGenerationConfig", "ImageGenerationPerfMetrics", "IncrementalParser", "InpaintingPipeline",
    "KVCrushAnchorPointMode", "KVCrushConfig", "LLMPipeline", "LTXVideoTransformer3DModel",
    "Llama3JsonToolParser", "Llama3PythonicToolParser", "MeanStdPair", "Parser", "PerfMetrics",
    "Phi4ReasoningIncrementalParser", "Phi4ReasoningParser", "PipelineMetrics",
    "Qwen2_5_VLForConditionalGeneration", "Qwen3TextEncoder", "QwenImageTransformer2DModel",
    "RawImageGenerationPerfMetrics", "RawPerfMetrics", "ReasoningIncrementalParser", "ReasoningParser",
    "SD3Transformer2DModel", "SDPerModelsPerfMetrics", "SDPerfMetrics", "Scheduler", "SchedulerConfig",
    "SparseAttentionConfig", "SparseAttentionMode", "SpeechGenerationConfig", "SpeechGenerationPerfMetrics",
    "StopCriteria", "StreamerBase", "StreamingStatus", "StructuralTagItem", "StructuralTagsConfig",
    "StructuredOutputConfig", "SummaryStats", "T5EncoderModel", "TaylorSeerCacheConfig", "Text2ImagePipeline",
    "Text2SpeechDecodedResults", "Text2SpeechPipeline", "Text2VideoPipeline", "TextEmbeddingPipeline",
    "TextParserStreamer", "TextRerankPipeline", "TextStreamer", "TokenizedInputs", "Tokenizer",
    "TorchGenerator", "UNet2DConditionModel", "VLLMParserWrapper", "VLMDecodedResults", "VLMPerfMetrics",
    "VLMPipeline", "VLMPipelineBase", "VLMRawPerfMetrics", "VideoGenerationConfig",
    "VideoGenerationPerfMetrics", "VideoGenerationResult", "VideoMetadata", "WhisperDecodedResultChunk",
    "WhisperDecodedResults", "WhisperGenerationConfig", "WhisperPerfMetrics", "WhisperPipeline",
    "WhisperRawPerfMetrics", "WhisperWordTiming", "ZImageTransformer2DModel", "draft_model", "get_version",
]  # fmt: skip

#: Modules that are imported when one of their names is first used.
_LATE = {
    "batching": "ContinuousBatchingPipeline",
    "embedding": "EmbeddingPipeline EmbedResult",
    "images.autoencoder": "AutoencoderKL",
    "images.denoisers": "Flux2Transformer2DModel FluxTransformer2DModel SD3Transformer2DModel "
    "UNet2DConditionModel",
    "images.pipelines": "Image2ImagePipeline InpaintingPipeline Text2ImagePipeline",
    "images.qwen_image": "Qwen2_5_VLForConditionalGeneration QwenImageTransformer2DModel",
    "images.schedulers": "Scheduler",
    "images.text_encoders": "CLIPTextModel CLIPTextModelWithProjection Qwen3TextEncoder T5EncoderModel",
    "images.z_image": "ZImageTransformer2DModel",
    "retrieval": "TextEmbeddingPipeline TextRerankPipeline",
    "speech.pipeline": "Text2SpeechPipeline",
    "videos.config": "VideoGenerationConfig VideoGenerationPerfMetrics VideoGenerationResult",
    "videos.networks": "AutoencoderKLLTXVideo LTXVideoTransformer3DModel",
    "videos.pipeline": "Text2VideoPipeline",
    "vision.pipeline": "VLMPipeline VLMPipelineBase",
    "whisper.pipeline": "ASRPipeline WhisperPipeline",
}
_MODULES = {name: module for module, names in _LATE.items() for name in names.split()}
#: The release of openvino_genai whose names and behaviour these are.
__version__ = "2026.4.1.0"


def get_version() -> str:
    return __version__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = globals()[name] = getattr(importlib.import_module(f"ovjit.genai.{_MODULES[name]}"), name)
        return value
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"ovjit's openvino_genai has no {name}: it has {', '.join(__all__)} (docs/genai.md). Other pipelines "
        "need the real openvino and openvino_genai, in a separate environment"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
