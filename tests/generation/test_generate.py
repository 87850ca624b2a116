"""Text from decoders with state: tokens, drafts, tokenizers of GGUF files and folders, the command."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.generation import Assistant, Decoder, Lookup, Settings, Tokenizer, generate
from ovjit.generation.decoder import CHECKED, model_file
from ovjit.generation.sampling import Chooser
from ovjit.generation.tokenizer import _render, of_tables, until

pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")

from bench.hybrids import WORDS  # noqa: E402
from tests.readers.gguf_decoders import Sizes, tensors, write  # noqa: E402
from tests.support import paged_models  # noqa: E402
from tests.support.paged_hybrids import HYBRIDS  # noqa: E402
from tests.support.sweeps import in_turn, some  # noqa: E402

SEED = 20261123
EXACT = {
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32",
}  # fmt: skip
TEXTS = [
    "Once upon a time, there were 1234 little kernels.", "déjà vu — naïve café",
    "日本語のテキスト and 한국어",
    "tabs\tand\n\nnew  lines   ", "it's we'll I'M 3.14159e-10", "🙂🙃 emoji", " leading space", "",
]  # fmt: skip
CORPUS = [
    *TEXTS,
    "the quick brown fox jumps over the lazy dog. " * 20,
    "1 22 333 4444 upon time little were",
] * 4


def trained(pre: Any) -> Any:
    """A tokenizer of byte pairs, trained on a few sentences."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer, made.decoder = pre, tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(CORPUS, trainer)
    return made


def byte_pairs(inner: Any, pre: str, begin: bool | None = None) -> Callable[[Any], None]:
    """What writes its tables into a GGUF file."""
    said = json.loads(inner.to_str())["model"]
    words = sorted(said["vocab"], key=said["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in said["merges"]]

    def tables(w: Any) -> None:
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(words)
        w.add_token_types([3 if word.startswith("<|") else 1 for word in words])
        w.add_token_merges(merges)
        w.add_bos_token_id(0)
        w.add_eos_token_id(1)
        if begin is not None:
            w.add_add_bos_token(begin)
        w.add_chat_template(
            "{{ bos_token }}[user] {{ messages[0]['content'] }}{% if add_generation_prompt %} [me]{% endif %}"
        )

    return tables


def file_with(
    path: Path, tables: Callable[[Any], None] | None, words: int = 600, seed: int = SEED, **sizes: Any
) -> Path:
    s = Sizes(
        "llama", **({"layers": 1, "words": words, "wide": 128, "heads": 4, "shared": 2, "inner": 128} | sizes)
    )
    write(path, s, tensors(s, "F32", np.random.default_rng(seed)), tables)
    return path


def parts() -> Any:
    return tokenizers.pre_tokenizers


PRE = {
    "gpt-2": lambda: parts().ByteLevel(add_prefix_space=False),
    "smollm": lambda: parts().Sequence([parts().Digits(True), parts().ByteLevel(add_prefix_space=False)]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inner = trained(PRE["gpt-2"]())
    return file_with(
        tmp_path_factory.mktemp("m") / "model.gguf", byte_pairs(inner, "gpt-2"), inner.get_vocab_size()
    )


@pytest.mark.parametrize("pre", PRE)
@pytest.mark.parametrize("begin", [None, True, False])
def test_byte_pairs_of_a_file(tmp_path: Path, pre: str, begin: bool | None) -> None:
    inner = trained(PRE[pre]())
    path = file_with(tmp_path / "a.gguf", byte_pairs(inner, pre, begin), inner.get_vocab_size())
    made = Tokenizer.of(path)
    for text in TEXTS:
        assert made.encode(text) == [0] * (begin is True) + inner.encode(text).ids, text
        assert made.decode(made.encode(text)) == text
    assert made.ends == {1}
    assert made.encode("a<|end|>")[-1] == 1


@pytest.mark.parametrize("pre", ["llama-bpe", "dbrx", "qwen2", "gpt-4o", "tekken"])
def test_words_are_cut_as_the_model_has_them(tmp_path: Path, pre: str) -> None:
    """Numbers of up to three digits in one piece, or each digit apart; words in two where large letters
    follow small ones, or not, with what "'m" is short for, or without. Some begin texts with a token."""
    inner = trained(PRE["gpt-2"]())
    made = Tokenizer.of(file_with(tmp_path / "a.gguf", byte_pairs(inner, pre), inner.get_vocab_size()))
    cut = [piece for piece, _ in made._inner.pre_tokenizer.pre_tokenize_str("aB 12345 I'm\n\n x")]
    cased = pre in ("gpt-4o", "tekken")
    words = ["a", "B"] if cased else ["aB"]
    digits = list("12345") if pre in ("qwen2", "tekken") else ["123", "45"]
    short = ["ĠI'm"] if pre == "gpt-4o" else ["ĠI", "'m"]
    assert cut == [*words, "Ġ", *digits, *short, "ĊĊ", "Ġx"]
    assert made.encode("a")[:-1] == ([0] if pre in ("llama-bpe", "tekken") else [])
    assert (made.encode("e\u0301") == made.encode("\u00e9")) == (pre == "qwen2")


def test_tokens_that_end_an_answer() -> None:
    """Those that the file names, and special ones that do so in any model."""
    words = ["<unk>", "<s>", "</s>", "<end_of_turn>", "<|im_end|>", "<|end|>", "a"]
    lists = {"tokens": words, "token_type": [2, 3, 3, 4, 3, 1, 1], "scores": [0.0] * 7, "merges": []}
    info = {f"tokenizer.ggml.{name}": json.dumps(value) for name, value in lists.items()}
    info |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.eos_token_id": "2"}
    assert of_tables(info).ends == {2, 3, 4}


def test_sentence_pieces_of_a_file(tmp_path: Path) -> None:
    """Merged by score, of the file's own tokens (Gemma's blanks), too; bytes for what no piece has, a blank
    in front."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    types = [2, 3, 3, *[6] * 256]
    pieces = ["▁", "a", "b", "c", "ab", "bc", "abc", "▁a", "▁abc", "▁ab", "ca", "▁▁"]
    scores = [0.0] * 259 + [-10.0, -11.0, -12.0, -13.0, -1.0, -2.0, -5.0, -3.0, -6.0, -4.0, -0.5, 0.0]

    def tables(w: Any) -> None:
        w.add_tokenizer_model("llama")
        w.add_token_list(words + pieces)
        w.add_token_scores(scores)
        w.add_token_types(types + [4 if piece == "▁▁" else 1 for piece in pieces])
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)

    made = Tokenizer.of(file_with(tmp_path / "a.gguf", tables, 271))
    number = {word: i for i, word in enumerate(words + pieces)}

    def by_score(text: str) -> list[int]:
        """SentencePiece's rule: merge the neighbours whose whole has the greatest score, from the left."""
        symbols = list("▁" + text.replace(" ", "▁"))
        while True:
            found = [
                (-scores[number[a + b]], i)
                for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))
                if a + b in number
            ]
            if not found:
                break
            _, i = min(found)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        out: list[int] = []
        for s in symbols:
            out += [number[s]] if s in number else [number[f"<0x{byte:02X}>"] for byte in s.encode()]
        return out

    rng = np.random.default_rng(SEED)
    for text in ("abc", "cab abc", "ä", "🙂a", *("".join(rng.choice(list("abc "), 12)) for _ in range(40))):
        assert made.encode(text) == [1, *by_score(text)], (SEED, text)
        assert made.decode(made.encode(text)) == text, (SEED, text)
    assert "".join(made.stream(iter(made.encode("a🙂b ä")[1:]))) == "a🙂b ä"
    for _ in range(40):  # characters of bytes behind one another, and tokens that are no text between
        text = "".join(rng.choice([*"ab ä🙂日", "</s>"], 16))
        tokens = made.encode(text)
        assert "".join(made.stream(iter(tokens))) == made.decode(tokens), (SEED, text)


@pytest.mark.parametrize("template, text", [
    ("{% if tools is not none or documents is not none %}tools{% endif %}{{ a | tojson }}", '["<é>"]'),
    ("{% for x in 'abc' %}{% if x == 'b' %}{% break %}{% endif %}{{ x }}{% endfor %}", "a"),
    ("{{ strftime_now('%Y') | length }}", "4"),
    ("{% if true %}  \n  {%- generation -%}  {{ a[0] }}\n  {%- endgeneration %}!{% endif %}", "<é>!"),
    ("{{ pad_token }}{{ a[0] }}", "<é>"),
])  # fmt: skip
def test_templates_have_the_words_of_transformers(template: str, text: str) -> None:
    assert _render(template, a=["<é>"]) == text


def test_streams_are_the_whole_text(model: Path) -> None:
    """Of any tokens, characters that several tokens make among them; none waits for ever."""
    made, rng = Tokenizer.of(model), np.random.default_rng(SEED)
    for _ in range(20):
        text = "".join(rng.choice(list("ab c\n1é🙂日"), 30))
        assert "".join(made.stream(iter(made.encode(text)))) == text, (SEED, text)
    half = made.encode("🙂")[0]
    for count in range(9):  # characters behind bytes that are no text
        for text in ("é", "日", "\U00013000"):
            tokens = [half] * count + made.encode(text)
            assert "".join(made.stream(iter(tokens))) == made.decode(tokens), (count, text)
    parts = list(made.stream(iter([half] * 12)))
    assert any(parts[:6]) and "".join(parts) == made.decode([half] * 12)


def test_a_continued_text_keeps_its_blank() -> None:
    """A blank before the first piece goes with the beginning of a text only."""
    words = ["<unk>", "<s>", "</s>", "\u2581a", "b", "\u2581"]
    info = {"model": "llama", "tokens": json.dumps(words), "scores": json.dumps([0.0] * 6)}
    info |= {"token_type": json.dumps([2, 3, 3, 1, 1, 1]), "bos_token_id": "1"}
    made = of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()})
    assert "".join(made.stream(iter([3, 4]))) == "ab"
    assert "".join(made.stream(iter([3, 4]), [1, 3, 4])) == " ab"
    assert "".join(made.stream(iter([4, 3]), [1])) == "b a"


@pytest.mark.parametrize("stops, told", [
    (["cd"], "ab"), (["x", "bc", "e"], "a"), (["efx"], "abcdefg"), (["g"], "abcdef"), ([""], "abcdefg"),
    (["abcdefgh"], "abcdefg"), (["cdx", "def"], "abc"),
])  # fmt: skip
@pytest.mark.parametrize("size", [1, 3, 7])
def test_texts_end_before_a_stop(stops: list[str], told: str, size: int) -> None:
    text = "abcdefg"
    assert "".join(until(iter([text[i : i + size] for i in range(0, 7, size)]), stops)) == told


@pytest.mark.parametrize("file, content, said", [
    ("tokenizer.json", '{"a": 1}', "is not a valid tokenizer"), ("config.json", "{", "not valid JSON"),
    ("tokenizer_config.json", "[1]", "should hold a JSON object"),
    ("config.json", '{"eos_token_id": "x"}', "eos_token_id should be"),
    ("tokenizer_config.json", '{"chat_template": "{% if %}"}', "chat template is not valid"),
    ("tokenizer_config.json", '{"chat_template": "{{ 1 + messages }}"}', "chat template is not valid"),
])  # fmt: skip
def test_wrong_files_of_a_folder(model: Path, tmp_path: Path, file: str, content: str, said: str) -> None:
    Tokenizer.of(model)._inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(content)
    with pytest.raises(OvjitError, match=said):
        Tokenizer.of(tmp_path).chat("hi")


def test_templates_have_all_tokens_that_settings_name(model: Path, tmp_path: Path) -> None:
    Tokenizer.of(model)._inner.save(str(tmp_path / "tokenizer.json"))
    said = {"bos_token": {"content": "<b>"}, "unk_token": "<u>", "pad_token": None, "add_bos_token": True}
    template = "{{ bos_token ~ eos_token ~ unk_token ~ pad_token ~ add_bos_token }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said | {"chat_template": template}))
    made = Tokenizer.of(tmp_path)
    assert made.chat("") == made.encode("<b><u>")


def test_other_tokenizers_are_named(tmp_path: Path) -> None:
    inner = trained(PRE["gpt-2"]())
    path = file_with(tmp_path / "a.gguf", byte_pairs(inner, "kimi-k2"), inner.get_vocab_size())
    with pytest.raises(UnsupportedError, match="kimi-k2.*tokenizer.json"):
        Tokenizer.of(path)
    path = file_with(
        tmp_path / "b.gguf", lambda w: (w.add_tokenizer_model("bert"), w.add_token_list(["a"])), 300
    )
    with pytest.raises(UnsupportedError, match="'bert'"):
        Tokenizer.of(path)


def plain(path: Path, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens by whole sequences, without a state."""
    out = list(prompt)
    for _ in range(count):
        out.append(int(Decoder.load(path, config=EXACT).feed(out)[-1].argmax()))
    return out[len(prompt) :]


def test_tokens_are_those_of_whole_sequences(model: Path) -> None:
    decoder = Decoder.load(model, config=EXACT)
    prompt = [5, 90, 300, 7]
    assert list(generate(decoder, prompt, Settings(6))) == plain(model, prompt, 6)
    assert list(generate(decoder, prompt, Settings(6))) == plain(model, prompt, 6), "a new sequence"
    found = list(generate(decoder, prompt, Settings(20)))
    end = found[4]
    assert (
        list(generate(decoder, prompt, Settings(20, ends=frozenset((end,))))) == found[: found.index(end) + 1]
    )


@pytest.mark.parametrize("prompts", some([range(2), range(2, 4)], 1))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_drafts_change_nothing(model: Path, tmp_path: Path, temperature: float, prompts: range) -> None:
    other = file_with(
        tmp_path / "small.gguf", byte_pairs(trained(PRE["gpt-2"]()), "gpt-2"), 600, seed=SEED + 1
    )
    decoder = Decoder.load(model, config=EXACT)
    rng = np.random.default_rng(SEED)
    for n in prompts:
        prompt = [int(t) for t in rng.integers(2, 500, 3 + 5 * n)]
        settings = Settings(40, temperature, top_k=20, seed=n)
        wanted = list(generate(decoder, prompt, settings))
        drafts = (
            Assistant(Decoder.load(model, config=EXACT), 4),
            Assistant(Decoder.load(other, config=EXACT), 3),
            Lookup(6),
        )
        for draft in drafts:
            assert list(generate(decoder, prompt, settings, draft)) == wanted, (SEED, n, draft)


#: What may round a token's numbers by the other tokens of its inference.
WAYS = {
    "exact": EXACT, "u8 cache": EXACT | {"KV_CACHE_PRECISION": "u8"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"},
    "bf16, u8 cache": {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "u8"}, "default": {},
}  # fmt: skip


def by_digits(kind: str) -> bool:
    """Whether AVX2 multiplies one row by digits, and several by f32."""
    return kind == "Q4_0" and host_target().name == "avx2"


#: Types of weights and ways of rounding; by default every sixth pair, which leaves out none of either.
ROUNDED = list(itertools.product(["F32", "F16", "Q8_0", "Q4_0", "Q6_K"], WAYS))


@pytest.mark.parametrize("kind, way", in_turn(ROUNDED, 6))
def test_tokens_of_a_draft_have_the_bits_of_each_alone(tmp_path: Path, kind: str, way: str) -> None:
    """Whatever rounds: their keys and values in the cache, too, which later tokens read."""
    if by_digits(kind):
        pytest.skip("one row is computed in digits")
    wide = 1024 if kind == "F16" else 256  # smaller matrices of f16 become f32
    s = Sizes("llama", layers=2, words=300, wide=wide, heads=4, shared=2, size=wide // 4, inner=256)
    write(path := tmp_path / "a.gguf", s, tensors(s, kind, np.random.default_rng(SEED)))
    decoder = Decoder.load(path, config=WAYS[way])
    rng = np.random.default_rng(SEED)
    prompt, following = (rng.integers(2, s.words, n).tolist() for n in (19, CHECKED + 1))
    decoder.feed(prompt)
    alone = np.concatenate([decoder.feed([token]) for token in following])
    for count in range(2, CHECKED + 1):
        decoder.rewind(len(prompt))
        found = np.concatenate([decoder.feed(following[:count]), decoder.feed(following[count : count + 1])])
        np.testing.assert_array_equal(found, alone[: count + 1], f"{SEED} {count}")


@pytest.mark.parametrize("way", some(["default", "exact"], 1))
def test_drafts_across_a_turn_change_nothing(tmp_path: Path, way: str) -> None:
    """Phi 3 turns tokens by other factors from position 8 on."""
    s = Sizes("phi3", layers=1, words=300, extra={"longrope": True})
    write(path := tmp_path / "a.gguf", s, tensors(s, "F32", np.random.default_rng(SEED)))
    decoder, guide = (Decoder.load(path, config=WAYS[way]) for _ in range(2))
    assert decoder.turn == 8
    prompt = np.random.default_rng(SEED).integers(2, s.words, 4).tolist()
    wanted = list(generate(decoder, prompt, Settings(16)))
    assert list(generate(decoder, prompt, Settings(16), Assistant(guide, 7))) == wanted, SEED


@pytest.mark.parametrize("place", ["", "rope_scaling", "rope_parameters"])
def test_a_turn_is_where_the_settings_of_a_folder_say(tmp_path: Path, place: str) -> None:
    """transformers 5 has another name for what scales positions."""
    ov.save_model(paged_models.decoder(ov), tmp_path / "openvino_model.xml")
    said: dict[str, Any] = {"original_max_position_embeddings": 8}
    (tmp_path / "config.json").write_text(json.dumps({place: said} if place else said))
    assert Decoder.load(tmp_path).turn == 8


@pytest.mark.parametrize("way", some(["exact", "default", "bf16, u8 cache", "u8 cache", "bf16"], 3))
def test_long_drafts_change_nothing(model: Path, way: str) -> None:
    """A draft of more tokens than one inference checks, of which most are right."""
    decoder, guide = (Decoder.load(model, config=WAYS[way]) for _ in range(2))
    rng = np.random.default_rng(SEED)
    for n in range(3):
        prompt = [int(t) for t in rng.integers(2, 500, 5 + 9 * n)]
        wanted = list(generate(decoder, prompt, Settings(60)))
        for draft in (Assistant(guide, 20), Lookup(15)):
            assert list(generate(decoder, prompt, Settings(60), draft)) == wanted, (SEED, n, draft)


#: (model, temperature): models take the temperatures in turn, and by default each takes one.
DRAFTED = [(name, (0.0, 1.3)[(i + turn) % 2]) for turn in range(2) for i, name in enumerate(HYBRIDS)]


@pytest.mark.parametrize(
    "name, temperature",
    [
        *DRAFTED[: len(HYBRIDS)],
        *(pytest.param(*case, marks=pytest.mark.long) for case in DRAFTED[len(HYBRIDS) :]),
    ],
)
@pytest.mark.parametrize("prompts", some([range(1), range(1, 2)], 1))
def test_drafts_of_recurrent_layers_change_nothing(name: str, temperature: float, prompts: range) -> None:
    """States that no axis of tokens has are remembered, and computed again from there."""
    decoder, guide = (Decoder(ov.compile_model(HYBRIDS[name](ov), "CPU", EXACT)) for _ in range(2))
    rng = np.random.default_rng(SEED)
    for n in prompts:
        prompt = rng.integers(2, WORDS, 4 + 5 * n).tolist()
        settings = Settings(26, temperature, seed=n, min_p=0.02, penalty=1.2)
        wanted = list(generate(decoder, prompt, settings))
        for draft in (Assistant(guide, 4), Assistant(guide, 20), Lookup(6)):
            assert list(generate(decoder, prompt, settings, draft)) == wanted, (SEED, name, n, draft)


def test_recurrent_layers_go_back_to_a_mark_alone() -> None:
    decoder = Decoder(ov.compile_model(HYBRIDS["delta"](ov), "CPU", EXACT))
    decoder.feed([5, 9, 3])
    wanted = [decoder.feed([token]) for token in (7, 8)]
    with pytest.raises(OvjitError, match="no earlier state was saved"):
        decoder.rewind(3)
    assert decoder.length == 5
    decoder.reset()
    decoder.feed([5, 9, 3])
    decoder.mark()
    decoder.feed([7, 1, 2])
    with pytest.raises(OvjitError, match="no earlier state was saved"):
        decoder.rewind(2)
    decoder.rewind(4)
    np.testing.assert_array_equal(decoder.feed([8]), wanted[1])
    decoder.rewind(3)  # the same mark again
    np.testing.assert_array_equal(
        np.concatenate([decoder.feed([7]), decoder.feed([8])]), np.concatenate(wanted)
    )


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("length", [4, 6])
def test_the_axis_of_tokens_is_one_that_is_open(axis: int, length: int) -> None:
    """Whatever other axes have as many elements as there are tokens."""
    o = ov.opset13
    shape = [-1, 4, 6, 4]
    shape[axis] = -1
    ids = o.parameter([-1, -1], np.int64, name="input_ids")
    start = o.broadcast(o.constant(np.float32(0)), o.constant([1, *(max(d, 0) for d in shape[1:])]))
    before = o.read_value(start, "x", np.float32, ov.PartialShape(shape))
    rows = o.convert(ids, "f32")
    new = o.broadcast(
        o.reshape(rows, o.constant([-1 if i == axis else 1 for i in range(4)]), False),
        o.constant([1, *(max(d, 1) for d in shape[1:])]), broadcast_spec="BIDIRECTIONAL",
    )  # fmt: skip
    joined = o.concat([before, new], axis)
    summed = o.reduce_sum(joined, o.constant([1, 2, 3]), False)
    logits = o.add(o.unsqueeze(summed, o.constant([1, 2])), o.unsqueeze(rows, o.constant(2)))
    logits.output(0).tensor.set_names({"logits"})
    model = ov.Model([o.result(logits)], [o.assign(joined, "x")], [ids], "sums")
    decoder = Decoder(ov.compile_model(model, "CPU", EXACT))
    decoder.feed(list(range(1, length + 1)))
    decoder.rewind(2)
    assert decoder._request.query_state()[0]._shape[axis] == 2


@pytest.mark.parametrize("kind", ["f32", "u8"])
def test_going_back_keeps_what_is_stored(model: Path, kind: str) -> None:
    """Bytes of a cache are cut and not converted, however often; a tensor that the caller holds stays."""
    decoder = Decoder.load(model, config=EXACT | {"KV_CACHE_PRECISION": kind})
    prompt, following = [5, 90, 300, 7, 12], [33, 8, 41, 200]
    decoder.feed(prompt)
    wanted = [decoder.feed([token]) for token in following]
    decoder.reset()
    decoder.feed(prompt)
    held: list[Any] = []
    for n, token in enumerate(following):
        decoder.feed([250 + n, 3, 77])  # wrong guesses
        decoder.rewind(len(prompt) + n)
        np.testing.assert_array_equal(decoder.feed([token]), wanted[n], str((kind, n)))
        if kind == "f32":
            held = [(state.state, state.state.data.copy()) for state in decoder._request.query_state()]
    decoder.rewind(2)
    decoder.feed([9])
    for tensor, data in held:
        np.testing.assert_array_equal(tensor.data, data)
    with pytest.raises(OvjitError, match="cannot be truncated"):
        decoder.rewind(9)


def test_a_draft_that_is_right_saves_inferences(model: Path) -> None:
    decoder, calls = Decoder.load(model, config=EXACT), []
    feed = decoder.feed
    decoder.feed = lambda tokens: calls.append(len(tokens)) or feed(tokens)  # type: ignore[method-assign]
    list(generate(decoder, [5, 9], Settings(30), Assistant(Decoder.load(model, config=EXACT), 5)))
    assert len(calls) <= 7 and max(calls[1:]) == 6


def test_lookup() -> None:
    assert Lookup(3).propose([1, 2, 3, 9, 1, 2, 3], 10) == [9, 1, 2]
    assert Lookup(3).propose([1, 2, 3, 9, 1, 2, 3], 1) == [9]
    assert Lookup(3).propose([1, 2, 3], 5) == [] and Lookup(3).propose([4], 5) == []
    assert Lookup(2, 1).propose([7, 7], 5) == [7]


def test_choosing() -> None:
    rng = np.random.default_rng(SEED)
    logits = rng.standard_normal(50).astype(np.float32) * 2
    order = np.argsort(-logits)
    assert Chooser(Settings())(logits) == order[0]
    draw = Chooser(Settings(temperature=1.0, top_k=3, seed=1))
    assert {draw(logits) for _ in range(300)} == set(order[:3].tolist())
    weights = np.exp(logits.astype(np.float64))
    weights /= weights.sum()
    few = order[: int(np.searchsorted(np.cumsum(weights[order]), 0.5)) + 1]
    draw = Chooser(Settings(temperature=1.0, top_p=0.5, seed=2))
    assert {draw(logits) for _ in range(500)} == set(few.tolist())
    draw = Chooser(Settings(temperature=1.0, seed=3))
    counts = np.bincount([draw(logits) for _ in range(20000)], minlength=50) / 20000
    np.testing.assert_allclose(counts, weights, atol=0.02, err_msg=f"seed {SEED}")
    part = [int(t) for t in order if weights[t] >= 0.2 * weights.max()]
    draw = Chooser(Settings(temperature=1.0, min_p=0.2, seed=4))
    assert {draw(logits) for _ in range(500)} == set(part)
    for wrong in (
        {"min_p": 1.5},
        {"penalty": 0},
        {"seed": -1},
        {"temperature": -1},
        {"top_p": 0},
        {"top_k": -1},
        {"most": 0},
        {"temperature": float("nan")},
    ):
        with pytest.raises(OvjitError, match=next(iter(wrong))):
            Chooser(Settings(**wrong))


def test_tokens_that_a_text_has_are_less_likely() -> None:
    """As by transformers: positive logits are divided, negative ones multiplied; each token once."""
    logits = np.array([2.0, 1.9, -1.0, -1.1], np.float32)
    assert Chooser(Settings(penalty=1.5))(logits, [0, 0, 0, 9]) == 1
    assert Chooser(Settings(penalty=1.01))(logits, [0, 0, 0]) == 0
    assert Chooser(Settings(penalty=1.5))(logits[2:], [0]) == 1
    assert logits[0] == 2


def test_logits_that_are_no_numbers_are_an_error() -> None:
    for temperature in (0.0, 1.0):
        choose = Chooser(Settings(temperature=temperature, seed=0))
        for wrong in ([1, np.nan, 2], [-np.inf] * 3, [1, np.inf, 0]):
            with pytest.raises(OvjitError, match="no token can be chosen"):
                choose(np.array(wrong, np.float32))
        assert choose(np.array([-np.inf, 3, -np.inf], np.float32)) == 1
    assert Chooser(Settings(temperature=1e-310, seed=0))(np.array([1, 3, 2], np.float32)) == 1


def test_what_is_no_decoder(tmp_path: Path) -> None:
    x = ov.opset8.parameter([1], np.float32, name="x")
    with pytest.raises(OvjitError, match=r"not a stateful decoder.*\['x'\]"):
        Decoder(ov.compile_model(ov.Model([ov.opset8.relu(x)], [x]), "CPU"))
    with pytest.raises(OvjitError, match="does not exist"):
        model_file(tmp_path / "nothing")
    with pytest.raises(OvjitError, match="found: none"):
        model_file(tmp_path)
    with pytest.raises(OvjitError, match="has no tokenizer.json"):
        Tokenizer.of(tmp_path)
    with pytest.raises(OvjitError, match=r"can't open the tokenizer '.*nothing': there is no such file"):
        Tokenizer.of(tmp_path / "nothing")


def command(*arguments: Any, stdin: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ovjit", "generate", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, input=stdin, timeout=300)


def test_the_command(model: Path, tmp_path: Path) -> None:
    """A GGUF file, and a folder with IR and tokenizer.json, give the text of the tokens."""
    tokenizer = Tokenizer.of(model)
    exact = [x for key, value in EXACT.items() for x in ("-c", f"{key}={value}")]
    decoder = Decoder.load(model, config=EXACT)
    wanted = tokenizer.decode(
        list(generate(decoder, tokenizer.encode("Once upon"), Settings(12, ends=tokenizer.ends)))
    )
    done = command(model, "--prompt", "Once upon", "--max-new-tokens", 12, *exact)
    assert done.returncode == 0, done.stderr
    assert done.stdout == wanted + "\n"
    assert "first token after" in done.stderr and "tokens/s" in done.stderr
    folder = tmp_path / "folder"
    folder.mkdir()
    ov.save_model(ov.Core().read_model(model), folder / "openvino_model.xml", compress_to_fp16=False)
    tokenizer._inner.enable_truncation(2)  # as some are saved; prompts are whole all the same
    tokenizer._inner.enable_padding(length=9)
    tokenizer._inner.save(str(folder / "tokenizer.json"))
    tokenizer._inner.no_truncation()
    tokenizer._inner.no_padding()
    (folder / "config.json").write_text('{"eos_token_id": 1}')
    done = command(folder, "-p", "-", "-n", 12, "--prompt_lookup", 4, "--quiet", *exact, stdin="Once upon")
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted + "\n", "")
    stop = wanted[3:6]
    done = command(model, "-p", "Once upon", "-n", 12, "--stop", "nowhere", "--stop", stop, *exact)
    assert done.stdout == wanted[: wanted.index(stop)] + "\n"
    done = command(model, "-p", "hi", "--chat", "-n", 3, "--temperature", 1, "--seed", 5)
    again = command(model, "-p", "hi", "--chat", "-n", 3, "--temperature", 1, "--seed", 5)
    assert done.returncode == 0 and done.stdout == again.stdout
    assert tokenizer.chat("hi") == [0, *tokenizer.encode("[user] hi [me]")]


def test_a_bar_while_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stages have names, and weights fill it. Who was told of weights before is told again."""
    from ovjit.planning import constants
    from ovjit.tools import generate as tool

    shown, told = list[tuple[Any, ...]](), list[tuple[int, int]]()
    monkeypatch.setattr(tool, "stages", lambda: contextlib.nullcontext(lambda *stage: shown.append(stage)))
    inner = trained(PRE["gpt-2"]())
    tables, words = byte_pairs(inner, "gpt-2"), inner.get_vocab_size()
    file = file_with(tmp_path / "a.gguf", tables, words, wide=256, heads=8, inner=512)
    before = constants.tell_written(lambda *written: told.append(written))
    try:
        assert tool.main([str(file), "-p", "Once", "-n", "2"]) == 0
        assert not told
        ov.compile_model(file, "CPU")
    finally:
        constants.tell_written(before)
    assert [stage[0] for stage in shown[:2]] == ["reading the tokenizer", f"loading {file}"]
    packed = [stage[1:] for stage in shown if stage[0] == "packing weights"]
    assert packed == told == sorted(told) and told[-1][0] == told[-1][1] > 1 << 20


def test_a_command_that_is_interrupted(model: Path) -> None:
    """What has come stays, times follow, and there is no traceback; so where the reader goes away."""
    line = [sys.executable, "-m", "ovjit", "generate", str(model), "-p", "Once", "-n", "100000"]
    line.append("--ignore_eos")
    for gone in (False, True):
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.read(9)
        if gone:
            child.stdout.close()
        else:
            child.send_signal(signal.SIGINT)
        said = child.stderr.read().decode() + ("" if gone else child.communicate()[1].decode())
        assert child.wait(60) == (141 if gone else 130), said
        assert "Traceback" not in said and "tokens/s" in said and "exceed the model's context" in said, said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("MODEL", "-p", "a", "-n", "0"), "--max_new_tokens is 0"),
        (("nothing.gguf", "-p", "a"), "does not exist"),
        ((), "required"),
        (("MODEL",), "give the prompt"),
        (("MODEL", "-p", "a", "--temperature", "-1"), "temperature"),
        (("MODEL", "-p", "a", "-c", "KEY"), "KEY=VALUE"),
        (("MODEL", "-p", "a", "--assistant", "x", "--prompt_lookup", "3"), "give one of them"),
        (("MODEL", "-p", ""), "no tokens"),
        (("MODEL", "-p", "a", "--min_p", "2"), "min_p"),
        (("MODEL", "-p", "a", "--repetition_penalty", "0"), "penalty"),
        (("MODEL", "-p", "a", "--seed", "-1"), "seed"),
        (("MODEL", "-p", "a\udcff"), "not valid UTF-8 at character 1"),
    ],
)
def test_errors_of_the_command(
    model: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture
) -> None:
    from ovjit.tools import generate as tool

    try:
        code = tool.main([str(model) if a == "MODEL" else a for a in arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and said in capsys.readouterr().err
