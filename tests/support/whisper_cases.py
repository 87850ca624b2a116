"""Programs of openvino_genai's WhisperPipeline and ASRPipeline whose results are compared.

    python -m tests.support.whisper_cases > tests/genai/expected_whisper.json

runs on the real packages, with the folder that `bench.whisper` writes. Results are JSON values.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.whisper import END, TINY, write_folder
from tests.support.genai_cases import EXACT, fields_of, value_of

#: Tokens whose text alone is not printable ASCII: words of them end the process there.
UNREADABLE = [*range(94, 220), *range(221, 256), 266, 280, 281, 282, 283, 284, 293, 295]
#: Without timestamps and special tokens.
TEXT = [*UNREADABLE, *range(END + 1, TINY.words)]
CONFIGS: tuple[dict[str, Any], ...] = (
    {}, {"max_new_tokens": 3}, {"lang_to_id": {"<|en|>": 5}}, {"lang_to_id": {"<|en|>": 5}, "language": "fr"},
    {"lang_to_id": {"<|en|>": 5}, "language": "en"}, {"lang_to_id": {"<|en|>": 5}, "language": "<|en|>"}, {"lang_to_id": {"<|en|>": 5}, "task": "x"},
    {"lang_to_id": {"a": "b"}}, {"is_multilingual": False}, {"is_multilingual": False, "language": "en"}, {"is_multilingual": False, "task": "translate"},
    {"is_multilingual": False, "do_sample": True, "num_return_sequences": 2}, {"is_multilingual": False, "num_assistant_tokens": 2},
    {"is_multilingual": False, "word_timestamps": True}, {"suppress_tokens": [1, 2]}, {"suppress_tokens": "1 2"}, {"suppress_tokens": [1.5]}, {"suppress_tokens": 3},
    {"begin_suppress_tokens": []}, {"language": 3}, {"language": None}, {"return_timestamps": 1}, {"return_timestamps": "yes"}, {"alignment_heads": []},
    {"max_initial_timestamp_index": -1}, {"pad_token_id": "8"}, {"hotwords": 5}, {"initial_prompt": "a"}, {"no_such_name": 1}, {"translate_token_id": 5.5},
)  # fmt: skip
CHANGES: tuple[tuple[str, Any], ...] = (
    ("suppress_tokens", (1, 2)), ("suppress_tokens", "12"), ("suppress_tokens", [1.0]), ("suppress_tokens", None), ("suppress_tokens", range(3)), ("language", None),
    ("language", 3), ("lang_to_id", {"a": 1}), ("lang_to_id", [("a", 1)]), ("lang_to_id", {1: 1}), ("alignment_heads", [(1, 2)]), ("alignment_heads", [[1, 2]]),
    ("alignment_heads", [(1, 2, 3)]), ("alignment_heads", [(-1, 2)]), ("alignment_heads", "12"), ("task", None), ("max_initial_timestamp_index", -1), ("pad_token_id", -5), ("no_such_name", 1),
)  # fmt: skip
#: Keywords of `generate`.
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"language": "en"}, {"language": "<|zh|>"}, {"language": "es", "task": "translate"}, {"task": "transcribe"}, {"initial_prompt": "hello"}, {"hotwords": "world there"},
    {"initial_prompt": "is it", "hotwords": "so"}, {"initial_prompt": ""}, {"num_beams": 3}, {"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 3, "return_timestamps": True},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, {"do_sample": True}, {"do_sample": True, "rng_seed": 5, "top_k": 20}, {"do_sample": True, "return_timestamps": True},
    {"repetition_penalty": 1.5}, {"max_initial_timestamp_index": 3, "return_timestamps": True}, {"max_initial_timestamp_index": 0, "return_timestamps": True},
    {"max_length": 3}, {"max_length": 12}, {"min_new_tokens": 8}, {"stop_strings": {"@"}}, {"stop_token_ids": {12, 31}}, {"language": "fr"}, {"task": "x"}, {"is_multilingual": False},
    {"num_return_sequences": 2}, {"word_timestamps": True}, {"echo": True}, {"logprobs": 1}, {"max_new_tokens": None}, {"no_such_name": 1},
)  # fmt: skip


def record(seconds: float, seed: int) -> list[float]:
    """Samples at 16 kHz: tones that rise and fall, with pauses and noise."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(16000 * seconds)) / 16000
    tones = [(rng.uniform(0.05, 0.3), rng.uniform(80, 3000), rng.uniform(-50, 50)) for _ in range(6)]
    sound = sum(a * np.sin(2 * np.pi * (f * times + s * times**2 / max(seconds, 1))) for a, f, s in tones)
    sound = sound * (np.sin(2 * np.pi * rng.uniform(0.3, 2) * times) > 0)
    noise = rng.standard_normal(len(times)) * rng.uniform(0.001, 0.1)
    return (sound + noise).astype(np.float32).tolist()  # type: ignore[no-any-return]


def results_of(results: Any) -> Any:
    """The values of results."""
    language = results.language if hasattr(results, "language") else results.languages
    return [results.texts, list(results.scores), language, values_of(results.chunks), values_of(results.words), str(results)]  # fmt: skip


def values_of(items: Any) -> Any:
    """Times and texts of chunks or words."""
    if items is None or isinstance(items, list) and items and isinstance(items[0], list):
        return items and [values_of(each) for each in items]
    texts = [item.word if hasattr(item, "word") else item.text for item in items]
    return [[round(i.start_ts, 3), round(i.end_ts, 3), t, getattr(i, "token_ids", [])] for i, t in zip(items, texts, strict=True)]  # fmt: skip


def configs(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    def build(kind: Any, options: dict[str, Any]) -> Any:
        config = kind(**{"max_new_tokens": 3, **options})
        return [fields_of(config), value_of(config.validate)]

    def change(name: str, value: Any) -> Any:
        config = genai.WhisperGenerationConfig()
        setattr(config, name, value)
        return fields_of(config)

    for kind in (genai.WhisperGenerationConfig, genai.ASRGenerationConfig):
        yield f"{kind.__name__} defaults", lambda kind=kind: fields_of(kind(), True)
        yield (
            f"{kind.__name__} file",
            lambda kind=kind: fields_of(kind(folder / "generation_config.json")),
        )
        for options in CONFIGS:
            yield f"{kind.__name__} {options}", lambda kind=kind, options=options: build(kind, options)
    for name, value in CHANGES:
        yield f"set {name} {value}", lambda name=name, value=value: change(name, value)


def pipelines(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    pipeline = genai.WhisperPipeline(folder, "CPU", **EXACT)
    sound = record(6, 9)

    def run(seconds: float, seed: int, **options: Any) -> Any:
        return results_of(pipeline.generate(record(seconds, seed), max_new_tokens=24, **options))

    for seed, seconds in enumerate((0.5, 1, 5.5, 29, 31, 70)):
        for options in (
            {"suppress_tokens": TEXT if seconds < 30 else UNREADABLE},
            {"return_timestamps": True},
        ):
            yield f"{seconds} s {sorted(options)}", lambda s=seconds, n=seed, o=options: run(s, n, **o)
    for options in OPTIONS:
        values = {"suppress_tokens": [] if "return_timestamps" in options else TEXT, **options}
        if "max_length" not in options:
            values = {"max_new_tokens": 16, **values}
        name = f"{ {n: sorted(v) if isinstance(v, set) else v for n, v in options.items()} }"
        yield name, lambda o=values: results_of(pipeline.generate(sound, **o))
    for name, samples in {
        "empty": [], "200 samples": [0.1] * 200, "201 samples": [0.1] * 201, "int": [1, 2, 3] * 100, "tuple": (0.5,) * 300, "str": "abc", "None": [None] * 300,
        "array": np.linspace(-1, 1, 400), "rows": np.zeros((1, 400), np.float32), "texts": ["1"] * 300, "NaN": [float("nan")] * 300,
    }.items():  # fmt: skip
        yield f"sound {name}", lambda s=samples: results_of(pipeline.generate(s, max_new_tokens=4))
    config = pipeline.get_generation_config()
    config.max_new_tokens, config.suppress_tokens = 5, TEXT
    yield "config", lambda: results_of(pipeline.generate(sound, config))
    yield (
        "config and keyword",
        lambda: results_of(pipeline.generate(sound, config, max_new_tokens=3)),
    )
    yield "dict", lambda: results_of(pipeline.generate(sound, {"max_new_tokens": 3}))
    for kind in ("GenerationConfig", "ASRGenerationConfig"):
        yield kind, lambda k=kind: results_of(pipeline.generate(sound, getattr(genai, k)(max_new_tokens=3)))  # fmt: skip

    class Streamer(genai.StreamerBase):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.items: list[Any] = []

        def write(self, token: Any) -> Any:
            self.items.append(token if isinstance(token, int) else list(token))
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            self.items.append("end")

    def stream(**options: Any) -> Any:
        streamer = Streamer()
        results = pipeline.generate(sound, streamer=streamer, max_new_tokens=20, **options)
        return [streamer.items, results_of(results)]

    for options in ({"suppress_tokens": TEXT}, {"return_timestamps": True}, {"num_beams": 2}, {"echo": True}, {"stop_strings": {"@"}}):  # fmt: skip
        yield f"stream {sorted(options)}", lambda o=options: stream(**o)

    def speak() -> Any:
        pieces: list[str] = []
        pipeline.generate(sound, suppress_tokens=TEXT, max_new_tokens=12, streamer=lambda text: pieces.append(text))  # fmt: skip
        return pieces

    yield "function", speak

    def count(**options: Any) -> Any:
        metrics = pipeline.generate(sound, max_new_tokens=20, **options).perf_metrics
        raw, speech = metrics.raw_metrics, metrics.whisper_raw_metrics
        names = ("m_new_token_times", "m_durations", "m_times_to_first_token", "token_infer_durations", "sampling_durations",
                 "inference_durations", "detokenization_durations", "tokenization_durations", "generate_durations")  # fmt: skip
        counts = {name: len(getattr(raw, name)) for name in names}
        counts |= {n: len(getattr(speech, n)) for n in dir(speech) if n.endswith("durations")}
        return [counts, metrics.get_num_generated_tokens(), metrics.get_num_input_tokens(), metrics.get_word_level_timestamps_processing_duration().mean]  # fmt: skip

    for options in ({"suppress_tokens": TEXT}, {"return_timestamps": True}):
        yield f"figures {sorted(options)}", lambda o=options: count(**o)


def words(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    pipeline = genai.WhisperPipeline(folder, "CPU", word_timestamps=True, **EXACT)
    speech = genai.ASRPipeline(folder, "CPU", word_timestamps=True, **EXACT)
    for seconds, seed in ((1, 20), (29, 22), (45, 23)):
        suppressed = TEXT if seconds < 30 else UNREADABLE
        for options in ({"language": "en"}, {"language": "zh"}, {"do_sample": True, "temperature": 3.0}):
            values = {"suppress_tokens": suppressed, "max_new_tokens": 24, **options}
            yield f"words {seconds} s {options}", lambda s=seconds, n=seed, o=values: results_of(pipeline.generate(record(s, n), **o))  # fmt: skip
    sound = record(5, 5)
    for options in ({}, {"word_timestamps": True}, {"return_timestamps": True}, {"language": "xx"}, {"context": "x"}):  # fmt: skip
        values = {"suppress_tokens": UNREADABLE if "return_timestamps" in options else TEXT, "max_new_tokens": 12, **options}  # fmt: skip
        yield f"ASR {options}", lambda o=values: results_of(speech.generate(sound, **o))
    yield "ASR with another config", lambda: results_of(speech.generate(sound, genai.WhisperGenerationConfig(max_new_tokens=3)))  # fmt: skip


GROUPS = {"configs": configs, "pipelines": pipelines, "words": words}

if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as temporary:
        path = write_folder(openvino, Path(temporary) / "whisper")
        expected = {
            group: {name: value_of(run) for name, run in programs(openvino_genai, path)}
            for group, programs in GROUPS.items()
        }
    print(json.dumps(expected, indent=0, ensure_ascii=False))
