"""Programs of ASRPipeline with folders of Qwen3-ASR and Fun-ASR, whose results are compared, and these small folders.

    python -m tests.support.genai_asr tests/genai

runs them on the real packages: they write `asr.json`. `tests/genai/asr` has the tokenizer, which `write_tokenizer` made there.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT
from tests.support.genai_images import Ops

DATA = ROOT / "tests" / "genai" / "asr"
ADDED = (
    "<asr_text>",
    "language English",
    "language None",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_pad|>",
    "<|audio_end|>",
)
WIDTH, MELS, WINDOW, FIRST = 16, 8, 8, 300
PROGRAMS: dict[str, dict[str, Any]] = {
    "plain": {}, "language": {"language": "French"}, "no language": {"language": ""}, "context": {"context": "hello world"},
    "sample": {"do_sample": True, "rng_seed": 5}, "sample again": {"do_sample": True, "rng_seed": 6, "temperature": 0.7},
    "beams": {"num_beams": 2}, "two": {"num_return_sequences": 2, "do_sample": True}, "penalty": {"repetition_penalty": 1.3},
    "stop token": {"eos_token_id": FIRST + 4}, "timestamps": {"return_timestamps": True},
    "words": {"word_timestamps": True}, "task": {"task": "translate"}, "short": {"max_new_tokens": 1},
}  # fmt: skip
FUN_PROGRAMS: dict[str, dict[str, Any]] = {
    **{name: PROGRAMS[name] for name in ("plain", "sample", "sample again", "beams", "penalty", "short", "words")},
    **{f"scores {language}": {"logprobs": 1, "language": language} for language in ("French", "\u4e2d\u6587", "")},
    "scores": {"logprobs": 1},
}  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    import openvino
    import transformers
    from openvino_tokenizers import convert_tokenizer
    from tokenizers import AddedToken

    from tests.support.genai_folder import train_tokenizer

    fast = train_tokenizer()
    fast.add_tokens([AddedToken(text, normalized=False) for text in ADDED])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="</s>", pad_token="<pad>"
    )
    pair = convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(pair, ("openvino_tokenizer", "openvino_detokenizer"), strict=True):
        openvino.save_model(model, folder / f"{name}.xml")


def write_folder(package: Any, folder: Path, kind: str = "qwen3_asr") -> Path:
    shutil.copytree(DATA, folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": kind, "thinker_config": {"audio_config": {"n_window": WINDOW}}})
    )
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": MELS}))
    net = Ops(package, 61)
    ops = net.ops

    def save(name: str, outputs: dict[str, Any], inputs: list[Any], sinks: tuple[Any, ...] = ()) -> None:
        for output, node in outputs.items():
            node.output(0).set_names({output})
        results = [ops.result(node) for node in outputs.values()]
        model = package.Model(results, list(sinks), inputs) if sinks else package.Model(results, inputs)
        package.save_model(model, folder / f"openvino_{name}_model.xml", compress_to_fp16=False)

    features = net.parameter("input_features", [-1, -1, -1])
    parts = ops.reshape(features, ops.constant(np.array([0, MELS, -1, 8])), True)
    frames = ops.reshape(
        ops.transpose(parts, ops.constant(np.array([0, 2, 1, 3]))),
        ops.constant(np.array([0, 0, 8 * MELS])),
        True,
    )
    weights = net.weights(8 * MELS, WIDTH, scale=0.3)
    if kind == "fun_asr":  # [1, groups, values]: each second group
        ends = [ops.constant(np.array([end])) for end in (0, 2**31 - 1, 2, 1)]
        frames, weights = ops.slice(features, *ends), net.weights(560, WIDTH, scale=0.004)
    state = ops.tanh(ops.matmul(frames, weights, False, False))
    save("encoder", {"last_hidden_state": state}, [features])
    ids, beams = net.parameter("input_ids", [-1, -1], np.int64), net.parameter("beam_idx", [-1], np.int32)
    states = net.parameter("encoder_hidden_states", [-1, -1, WIDTH])
    words = FIRST + len(ADDED)
    embeds = ops.gather(net.weights(words, WIDTH), ids, ops.constant(0))
    rows = ops.gather(ops.shape_of(ids), ops.constant(np.array([0])), ops.constant(0))
    start = ops.broadcast(ops.constant(np.float32(0)), ops.concat([rows, ops.constant(np.array([WIDTH]))], 0))
    info = package.op.util.VariableInfo()
    info.data_shape, info.data_type, info.variable_id = (
        package.PartialShape([-1, WIDTH]),
        package.Type.f32,
        "state",
    )
    variable = package.op.util.Variable(info)
    past = ops.gather(ops.read_value(start, variable), beams, ops.constant(0))
    sound = ops.reduce_mean(states, ops.constant(1))
    inner = ops.add(
        ops.matmul(past, net.weights(WIDTH, WIDTH, scale=0.5), False, False),
        ops.reduce_mean(embeds, ops.constant(1)),
    )
    state = ops.tanh(ops.add(inner, ops.multiply(sound, ops.constant(np.float32(3)))))
    hidden = ops.add(
        ops.unsqueeze(state, ops.constant(1)), ops.multiply(embeds, ops.constant(np.float32(0.1)))
    )
    likely = np.full(words, -8, np.float32)
    likely[[*range(260, 280), FIRST, FIRST + 1, FIRST + 2]] = 0
    likely[FIRST] = 4.5
    logits = ops.add(ops.matmul(hidden, net.weights(WIDTH, words), False, False), ops.constant(likely))
    save("decoder", {"logits": logits}, [ids, states, beams], (ops.assign(state, variable),))
    return folder


def sound(seconds: float, seed: int) -> np.ndarray:
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16000)) / 16000
    return (
        0.3 * np.sin(2 * np.pi * (300 + 200 * np.sin(3 * time + seed)) * time)
        + 0.05 * rng.standard_normal(time.size)
    ).astype(np.float32)


def collect(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    """Program -> texts, languages, scores, pieces, counts of figures; or the class of the error."""
    sounds = {"second": sound(1, 1), "half": sound(0.013, 2), "long": sound(3.21, 3), "exact": sound(1.6, 4)}
    found = run_programs(genai, write_folder(package, folder / "asr"), "", sounds, PROGRAMS)
    more = {"tiny": sound(1, 5)[:7], "one sample": sound(1, 5)[:1]}
    return found | run_programs(
        genai, write_folder(package, folder / "fun", "fun_asr"), "fun ", sounds | more, FUN_PROGRAMS
    )


def run_programs(
    genai: Any, folder: Path, prefix: str, sounds: dict[str, Any], programs: dict[str, Any]
) -> dict[str, Any]:
    pipeline = genai.ASRPipeline(folder, "CPU", INFERENCE_PRECISION_HINT="f32")
    found: dict[str, Any] = {}
    for name, samples in sounds.items():
        for title, options in programs.items():
            pieces: list[str] = []

            def write(piece: str, pieces: list[str] = pieces) -> None:
                pieces.append(piece)

            try:
                results = pipeline.generate(
                    samples.tolist(), streamer=write, **{"max_new_tokens": 12, **options}
                )
            except Exception as error:
                found[f"{prefix}{name} {title}"] = next(
                    c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"
                )
                continue
            metrics = results.perf_metrics
            raw, speech = metrics.raw_metrics, metrics.asr_raw_metrics
            counts = [
                len(values)
                for values in (
                    speech.encode_inference_durations,
                    speech.decode_inference_durations,
                    speech.features_extraction_durations,
                    speech.word_level_timestamps_processing_durations,
                    raw.tokenization_durations,
                    raw.detokenization_durations,
                    raw.m_durations,
                    raw.generate_durations,
                )
            ]
            found[f"{prefix}{name} {title}"] = [
                results.texts, results.languages, results.scores, results.chunks, results.words, pieces, counts,
                metrics.get_num_generated_tokens(), str(results),
            ]  # fmt: skip
    config = pipeline.get_generation_config()
    found[f"{prefix}config"] = [
        config.eos_token_id,
        sorted(config.stop_token_ids),
        config.max_new_tokens == 2**64 - 1,
        config.apply_chat_template,
    ]
    return found


if __name__ == "__main__":
    import openvino
    import openvino_genai

    if not DATA.exists():
        write_tokenizer(DATA)
    with tempfile.TemporaryDirectory() as path:
        results = collect(openvino, openvino_genai, Path(path))
    Path(sys.argv[1], "asr.json").write_text(json.dumps(results, indent=0, ensure_ascii=False) + "\n")
