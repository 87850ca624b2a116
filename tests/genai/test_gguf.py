"""LLMPipeline and Tokenizer of a GGUF file, beside the real package where it reads the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("jinja2")
pytest.importorskip("tokenizers")

from gguf import GGUFWriter

from ovjit import genai
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.lora.tensors import GGUF_LAYERS
from ovjit.readers.gguf.weights import half_order
from tests.readers.gguf_decoders import Reference, Sizes, dequantised, quantised, tensors, write
from tests.support.genai_adapters import write_safetensors
from tests.support.sweeps import in_turn

SEED = 20261128
EXACT = {
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32",
}  # fmt: skip
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTED]
CHARACTERS = [chr(b) if b in PRINTED else chr(256 + OTHERS.index(b)) for b in range(256)]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "Ġwo r"]
TOKENS = [
    *CHARACTERS,
    *(m.replace(" ", "") for m in MERGES),
    "<|text|>",
    "<|im_start|>",
    "<|im_end|>",
    "<own>",
]
BEGIN, END, OWN = len(TOKENS) - 4, len(TOKENS) - 2, len(TOKENS) - 1
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ("hello world", "  hello\n wor", "héllo 😀", "", " x", "hello <|im_end|>x", "12345 a's")


def byte_pairs(w: GGUFWriter, own: int = 3) -> None:
    """Write the tables; `own`: the type of the last token, 3 for a special one, 4 for the user's own."""
    w.add_file_type(7)  # the real package needs it
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(TOKENS)
    w.add_token_types([1] * BEGIN + [3, 3, 3, own])
    w.add_token_merges(MERGES)
    w.add_bos_token_id(BEGIN)
    w.add_eos_token_id(END)
    w.add_pad_token_id(OWN)
    w.add_chat_template(TEMPLATE)


def sentence_pieces(w: GGUFWriter) -> None:
    pieces = ["▁", "h", "e", "l", "o", "ll", "he", "hell", "hello", "▁hello"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def model_file(
    path: Path, arch: str, kind: str, tables: Any = byte_pairs, words: int = len(TOKENS), **sizes: Any
) -> tuple[Sizes, Any]:
    s = Sizes(arch, words=words, **sizes)
    made = tensors(s, kind, np.random.default_rng(SEED))
    table = quantised(np.random.default_rng(SEED + 1), kind, (s.words, s.wide), 1.0)
    made["token_embd.weight"] = kind, table  # wide margins between logits
    write(path, s, made, tables)
    return s, made


def chosen_by_reference(s: Sizes, made: Any, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens by NumPy in f64."""
    reference, tokens = Reference(s, made), list(prompt)
    for _ in range(count):
        tokens.append(int(reference(np.array(tokens))[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    ("arch", "kind", "sizes"),
    in_turn([
        ("gpt-oss", "MXFP4", {"experts": 4, "window": 4, "extra": {"scaling": "yarn"}}),
        ("llama", "IQ2_XXS", {"layers": 1}), ("qwen2", "Q4_K", {"layers": 1}),
    ], 2),
    ids=lambda v: "" if isinstance(v, dict) else v,
)  # fmt: skip
def test_a_file_is_model_and_tokenizer(tmp_path: Path, arch: str, kind: str, sizes: dict[str, Any]) -> None:
    path = tmp_path / "model.gguf"
    s, made = model_file(path, arch, kind, **sizes)
    pipeline = genai.LLMPipeline(path, "CPU", **EXACT)
    tokenizer = pipeline.get_tokenizer()
    prompt = tokenizer.encode("<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\n").input_ids
    ids = np.array(prompt.data)[0].tolist()
    expected = chosen_by_reference(s, made, ids, 6)
    config = genai.GenerationConfig(max_new_tokens=6, ignore_eos=True)
    assert pipeline.generate(prompt, config).tokens == [expected], f"seed {SEED}"
    assert pipeline.generate("hello world", config) == tokenizer.decode(expected)
    batches = genai.ContinuousBatchingPipeline(path, genai.SchedulerConfig(), "CPU", dict(EXACT))
    assert batches.generate([prompt], [config])[0].m_generation_ids == [expected]
    plain = tokenizer.encode("hello world").input_ids
    expected = chosen_by_reference(s, made, np.array(plain.data)[0].tolist(), 6)
    assert pipeline.generate(plain, config).tokens == [expected], f"seed {SEED}"
    assert pipeline.get_generation_config().eos_token_id == END
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pipeline.start_chat()
        first = pipeline.generate("hello", config)
        again = pipeline.generate("wor", config)
        pipeline.finish_chat()
    chat = genai.ChatHistory([{"role": "user", "content": "hello"}, {"role": "assistant", "content": first}])
    chat.append({"role": "user", "content": "wor"})
    assert pipeline.generate(chat, config).texts == [again]


def streamed(pipeline: Any, text: str) -> str:
    chunks: list[str] = []
    pipeline.generate(text, max_new_tokens=12, streamer=lambda chunk: chunks.append(chunk) and False)
    return "".join(chunks)


@pytest.mark.pypi
@pytest.mark.parametrize("arch", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("kind", ["Q8_0", "F16", "Q4_0"])
def test_results_are_those_of_the_real_package(tmp_path: Path, arch: str, kind: str) -> None:
    real: Any = pytest.importorskip("openvino_genai")
    path = str(tmp_path / "model.gguf")
    model_file(Path(path), arch, kind)
    results = []
    for package in (real, genai):
        pipeline = package.LLMPipeline(path, "CPU", **EXACT)
        tokenizer, config = pipeline.get_tokenizer(), pipeline.get_generation_config()
        row: list[Any] = [config.eos_token_id, config.stop_token_ids, config.max_new_tokens]
        for text in TEXTS:
            ids = np.array(tokenizer.encode(text).input_ids.data).tolist()
            row += [ids, tokenizer.decode(ids[0]), tokenizer.decode(ids[0], skip_special_tokens=False)]
        both = tokenizer.encode(["hello", "hello world"])
        row += [np.array(both.input_ids.data).tolist(), np.array(both.attention_mask.data).tolist()]
        row += [tokenizer.decode([[259, 0], [262, 108]]), tokenizer.decode([100000])]
        for name in ("bos", "eos", "pad"):
            row += [getattr(tokenizer, f"get_{name}_token{part}")() for part in ("", "_id")]
        row += [tokenizer.get_vocab(), tokenizer.chat_template]
        for text in ("hello wor", "abc"):
            row.append(pipeline.generate(text, max_new_tokens=12))
            row.append(pipeline.generate(text, max_new_tokens=12, apply_chat_template=False))
            row.append(streamed(pipeline, text))
        batches = package.ContinuousBatchingPipeline(path, package.SchedulerConfig(), "CPU", dict(EXACT))
        settings = package.GenerationConfig(max_new_tokens=12)
        row += [each.m_generation_ids for each in batches.generate(["hello wor", "abc"], [settings] * 2)]
        results.append(row)
    assert results[1] == results[0], f"seed {SEED}"


@pytest.mark.parametrize(("arch", "kind"), [("llama", "F32"), ("llama", "Q8_0"), ("qwen2", "Q4_K")])
@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_adapters_change_a_file_as_sums_of_its_weights(
    tmp_path: Path, arch: str, kind: str, form: str
) -> None:
    """Layers by PEFT's names, or by llama.cpp's. Rows of llama's queries and keys have another order in
    files."""
    path, names = tmp_path / "model.gguf", ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    s, made = model_file(path, arch, kind, layers=2)
    rng, changed, matrices = np.random.default_rng(SEED + 2), dict(made), {}
    for name in [*(f"blk.{i}.{part}" for i in range(2) for part in names), "output"]:
        weights = dequantised(made[f"{name}.weight"][1], made[f"{name}.weight"][0])
        outs, ins = weights.shape
        a, b = (rng.standard_normal(shape).astype(np.float32) * 0.4 for shape in ((3, ins), (outs, 3)))
        change = 0.5 * b @ a
        if arch == "llama" and name.endswith(("attn_q", "attn_k")) and form == "safetensors":
            order = half_order(outs // s.size, s.size, s.size)
            change[order] = change.copy()
        changed[f"{name}.weight"] = "F32", (weights + change).astype(np.float32)
        matrices[name] = a, b
    file = tmp_path / f"adapter.{form}"
    if form == "gguf":
        writer = GGUFWriter(str(file), arch)
        writer.add_string("adapter.type", "lora")
        for name, pair in matrices.items():
            for part, matrix in zip("ab", pair, strict=True):
                writer.add_tensor(f"{name}.weight.lora_{part}", matrix)
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
            step()
        writer.close()
    else:
        layers = {
            f"base_model.model.{peft_name(name)}.lora_{part}.weight": ("F32", matrix)
            for name, pair in matrices.items()
            for part, matrix in zip("AB", pair, strict=True)
        }
        file.write_bytes(write_safetensors(layers))
    adapters = genai.AdapterConfig(genai.Adapter(file), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of tensors that no layer takes
        pipeline = genai.LLMPipeline(path, "CPU", adapters=adapters, **EXACT)
    prompt = pipeline.get_tokenizer().encode("hello world").input_ids
    ids = np.array(prompt.data)[0].tolist()
    config = genai.GenerationConfig(max_new_tokens=6, ignore_eos=True)
    expected = [chosen_by_reference(s, each, ids, 6) for each in (changed, made)]
    assert expected[0] != expected[1]
    config.adapters = adapters
    tokens = [pipeline.generate(prompt, config).tokens[0]]
    config.adapters = genai.AdapterConfig()
    tokens.append(pipeline.generate(prompt, config).tokens[0])
    assert tokens == expected, f"seed {SEED}"


def peft_name(name: str) -> str:
    block, _, layer = name.removeprefix("blk.").rpartition(".")
    return f"model.layers.{block}.{GGUF_LAYERS[layer]}" if block else GGUF_LAYERS[layer]


def test_sentence_pieces_and_their_first_token(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model_file(path, "llama", "Q8_0", sentence_pieces, words=269, layers=1)
    tokenizer = genai.Tokenizer(path)
    assert np.array(tokenizer.encode("hello\n").input_ids.data).tolist() == [[1, 268, 13]]
    plain = tokenizer.encode("hello\n", add_special_tokens=False).input_ids
    assert np.array(plain.data).tolist() == [[268, 13]]
    assert tokenizer.decode([1, 268, 13]) == "hello\n"
    assert tokenizer.get_vocab()[b"\n"] == 13 and tokenizer.get_vocab()[b" hello"] == 268
    assert (tokenizer.get_bos_token(), tokenizer.get_pad_token_id(), tokenizer.chat_template) == (
        "<s>",
        -1,
        "",
    )


def test_tokens_of_the_users_own_are_text(tmp_path: Path) -> None:
    """They are no special tokens, as in transformers and llama.cpp; the real package leaves them out."""
    model_file(tmp_path / "model.gguf", "llama", "Q8_0", lambda w: byte_pairs(w, 4), layers=1)
    tokenizer = genai.Tokenizer(tmp_path / "model.gguf")
    ids = np.array(tokenizer.encode("x<own><|im_end|>").input_ids.data).tolist()
    assert ids == [[120, OWN, END]] and tokenizer.decode(ids[0]) == "x<own>"


def test_rows_are_padded_and_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model_file(path, "llama", "Q8_0", layers=1)
    tokenizer = genai.Tokenizer(path)
    two = tokenizer.encode(
        ["hello", "hello world"], pad_to_max_length=True, max_length=5, padding_side="right"
    )
    assert np.array(two.input_ids.data).tolist() == [[259, 0, 0, 0, 0], [259, 262, 108, 100, 0]]
    assert np.array(two.attention_mask.data).tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    short = tokenizer.encode("hello world", truncation=True, max_length=2)
    assert np.array(short.input_ids.data).tolist() == [[259, 262]]
    with pytest.raises(OvjitError, match="needs max_length"):
        tokenizer.encode("hello", pad_to_max_length=True)
    with pytest.raises(OvjitError, match="takes no pairs"):
        tokenizer.encode(["hello"], ["world"])


def test_refusals_name_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUX123")
    for make in (lambda path: genai.LLMPipeline(path, "CPU"), genai.Tokenizer):
        with pytest.raises(RuntimeError, match=r"\[load_gguf\] Failed to open '.*none.gguf'"):
            make(tmp_path / "none.gguf")
        with pytest.raises(RuntimeError, match=r"bad.gguf: the file does not begin with GGUF"):
            make(bad)
    good = tmp_path / "model.gguf"
    model_file(good, "llama", "Q8_0", layers=1)
    with pytest.raises(UnsupportedError, match="enable_save_ov_model"):
        genai.LLMPipeline(good, "CPU", enable_save_ov_model=True)
    assert genai.LLMPipeline(good, "CPU", enable_save_ov_model=False).generate("hello", max_new_tokens=1)
    with pytest.raises(UnsupportedError, match="add_second_input"):
        genai.Tokenizer(good, add_second_input=True)
