"""Programs of Text2SpeechPipeline whose results are compared, and a small folder that they read.

    python -m tests.support.genai_speech tests/genai/speech.npz

runs them on the real packages.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_images import TOKENIZER, Ops, Program, image_package, value_of, write_results

WIDTH, BINS, SPEAKER = 8, 6, 512


def write_folder(package: Any, folder: Path) -> Path:
    """A SpeechT5 folder: each step of the decoder reads the last frame, and gives two."""
    shutil.copytree(TOKENIZER, folder)
    (folder / "config.json").write_text(
        json.dumps(
            {"architectures": ["SpeechT5ForTextToSpeech"], "reduction_factor": 2, "num_mel_bins": BINS}
        )
    )
    (folder / "generation_config.json").write_text(json.dumps({"maxlenratio": 5.0}))
    net = Ops(package, 41)
    ops = net.ops

    def save(name: str, outputs: dict[str, Any], inputs: list[Any]) -> None:
        net.save(outputs, inputs, folder / name)
        for end in ("xml", "bin"):
            (folder / name / f"openvino_model.{end}").rename(folder / f"openvino_{name}.{end}")

    ids = net.parameter("input_ids", [-1, -1], np.int64)
    words = ops.gather(net.weights(300, WIDTH), ids, ops.constant(0))
    mask = ops.broadcast(ops.constant(np.int64(1)), ops.shape_of(ids))
    save("encoder_model", {"last_hidden_state": ops.tanh(words), "encoder_attention_mask": mask}, [ids])
    frames, speaker = (
        net.parameter("inputs_embeds", [-1, -1, BINS]),
        net.parameter("speaker_embeddings", [-1, SPEAKER]),
    )
    states, attention = (
        net.parameter("encoder_hidden_states", [-1, -1, WIDTH]),
        net.parameter("encoder_attention_mask", [-1, -1], np.int64),
    )
    beam = net.parameter("beam_idx", [-1], np.int32)
    last = ops.gather(frames, ops.constant(-1), ops.constant(1))
    share = ops.unsqueeze(ops.convert(attention, np.float32), ops.constant(2))
    read = ops.reduce_mean(ops.multiply(states, share), ops.constant(1))
    total = ops.matmul(last, net.weights(BINS, 2 * BINS, scale=0.9), False, False)
    total = ops.add(total, ops.matmul(read, net.weights(WIDTH, 2 * BINS), False, False))
    total = ops.add(total, ops.matmul(speaker, net.weights(SPEAKER, 2 * BINS, scale=0.5), False, False))
    spectrum = ops.reshape(ops.tanh(total), ops.constant(np.array([-1, 2, BINS])), False)
    zero = ops.multiply(ops.convert(beam, np.float32), ops.constant(np.float32(0)))
    end = ops.add(
        ops.multiply(ops.sigmoid(ops.reduce_sum(spectrum, ops.constant(2))), ops.constant(np.float32(0.3))),
        zero,
    )
    grown = ops.concat([frames, ops.gather(spectrum, ops.constant(np.array([1])), ops.constant(1))], 1)
    save(
        "decoder_model",
        {"output_sequence_out": grown, "spectrum": spectrum, "prob": end},
        [frames, speaker, states, attention, beam],
    )
    raw = net.parameter("raw_spectrogram", [-1, -1, 2, BINS])
    joined = ops.reshape(
        ops.transpose(raw, ops.constant(np.array([1, 0, 2, 3]))), ops.constant(np.array([1, -1, BINS])), False
    )
    save("postnet", {"postnet_spectrogram": ops.multiply(joined, ops.constant(np.float32(1.5)))}, [raw])
    spectrogram = net.parameter("spectrogram", [-1, -1, BINS])
    wave = ops.matmul(spectrogram, net.weights(BINS, 4), False, False)
    save("vocoder", {"waveform": ops.reshape(wave, ops.constant(np.array([-1])), False)}, [spectrogram])
    return folder


def programs(genai: Any, folder: Path) -> Iterator[Program]:
    ov = image_package(genai)
    voice = ov.Tensor(np.sin(np.arange(SPEAKER, dtype=np.float32)).reshape(1, SPEAKER))
    pipe = genai.Text2SpeechPipeline(folder, "CPU", INFERENCE_PRECISION_HINT="f32")

    def speak(text: Any, *speaker: Any, **options: Any) -> np.ndarray:
        """The last speech, with the number of samples of all."""
        results = pipe.generate(text, *speaker, **options)
        metrics = results.perf_metrics
        sizes = [
            metrics.num_generated_samples,
            results.output_sample_rate,
            len(results.speeches),
            metrics.m_evaluated,
        ]
        return np.concatenate(
            [*(np.array(speech.data).reshape(-1) for speech in results.speeches[-1:]), sizes]
        )

    cases: dict[str, tuple[Any, ...]] = {
        "default speaker": ("hello world",), "speaker": ("hello world", voice), "list": (["hello", "numbers are not there"], voice),
        "no texts": ([],), "empty text": ("",), "number": (3,), "number in a list": (["a", 3],),
        "small speaker": ("hello", ov.Tensor(np.zeros((1, 8), np.float32))),
    }  # fmt: skip
    for name, arguments in cases.items():
        yield name, lambda a=arguments: speak(*a)
    for options in ({"threshold": 0.0}, {"threshold": 0.0, "minlenratio": 2.0}, {"threshold": 1.0}, {"maxlenratio": 0.1}, {"maxlenratio": 0.0}, {"minlenratio": 6.0},
                    {"minlenratio": -1.0}, {"threshold": 1.5}, {"threshold": None}, {"maxlenratio": "3"}, {"speed": 0.0}, {"no_such_name": 3}, {"max_phoneme_length": 0}):  # fmt: skip
        yield f"{options}", lambda o=options: speak("hello world", voice, **o)

    def configure(**fields: Any) -> np.ndarray:
        config = pipe.get_generation_config()
        for name, value in fields.items():
            setattr(config, name, value)
        pipe.set_generation_config(config)
        return speak("hello", voice)

    yield "config", lambda: describe(pipe.get_generation_config())
    yield (
        "config of keywords",
        lambda: describe(genai.SpeechGenerationConfig(maxlenratio=3, threshold=2.0, language="en-gb")),
    )
    yield "config changed", lambda: configure(maxlenratio=2.0, threshold=0.9)
    yield "config type", lambda: configure(maxlenratio="2")
    yield "shape of speakers", lambda: np.array(list(pipe.get_speaker_embedding_shape()), np.float32)
    yield (
        "empty results",
        lambda: np.array(
            [
                len(genai.Text2SpeechDecodedResults().speeches),
                genai.Text2SpeechDecodedResults().perf_metrics.num_generated_samples,
            ],
            np.float32,
        ),
    )
    yield "other folder", lambda: genai.Text2SpeechPipeline(folder / "nowhere", "CPU")


def describe(config: Any) -> np.ndarray:
    names = ("speed", "minlenratio", "maxlenratio", "threshold", "max_phoneme_length")
    numbers = [float(getattr(config, name)) for name in names]
    return np.array([*numbers, len(config.language), config.phonemize_fallback_model_dir is None], np.float32)


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(openvino, Path(name) / "speech")
        write_results(sys.argv[1], {title: value_of(run) for title, run in programs(openvino_genai, folder)})
