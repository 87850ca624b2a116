"""WhisperPipeline beside the real openvino_genai: CPU time of one call, by the number of tokens.

    python -m bench.whisper [--tokens 60] [--rounds 5] [--threads 1]

The model has the sizes of Whisper-tiny and random weights, in the form that optimum-intel exports. Both
packages read the same folder, detect the language of 20 seconds of noise, and transcribe it in interleaved
rounds.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, report
from bench.transformers import Net, encoder_block

#: A tokenizer of 300 tokens, whose special tokens follow here.
TEXTS = Path(__file__).parents[1] / "tests" / "genai" / "data"
LANGUAGES = ("en", "zh", "de", "es")
END, START, FIRST_LANGUAGE, TRANSLATE, TRANSCRIBE, BEFORE, NO_TIMES = 300, 301, 302, 306, 307, 309, 311
COLUMNS = ("tokens", "threads", "cpu_s", "cpu_s_real", "ratio", "same")


class Sizes(NamedTuple):
    """Sizes of both halves. `sharp`: the scale of the weights of words and positions."""

    layers: int = 4
    width: int = 384
    heads: int = 6
    words: int = 51865
    sharp: float = 1.0


TINY = Sizes(2, 32, 2, NO_TIMES + 1502, 3.0)


def encoder(net: Net, s: Sizes) -> Any:
    """Spectrograms [1, 80, 3000] to states [1, 1500, width]."""
    ops = net.ops
    mel = ops.parameter(net.ov.PartialShape([-1, 80, 3000]), np.float32, name="input_features")
    x = ops.gelu(ops.convolution(mel, net.weights(s.width, 80, 3), [1], [1], [1], [1]), "erf")
    x = ops.gelu(ops.convolution(x, net.weights(s.width, s.width, 3), [2], [1], [1], [1]), "erf")
    x = ops.transpose(x, net.ints(0, 2, 1))
    x = ops.add(
        x, net.const(net.rng.standard_normal((1, 1500, s.width), np.float32) * np.float32(0.2 / s.sharp))
    )
    for _ in range(s.layers):
        x = encoder_block(net, x, s.width, s.heads, before=True)
    states = net.layer_norm(x, s.width)
    for node, name in ((mel, "input_features"), (states, "last_hidden_state")):
        node.output(0).tensor.set_names({name})
    return net.model([states], [mel], "encoder")


def decoder(net: Net, s: Sizes) -> Any:
    """Tokens and states to logits. Keys and values of tokens grow in variables; those of the states are kept
    from the first inference on."""
    ops, size = net.ops, s.width // s.heads
    shape, one = net.ov.PartialShape([-1, s.heads, -1, size]), net.const(1, np.int64)
    ids = ops.parameter(net.ov.PartialShape([-1, -1]), np.int64, name="input_ids")
    states = ops.parameter(net.ov.PartialShape([-1, -1, s.width]), np.float32, name="encoder_hidden_states")
    beams = ops.parameter(net.ov.PartialShape([-1]), np.int32, name="beam_idx")
    zero, sinks = net.const(0, np.int64), []
    batch = ops.gather(ops.shape_of(ids, "i64"), net.ints(0), zero)
    empty = ops.broadcast(
        net.const(0.0), ops.concat([batch, net.ints(s.heads), net.ints(0), net.ints(size)], 0)
    )

    def read(name: str, start: Any) -> Any:
        return ops.read_value(start, name, np.float32, shape)

    def cache(before: Any, value: Any, name: str) -> Any:
        joined = ops.concat([ops.gather(before, beams, zero), value], 2)
        sinks.append(ops.assign(joined, name))
        return joined

    def keep(value: Any, name: str) -> Any:
        value = read(name, value)
        sinks.append(ops.assign(value, name))
        return value

    names = [f"past_key_values.{i}.decoder.{name}" for i in range(s.layers) for name in ("key", "value")]
    pasts = [read(name, empty) for name in names]
    past = ops.gather(ops.shape_of(pasts[0], "i64"), net.const(2, np.int64), zero)
    end = ops.add(past, ops.gather(ops.shape_of(ids, "i64"), one, zero))
    rows = ops.range(past, end, one, "i64")
    columns = ops.unsqueeze(ops.range(zero, end, one, "i64"), net.ints(0))
    visible = ops.less_equal(columns, ops.unsqueeze(rows, net.ints(1)))
    mask = ops.select(ops.unsqueeze(visible, net.ints(0, 1)), net.const(0.0), net.const(-65504.0))

    def random_table(count: int, scale: float) -> Any:
        return net.const(net.rng.standard_normal((count, s.width), np.float32) * np.float32(scale))

    table, position_table = random_table(s.words, s.sharp / s.width**0.5), random_table(448, 0.3 * s.sharp)
    x = ops.add(ops.gather(table, ids, zero), ops.gather(position_table, rows, zero))
    for i in range(s.layers):
        y = net.layer_norm(x, s.width)
        q, *new = (net.heads(net.linear(y, s.width, s.width), s.heads, size) for _ in range(3))
        k, v = (cache(pasts[j], value, names[j]) for j, value in enumerate(new, 2 * i))
        z = ops.scaled_dot_product_attention(q, k, v, mask)
        x = ops.add(x, net.linear(net.merge(z, s.width), s.width, s.width))
        q = net.heads(net.linear(net.layer_norm(x, s.width), s.width, s.width, gain=2.0), s.heads, size)
        k, v = (
            keep(net.heads(net.linear(states, s.width, s.width, gain=s.sharp), s.heads, size), f"{i}.{name}")
            for name in ("encoder.key", "encoder.value")
        )
        # the real package adds outputs behind attention with a mask and a scale, by this name
        z = ops.scaled_dot_product_attention(q, k, v, net.const(0.0), net.const(float(size**-0.5)))
        z.set_friendly_name(f"layers.{i}.encoder_attn/ScaledDotProductAttention")
        x = ops.add(x, net.linear(net.merge(z, s.width), s.width, s.width))
        y = ops.gelu(net.linear(net.layer_norm(x, s.width), s.width, 4 * s.width), "erf")
        x = ops.add(x, net.linear(y, 4 * s.width, s.width))
    logits = ops.matmul(net.layer_norm(x, s.width), table, False, True)
    named = ((logits, "logits"), (ids, "input_ids"), (states, "encoder_hidden_states"), (beams, "beam_idx"))
    for node, name in named:
        node.output(0).tensor.set_names({name})
    return net.model([logits], [ids, states, beams], "decoder", sinks)


def write_folder(package: Any, folder: Path, sizes: Sizes = TINY) -> Path:
    """Write a Whisper model with its tokenizer and settings."""
    shutil.copytree(TEXTS, folder)
    for build in (encoder, decoder):
        name = build.__name__
        model = build(Net(package, name), sizes)
        package.save_model(model, folder / f"openvino_{name}_model.xml", compress_to_fp16=False)
    tokenizer = folder / "openvino_tokenizer.xml"
    text = tokenizer.read_text(encoding="utf-8")
    old = '<eos_token_id value="2"'
    assert old in text, "the tokenizer of the tests has another form"
    tokenizer.write_text(text.replace(old, f'<eos_token_id value="{END}"'), encoding="utf-8")
    settings = {
        "begin_suppress_tokens": [223, END], "suppress_tokens": [1, 2, 7], "decoder_start_token_id": START,
        "pad_token_id": END, "eos_token_id": END, "no_timestamps_token_id": NO_TIMES, "max_length": 448,
        "prev_sot_token_id": BEFORE, "max_initial_timestamp_index": 50, "is_multilingual": True,
        "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
        "lang_to_id": {f"<|{name}|>": FIRST_LANGUAGE + i for i, name in enumerate(LANGUAGES)},
        "alignment_heads": [[0, 1], [1, 0]],
    }  # fmt: skip
    config = {"model_type": "whisper", "max_source_positions": 1500, "eos_token_id": END}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def measure(folder: Path, tokens: int, threads: int, rounds: int) -> dict[str, Any]:
    import openvino_genai

    from ovjit import genai

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    pipelines = [package.WhisperPipeline(folder, "CPU", **hints) for package in (genai, openvino_genai)]
    sound = (np.random.default_rng(0).standard_normal(20 * 16000) * 0.1).astype(np.float32).tolist()

    def run(pipeline: Any) -> tuple[float, str]:
        start = time.process_time()
        results = pipeline.generate(sound, max_new_tokens=tokens, ignore_eos=True)
        return time.process_time() - start, results.texts[0]

    texts = [run(pipeline)[1] for pipeline in pipelines]
    times = [[run(pipeline)[0] for pipeline in pipelines] for _ in range(rounds)]
    return {
        "tokens": tokens, "threads": threads, "cpu_s": statistics.median(t[0] for t in times),
        "cpu_s_real": statistics.median(t[1] for t in times),
        "ratio": statistics.median(mine / real for mine, real in times), "same": texts[0] == texts[1],
    }  # fmt: skip


def main() -> int:
    import ovjit

    parser = command.parser("whisper", __doc__, json=False)
    parser.add_argument("--tokens", nargs="*", type=int, default=[60])
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(ovjit, Path(temporary) / "whisper", Sizes())
        rows = [
            measure(folder, tokens, threads, arguments.rounds)
            for tokens in arguments.tokens
            for threads in arguments.threads
        ]
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
