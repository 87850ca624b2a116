"""Programs of openvino_genai whose results are compared: `collect` runs them on the real package or on ovjit.

    python -m tests.support.genai_cases FOLDER > tests/genai/expected.json

runs on the real packages (GROUP behind FOLDER: one group). Results are JSON values; an error is "error: " with the name of its class.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_folder import write_encoder
from tests.support.genai_grammars import grammars, structured

#: Results of a model in f32, so that margins are those of rounding.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
TEXTS = (
    "hello world",
    "",
    "the weather isn't there</s> then",
    "naïve  12345 \n\n你好",
    "<s>x<pad>\x00y",
    "😀 e\u0301",
)
CONFIGS: tuple[dict[str, Any], ...] = (
    {}, {"max_new_tokens": 0}, {"max_new_tokens": 5}, {"max_new_tokens": 0, "echo": True},
    {"max_new_tokens": 5, "min_new_tokens": 6}, {"max_length": 7, "ignore_eos": True}, {"ignore_eos": True},
    {"eos_token_id": 3}, {"stop_token_ids": {4, 5}}, {"stop_token_ids": {-4}}, {"stop_strings": {"a", "b"}},
    {"stop_strings": "a b"}, {"stop_strings": ["a"]}, {"stop_token_ids": [4]}, {"max_new_tokens": "7"},
    {"max_new_tokens": 7.0}, {"max_new_tokens": -1}, {"max_new_tokens": None}, {"no_such_name": 3},
    {"max_new_tokens": 5, "do_sample": True, "top_p": 0.0}, {"max_new_tokens": 5, "do_sample": True, "top_p": 1.5},
    {"max_new_tokens": 5, "do_sample": True, "temperature": 0.0}, {"max_new_tokens": 5, "do_sample": True, "top_k": 0},
    {"max_new_tokens": 5, "do_sample": True, "min_p": 1.0}, {"max_new_tokens": 5, "do_sample": True, "min_p": 0.5},
    {"max_new_tokens": 5, "top_p": 0.0}, {"max_new_tokens": 5, "num_return_sequences": 2},
    {"max_new_tokens": 5, "num_return_sequences": 0}, {"max_new_tokens": 5, "frequency_penalty": 2.5},
    {"max_new_tokens": 5, "presence_penalty": -2.5}, {"max_new_tokens": 5, "repetition_penalty": 0.0},
    {"max_new_tokens": 5, "num_beams": 2, "do_sample": True}, {"max_new_tokens": 5, "num_beams": 3, "num_beam_groups": 2},
    {"max_new_tokens": 5, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    {"max_new_tokens": 5, "num_beams": 4, "num_beam_groups": 2}, {"max_new_tokens": 5, "num_beams": 4, "diversity_penalty": 1.0},
    {"max_new_tokens": 5, "num_beams": 4, "no_repeat_ngram_size": 0}, {"max_new_tokens": 5, "num_beams": 2, "num_return_sequences": 3},
    {"max_new_tokens": 5, "num_beams": 4, "repetition_penalty": 1.1}, {"max_new_tokens": 5, "num_beam_groups": 2},
    {"max_new_tokens": 5, "num_beams": 0},
    {"max_new_tokens": 5, "num_assistant_tokens": 3, "assistant_confidence_threshold": 0.5},
    {"max_new_tokens": 5, "num_assistant_tokens": 3, "num_beams": 2}, {"max_new_tokens": 5, "max_ngram_size": 3},
    {"max_new_tokens": 5, "max_ngram_size": 3, "num_assistant_tokens": 0}, {"max_new_tokens": 5, "max_ngram_size": 3, "num_assistant_tokens": 4},
    {"max_new_tokens": 5, "tree_depth": 2}, {"max_new_tokens": 5, "tree_depth": 2, "branching_factor": 2, "num_assistant_tokens": 3},
    {"max_new_tokens": 5, "assistant_confidence_threshold": 0.5}, {"do_sample": 1}, {"do_sample": "YES"}, {"temperature": "0.5"},
    {"max_new_tokens": 5, "include_stop_str_in_output": True}, {"logprobs": True}, {"max_new_tokens": True},
    {"temperature": 3}, {"rng_seed": -2}, {"num_assistant_tokens": None}, {"apply_chat_template": False}, {"stop_strings": set()},
    {"do_sample": "no"}, {"do_sample": "x"}, {"do_sample": ""}, {"max_new_tokens": "7.5"}, {"max_new_tokens": "x"},
    {"max_new_tokens": [7]}, {"temperature": True}, {"temperature": "1e-2"}, {"eos_token_id": -7}, {"eos_token_id": 5.5},
    {"stop_token_ids": "4 5"}, {"stop_token_ids": {"a"}}, {"stop_strings": {1}}, {"stop_criteria": 1}, {"stop_token_ids": {4.0}},
    {"structured_output_config": 3}, {"adapters": 3}, {"apply_chat_template": 0}, {"parsers": []},
)  # fmt: skip
FILES: tuple[dict[str, Any], ...] = (
    {"eos_token_id": [7, 9], "max_length": 20}, {"eos_token_id": 7, "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9},
    {"early_stopping": True, "num_beams": 4}, {"early_stopping": "never", "stop_strings": ["a", "b"]}, {"early_stopping": False},
    {"temperature": None, "repetition_penalty": 1.1, "rng_seed": 5, "min_p": 0.25, "unknown": [1]}, {"stop_strings": "abc"},
    {"num_assistant_tokens": 5, "max_ngram_size": 2, "length_penalty": 0.5, "ignore_eos": True, "logprobs": 2, "echo": True},
)  # fmt: skip
#: Keywords of `generate` for a text.
GREEDY: tuple[dict[str, Any], ...] = (
    {"max_new_tokens": 12}, {"max_length": 20}, {"max_new_tokens": 12, "repetition_penalty": 1.3},
    {"max_new_tokens": 12, "presence_penalty": 1.5}, {"max_new_tokens": 12, "frequency_penalty": 0.7, "repetition_penalty": 1.1},
    {"max_new_tokens": 12, "logprobs": 1}, {"max_new_tokens": 12, "frequency_penalty": -1.0}, {"max_new_tokens": 1},
    {"max_new_tokens": 12, "apply_chat_template": False}, {"max_length": 3}, {"max_new_tokens": 12, "max_length": 3},
)  # fmt: skip
SAMPLED: tuple[dict[str, Any], ...] = (
    {}, {"rng_seed": 7}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8, "rng_seed": 3}, {"top_k": 40, "top_p": 0.9, "temperature": 1.3},
    {"min_p": 0.05, "rng_seed": 11}, {"top_k": 5, "logprobs": 1}, {"temperature": 0.5, "repetition_penalty": 1.2, "presence_penalty": 0.5},
    {"top_k": 1000, "temperature": 0.9}, {"num_return_sequences": 3, "top_k": 30}, {"min_p": 0.1, "top_p": 0.95, "top_k": 50, "logprobs": 1},
)  # fmt: skip
BEAMS: tuple[dict[str, Any], ...] = (
    {"num_beams": 2, "max_new_tokens": 8}, {"num_beams": 4, "max_new_tokens": 10, "num_return_sequences": 4},
    {"num_beams": 4, "max_new_tokens": 10, "length_penalty": 2.0, "num_return_sequences": 2},
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 1.5, "max_new_tokens": 10, "num_return_sequences": 6},
    {"num_beams": 3, "max_new_tokens": 14, "no_repeat_ngram_size": 2}, {"num_beams": 3, "max_new_tokens": 14, "no_repeat_ngram_size": 1},
    {"num_beams": 4, "max_new_tokens": 14, "stop_token_ids": {67, 108, 86, 10}, "num_return_sequences": 4},
    {"num_beams": 4, "max_new_tokens": 14, "stop_token_ids": {67, 108, 86, 10}, "length_penalty": -1.0, "num_return_sequences": 4},
)  # fmt: skip
CHAT = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}, {"role": "assistant", "content": "so?"}, {"role": "user", "content": "is it 1 2 3"})  # fmt: skip
TEMPLATES = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}{{ eos_token }}",
    "{%- for m in messages -%}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{%- endfor -%}",
    "{% for m in messages %}{% if loop.first and m.role == 'system' %}<<{{ m.content }}>>{% else %}{{ loop.index0 }}{{ m.content | upper }}{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    "{{ messages | length }}{{ messages[-1].content }}{{ extra }}{{ pad_token }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}:{{ messages[0]['content'] }}{{ messages | tojson }}",
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}",
    "{% for m in messages %}{{ 'A' if m.role == 'user' else 'B' }}{{ m.content.strip()[:3] }}{% endfor %}",
    "{% if false %}x{% endif %}",
)  # fmt: skip


TOOL = {"type": "function", "function": {"name": "get_weather", "description": "weather é", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
ASKED = {"role": "user", "content": "hi"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "call_7", "function": {"name": "f", "arguments": {"a": 1}}}]}  # fmt: skip
CALLED_BY_TEXT = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]}  # fmt: skip
ANSWERED = {"role": "tool", "content": "sunny", "name": "f", "tool_call_id": "call_7"}
SYSTEM = {"role": "system", "content": "sys"}
CHATS = ([ASKED], [SYSTEM, ASKED], [ASKED, CALLED, ANSWERED], [ASKED, CALLED_BY_TEXT, ANSWERED, ASKED], [SYSTEM, ASKED, CALLED, ANSWERED])  # fmt: skip
TEMPLATES_OF_TOOLS = (
    "",
    "{% if tools %}T{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.role }}:{% if m.tool_calls %}{% for c in m.tool_calls %}<call>{{ c.function.name }}={{ c.function.arguments | tojson }}</call>{% endfor %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
    "{% for m in messages %}{{ m.role }}:{% for p in m.content %}[{{p.type}}{{p.text}}]{% endfor %}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}",
)  # fmt: skip
EXPRESSIONS = (
    "{{ none }}", "{{ u }}", "{{ true }}", "{{ 1.5 }}", "{{ [1, 'a'] }}", "{{ 'a' ~ none ~ 1 }}", "{{ {'a': 1} }}", "{{ messages[0].x }}",
    "{{ messages[0].y is defined }}", "{{ u is none }}", "{{ 3 // 2 }}", "{{ 'a b'.split(' ') | join('-') }}", "{{ 'x' if u else 'y' }}",
    "{{ 'ab' in 'cab' }}", "{% for a in [1, 2] if a > 1 %}{{ a }}{{ loop.last }}{% else %}no{% endfor %}", "{{ range(3) | list }}",
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}", "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
)  # fmt: skip


def value_of(run: Callable[[], Any]) -> Any:
    """The result of a program, or its error, as JSON."""
    try:
        return json.loads(json.dumps(run(), default=str))
    except Exception as error:
        classes = [
            c.__name__ for c in (TypeError, IndexError, AttributeError, RuntimeError) if isinstance(error, c)
        ]
        return "error: " + (classes[0] if classes else type(error).__name__)


def is_same(value: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Whether JSON values are equal; fractions to five digits, or `tolerance`."""
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-5, abs_tol=tolerance)
    if isinstance(value, list) and isinstance(expected, list):
        pairs = zip(value, expected, strict=False)
        return len(value) == len(expected) and all(is_same(v, e, tolerance) for v, e in pairs)
    return type(value) is type(expected) and value == expected


def fields_of(config: Any, alone: bool = False) -> dict[str, Any]:
    """The fields of a configuration; but for `alone` only those that differ from the defaults."""
    names = [n for n in dir(config) if not n.startswith("_") and not callable(getattr(config, n))]
    values = {name: getattr(config, name) for name in names}
    if not alone:
        default = type(config)()
        values = {name: value for name, value in values.items() if value != getattr(default, name)}
    return {n: sorted(v) if isinstance(v, set) else v if v is None or isinstance(v, (int, float, list, str)) else str(v)
            for n, v in values.items()}  # fmt: skip


def results_of(results: Any) -> Any:
    """The values of results: scores with 4 digits."""
    if isinstance(results, str):
        return results
    kind = "texts" if hasattr(results, "texts") else "tokens"
    return [getattr(results, kind), [round(float(s), 4) + 0.0 for s in results.scores], [r.name for r in results.finish_reasons]]  # fmt: skip


def configs(genai: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    def build(options: dict[str, Any]) -> Any:
        config = genai.GenerationConfig(**options)
        return [fields_of(config), value_of(config.validate)]

    def flags(options: dict[str, Any]) -> Any:
        config = genai.GenerationConfig(**options)
        names = (
            "greedy_decoding",
            "beam_search",
            "multinomial",
            "tree_search",
            "assisting_generation",
            "prompt_lookup",
        )
        return [getattr(config, f"is_{name}")() for name in names]

    def read(content: dict[str, Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "generation_config.json"
            path.write_text(json.dumps(content))
            return fields_of(genai.GenerationConfig(path))

    def change(name: str, value: Any) -> Any:
        config = genai.GenerationConfig()
        setattr(config, name, value)
        return fields_of(config)

    yield "defaults", lambda: fields_of(genai.GenerationConfig(), True)
    for i, options in enumerate(CONFIGS):
        yield f"config {i} {sorted(options)}", lambda options=options: build(options)
        yield f"flags {i} {sorted(options)}", lambda options=options: flags(options)
    for content in FILES:
        yield f"file {content}", lambda content=content: read(content)
    for name, value in (
        ("stop_strings", ["a"]), ("stop_strings", {"a"}), ("no_such_name", 1), ("max_new_tokens", -1), ("max_new_tokens", 3.0),
        ("temperature", 1), ("do_sample", 1), ("do_sample", True), ("stop_criteria", genai.StopCriteria.NEVER), ("stop_criteria", 1),
        ("max_new_tokens", "3"), ("num_assistant_tokens", None), ("eos_token_id", 5), ("stop_token_ids", {3}), ("stop_token_ids", [3]),
        ("do_sample", None), ("do_sample", "x"), ("temperature", "1"), ("max_new_tokens", True), ("stop_strings", frozenset("a")),
        ("stop_strings", {1}), ("stop_token_ids", {1.5}), ("adapters", None), ("structured_output_config", None), ("parsers", []),
        ("eos_token_id", -3), ("stop_strings", "ab"),
    ):  # fmt: skip
        yield f"set {name} {value!r}", lambda name=name, value=value: change(name, value)

    def schedule(**options: Any) -> Any:
        config = genai.SchedulerConfig()
        for name, value in options.items():
            setattr(config, name, value)
        return config.to_string()

    for options in (
        {}, {"cache_size": 3, "cache_interval_multiplier": 4}, {"cache_size": -1}, {"cache_size": "2"}, {"no_such_name": 1},
        {"dynamic_split_fuse": 0, "enable_prefix_caching": True}, {"max_num_seqs": 2.0}, {"cache_interval_multiplier": None},
    ):  # fmt: skip
        yield f"schedule {options}", lambda options=options: schedule(**options)


def tokens_of(encoded: Any) -> Any:
    return [np.array(encoded.input_ids.data).tolist(), np.array(encoded.attention_mask.data).tolist()]


def tokenizers(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    tokenizer = genai.Tokenizer(folder)
    for text in TEXTS:
        yield f"encode {text!r}", lambda text=text: tokens_of(tokenizer.encode(text))
        yield f"plain {text!r}", lambda text=text: tokens_of(tokenizer.encode(text, add_special_tokens=False))
    texts = [t for t in TEXTS if t]
    for options in (
        {}, {"padding_side": "right"}, {"padding_side": "left"}, {"max_length": 6}, {"max_length": 6, "truncation": True},
        {"max_length": 30, "pad_to_max_length": True}, {"max_length": 6, "truncation": True, "add_special_tokens": False},
        {"pad_to_max_length": True, "max_length": 12, "truncation": True, "padding_side": "left"}, {"padding_side": "up"}, {},
    ):  # fmt: skip
        yield f"batch {options}", lambda options=options: tokens_of(tokenizer.encode(texts, **options))
    ids = [1, 260, 270, 2, 10, 280, 0, 99]
    for name, tokens in (
        ("list", ids), ("empty", []), ("lists", [ids, ids[:3]]), ("tensor", ov.Tensor(np.array([ids], np.int64))),
        ("i32", ov.Tensor(np.array([ids], np.int32))), ("row", ov.Tensor(np.array(ids, np.int64))), ("bytes", [163, 187]), ("beyond", [5, 9999]),
    ):  # fmt: skip
        yield f"decode {name}", lambda tokens=tokens: tokenizer.decode(tokens)
        yield f"decode all {name}", lambda tokens=tokens: tokenizer.decode(tokens, skip_special_tokens=False)
    yield (
        "special tokens",
        lambda: [
            getattr(tokenizer, f"get_{n}_token{k}")() for n in ("bos", "eos", "pad") for k in ("", "_id")
        ],
    )
    yield (
        "vocabulary",
        lambda: [len(tokenizer.get_vocab()), tokenizer.get_vocab()[b"</s>"], tokenizer.get_vocab()[b" is"]],
    )
    yield "vector", lambda: tokenizer.get_vocab_vector()[:3]
    yield "pairs", lambda: tokenizer.supports_paired_input()
    yield "two", lambda: tokens_of(tokenizer.encode(["a"], ["b"]))
    yield "number", lambda: tokenizer.encode(3)
    yield "array", lambda: tokenizer.decode(np.array(ids))
    yield "template", lambda: [tokenizer.chat_template, tokenizer.get_original_chat_template()]
    yield "missing", lambda: genai.Tokenizer(folder / "nowhere").encode("x")
    for template, prompt, count in itertools.product(TEMPLATES, (True, False), (4, 2)):
        messages = list(CHAT[-count:] if count == 4 else CHAT[1:3])
        yield (
            f"chat {template} {prompt} {count}",
            lambda t=template, p=prompt, m=messages: tokenizer.apply_chat_template(m, p, t),
        )
    yield (
        "extra",
        lambda: tokenizer.apply_chat_template(list(CHAT), True, TEMPLATES[3], extra_context={"extra": "E"}),
    )
    history = genai.ChatHistory(list(CHAT))
    yield "history", lambda: tokenizer.apply_chat_template(history, True)
    yield (
        "history pop",
        lambda: [len(history), history.pop(), len(history), bool(history), history.get_messages()],
    )


def templates(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    tokenizer = genai.Tokenizer(folder)
    for (i, template), (j, chat), tools in itertools.product(
        enumerate(TEMPLATES_OF_TOOLS), enumerate(CHATS), (None, [TOOL])
    ):
        run = lambda t=template, c=chat, n=tools: tokenizer.apply_chat_template(c, True, t, tools=n)  # noqa: E731
        yield f"template {i} chat {j} {bool(tools)}", run
    for text in EXPRESSIONS:
        yield text, lambda text=text: tokenizer.apply_chat_template([ASKED], True, f"Z{text}")


def streams(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    tokenizer = genai.Tokenizer(folder)

    def stream(text: str, size: int, answer: Any, options: dict[str, Any]) -> Any:
        pieces: list[Any] = []

        def take(piece: str) -> Any:
            pieces.append(piece)
            return answer

        streamer = genai.TextStreamer(tokenizer, take, options)
        ids = np.array(tokenizer.encode(text).input_ids.data)[0].tolist()
        for i in range(0, len(ids), size):
            status = streamer.write(ids[i] if size == 1 else ids[i : i + size])
            pieces.append(status.name)
        streamer.end()
        return pieces

    for text, size in itertools.product(
        (TEXTS[2], TEXTS[3], TEXTS[5] + "ab", "it is.\nis it so?\n\nno"), (1, 2, 5)
    ):
        yield (
            f"stream {text!r} {size}",
            lambda text=text, size=size: stream(text, size, genai.StreamingStatus.RUNNING, {}),
        )
    yield (
        "stream special",
        lambda: stream("it is </s> so", 1, genai.StreamingStatus.RUNNING, {"skip_special_tokens": False}),
    )
    for answer in (genai.StreamingStatus.STOP, genai.StreamingStatus.CANCEL, True, False, None):
        yield f"stream {answer}", lambda answer=answer: stream("it is not there", 1, answer, {})


def pipelines(
    genai: Any, ov: Any, folder: Path, **properties: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    pipeline = genai.LLMPipeline(folder, "CPU", **properties)
    text = "hello world"

    def run(inputs: Any, **options: Any) -> Any:
        return results_of(pipeline.generate(inputs, **options))

    for options in GREEDY:
        yield f"greedy {options}", lambda options=options: run([text], **options)
    yield "str", lambda: run(text, max_new_tokens=8)
    yield "call", lambda: results_of(pipeline(text, max_new_tokens=8))
    yield "config", lambda: results_of(pipeline.generate(text, genai.GenerationConfig(max_new_tokens=5)))
    yield (
        "config and keyword",
        lambda: results_of(
            pipeline.generate(text, genai.GenerationConfig(max_new_tokens=5), max_new_tokens=3)
        ),
    )
    yield "dict", lambda: pipeline.generate(text, {"max_new_tokens": 3})
    yield "list", lambda: run(["hello", "the weather is not there"], max_new_tokens=6)
    tensor = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
    yield "tensor", lambda: run(tensor, max_new_tokens=6)
    yield "tokens", lambda: run(pipeline.get_tokenizer().encode(["hello", "the weather"]), max_new_tokens=6)
    yield "i32", lambda: run(ov.Tensor(np.array([[1, 260]], np.int32)), max_new_tokens=6)
    yield "row", lambda: run(ov.Tensor(np.array([1, 260], np.int64)), max_new_tokens=6)
    yield "array", lambda: run(np.array([[1, 260]]), max_new_tokens=6)
    yield "no prompts", lambda: run([], max_new_tokens=6)
    yield "empty", lambda: run("", max_new_tokens=6)
    yield "empty alone", lambda: run("", max_new_tokens=6, apply_chat_template=False)
    yield "none", lambda: run(text, max_new_tokens=None)
    yield "zero", lambda: run(text, max_new_tokens=0)
    yield "unknown", lambda: run(text, max_new_tokens=4, no_such_name=1)
    yield "defaults", lambda: fields_of(pipeline.get_generation_config())
    yield "echo", lambda: run(tensor, max_new_tokens=4, echo=True)
    yield "echo only", lambda: run(tensor, max_new_tokens=0, echo=True)
    yield "echo text", lambda: run(text, max_new_tokens=2, echo=True, apply_chat_template=False)
    for options in BEAMS:
        name = {n: sorted(v) if isinstance(v, set) else v for n, v in options.items()}
        yield f"beams {name}", lambda options=options: run([text], **options)
    for criteria in ("EARLY", "NEVER"):
        options = {**BEAMS[-2], "max_new_tokens": 20, "stop_criteria": getattr(genai.StopCriteria, criteria)}
        yield f"beams {criteria}", lambda options=options: run([text], **options)
    yield "beams str", lambda: run(text, num_beams=2, max_new_tokens=6)
    for options in SAMPLED:
        yield (
            f"sampled {options}",
            lambda options=options: run(
                [text], max_new_tokens=10, do_sample=True, ignore_eos=True, **options
            ),
        )
    full: list[str] = []

    def cut(begin: int, end: int, **options: Any) -> Any:
        if not full:
            full.append(pipeline.generate(text, max_new_tokens=24, ignore_eos=True))
        stop = full[0][begin:end]
        return [stop, run([text], max_new_tokens=24, ignore_eos=True, stop_strings={stop}, **options)]

    for begin, end in ((3, 4), (5, 8), (10, 12), (0, 1)):
        for keep in (False, True):
            yield (
                f"stop {begin} {end} {keep}",
                lambda b=begin, e=end, k=keep: cut(b, e, include_stop_str_in_output=k),
            )
    tokens = lambda: pipeline.generate(tensor, max_new_tokens=12, ignore_eos=True).tokens[0]  # noqa: E731
    yield "stop with logs", lambda: cut(5, 8, logprobs=1)
    yield "stop token", lambda: run(tensor, max_new_tokens=12, stop_token_ids={tokens()[4]})
    yield (
        "stop token ignored",
        lambda: run(tensor, max_new_tokens=12, stop_token_ids={tokens()[4]}, ignore_eos=True),
    )
    yield "least", lambda: run(tensor, max_new_tokens=12, stop_token_ids={tokens()[4]}, min_new_tokens=8)

    def stream(answer: Any, **options: Any) -> Any:
        pieces: list[str] = []

        def take(piece: str) -> Any:
            pieces.append(piece)
            return answer

        results_of(pipeline.generate([text], streamer=take, max_new_tokens=12, ignore_eos=True, **options))
        return pieces

    for answer in (
        None,
        False,
        0,
        genai.StreamingStatus.RUNNING,
        True,
        1,
        7,
        genai.StreamingStatus.STOP,
        2,
        genai.StreamingStatus.CANCEL,
    ):
        yield f"streamed {answer}", lambda answer=answer: stream(answer)
    for begin, end in ((5, 8), (10, 12)):
        yield (
            f"streamed stop {begin} {end}",
            lambda b=begin, e=end: [cut(b, e)[0], stream(None, stop_strings={full[0][b:e]})],
        )
    yield "streamed beams", lambda: stream(None, num_beams=2)
    yield "streamed several", lambda: stream(None, do_sample=True, num_return_sequences=2)
    yield "no streamer", lambda: pipeline.generate(text, streamer=3, max_new_tokens=4)

    def chat() -> Any:
        pipeline.start_chat("be kind")
        answers = [pipeline.generate(t, max_new_tokens=7) for t in ("hello", "is it so?", "no")]
        pipeline.finish_chat()
        return [*answers, pipeline.generate("hello", max_new_tokens=7)]

    def history() -> Any:
        chat, answers = genai.ChatHistory(), []
        for words in ("hello", "is it so?"):
            chat.append({"role": "user", "content": words})
            results = pipeline.generate(chat, max_new_tokens=7)
            answers.append(results_of(results))
            chat.append({"role": "assistant", "content": results.texts[0]})
        return [answers, len(chat)]

    yield "chat", chat
    yield "history", history
    yield "history empty", lambda: run(genai.ChatHistory(), max_new_tokens=4)

    def figures() -> Any:
        metrics = pipeline.generate([text], max_new_tokens=6, ignore_eos=True).perf_metrics
        raw = metrics.raw_metrics
        names = [n for n in dir(raw) if not n.startswith("_")]
        sizes = {name: len(getattr(raw, name)) for name in names}
        total = metrics + metrics
        return [metrics.get_num_generated_tokens(), metrics.get_num_input_tokens(), sizes, list(raw.m_batch_sizes),
                total.get_num_generated_tokens(), total.get_num_input_tokens(), metrics.get_ttft().mean > 0,
                metrics.get_tpot().mean > 0, metrics.get_throughput().mean > 0, len(list(metrics.get_ipot()))]  # fmt: skip

    yield "figures", figures
    yield (
        "empty figures",
        lambda: [
            list(getattr(genai.PerfMetrics(), f"get_{n}")())
            for n in ("ttft", "tpot", "throughput", "generate_duration")
        ],
    )


def batches(genai: Any, ov: Any, folder: Path, **properties: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """ContinuousBatchingPipeline: lists, handles, schedules, small caches."""

    def load(**options: Any) -> Any:
        config = genai.SchedulerConfig()
        for name, value in options.items():
            setattr(config, name, value)
        return genai.ContinuousBatchingPipeline(folder, config, "CPU", properties)

    def values(results: Any) -> Any:
        return [
            [r.m_request_id, r.m_generation_ids, [round(float(s), 4) + 0.0 for s in r.m_scores],
             [x.name for x in r.finish_reasons] if hasattr(r, "finish_reasons") else r.m_status.name]
            for r in results
        ]  # fmt: skip

    def output(o: Any) -> Any:
        return [
            list(o.generated_ids),
            [round(float(x), 4) + 0.0 for x in o.generated_log_probs],
            round(float(o.score), 4) + 0.0,
            o.finish_reason.name,
        ]

    pipeline = load()
    config = genai.GenerationConfig
    few = config(max_new_tokens=6, ignore_eos=True)
    text, row = "hello world", ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))

    def generate(*arguments: Any) -> Any:
        return values(pipeline.generate(*arguments))

    yield "texts", lambda: generate([text, "the weather", "is it so?"], [few, config(max_new_tokens=3), few])
    yield "text", lambda: generate(text, few)
    yield "tensors", lambda: generate([row, row], [few, config(max_new_tokens=9, logprobs=1)])
    yield "chats", lambda: generate([genai.ChatHistory([{"role": "user", "content": text}])], [few])
    yield "repr", lambda: repr(pipeline.generate("is it so?", few)[0])
    yield "too few configs", lambda: generate([text, text], [few])
    yield "no prompts", lambda: generate([], [])
    yield "no config", lambda: generate(text)
    yield "dict", lambda: generate(text, {"max_new_tokens": 3})
    yield "one config", lambda: generate([text], few)
    yield (
        "sampled",
        lambda: generate(
            [text, "the"],
            [
                config(max_new_tokens=6, do_sample=True, num_return_sequences=3, rng_seed=3),
                config(max_new_tokens=9, do_sample=True, top_k=9),
            ],
        ),
    )
    yield (
        "beams",
        lambda: generate(
            [text, "the"], [config(max_new_tokens=40, num_beams=4, num_return_sequences=2), few]
        ),
    )
    yield (
        "groups",
        lambda: generate(
            [row],
            [
                config(
                    max_new_tokens=8,
                    num_beams=4,
                    num_beam_groups=2,
                    diversity_penalty=1.0,
                    num_return_sequences=4,
                )
            ],
        ),
    )
    yield "echo", lambda: generate([row], [config(max_new_tokens=3, echo=True)])
    yield "get_config", lambda: fields_of(pipeline.get_config())

    def stream(answer: Any, inputs: Any) -> Any:
        pieces: list[str] = []

        def take(piece: str) -> Any:
            pieces.append(piece)
            return answer

        result = generate(inputs, [few] if isinstance(inputs, list) else few, take)
        return [result[0][-1], pieces]

    statuses = [getattr(genai.StreamingStatus, n) for n in ("RUNNING", "STOP", "CANCEL", "TOOL_CALL_STOP")]
    for answer, inputs in itertools.product((None, *statuses), (text, [row])):
        name = f"streamed {answer} {type(inputs).__name__}"
        yield name, lambda answer=answer, inputs=inputs: stream(answer, inputs)
    yield "streamed two", lambda: generate([text, text], [few, few], lambda piece: None)

    def handle(options: dict[str, Any], inputs: Any = text) -> Any:
        request, steps = pipeline.add_request(1, inputs, config(**options)), []
        steps.append([request.get_status().name, request.can_read()])
        while pipeline.has_non_finished_requests():
            pipeline.step()
            outputs = sorted(map(output, request.read().values())) if request.can_read() else None
            steps.append([request.get_status().name, outputs])
        return [
            *steps,
            request.can_read(),
            request.read_all(),
            request.get_perf_metrics().get_num_generated_tokens(),
        ]

    def all_of(options: dict[str, Any], reads: bool = True) -> Any:
        request = pipeline.add_request(1, text, config(**options))
        while pipeline.has_non_finished_requests():
            pipeline.step()
        first = sorted(map(output, request.read().values())) if reads else None
        return [first, sorted(map(output, request.read_all()))]

    short = {"max_new_tokens": 5, "ignore_eos": True}
    for options in (
        {},
        {"logprobs": 1},
        {"do_sample": True, "num_return_sequences": 2},
        {"stop_strings": {"zz"}},
        {"do_sample": True},
    ):
        yield f"handle {options}", lambda options=options: handle({**short, **options})
    yield "handle beams", lambda: handle({"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 3})
    yield "handle beams, one sequence", lambda: handle({"max_new_tokens": 5, "num_beams": 3})
    yield "handle tensor", lambda: handle(short, row)
    yield "read_all", lambda: all_of(short)
    yield "read_all beams", lambda: all_of({"max_new_tokens": 5, "num_beams": 3}, reads=False)

    def end(method: str, *arguments: Any) -> Any:
        request = pipeline.add_request(2, text, few)
        pipeline.step()
        getattr(request, method)(*arguments)
        status = [
            request.get_status().name,
            request.can_read(),
            pipeline.has_non_finished_requests(),
            value_of(request.read),
            value_of(request.read_all),
        ]
        pipeline.step()
        return [*status, pipeline.has_non_finished_requests()]

    yield "stop", lambda: end("stop")
    yield "stop for a tool", lambda: end("stop", genai.GenerationFinishReason.TOOL_CALL)
    yield "cancel", lambda: end("cancel")

    def count_cancelled() -> Any:
        requests = [pipeline.add_request(i, text, few) for i in range(3)]
        requests[1].cancel()
        counts = []
        while pipeline.has_non_finished_requests():
            pipeline.step()
            counts.append([pipeline.get_metrics().requests, pipeline.get_metrics().scheduled_requests])
        return counts

    yield "requests of metrics", count_cancelled
    for name, arguments in {
        "negative": (-1, text, few), "named": ("x", text, few), "i32": (1, ov.Tensor(np.array([[1, 260]], np.int32)), few),
        "too long": (1, text, config(max_length=2)), "invalid": (1, text, config(max_new_tokens=3, do_sample=True, top_p=2.0)),
        "no config": (1, text), "list": (1, [1, 2], few),
    }.items():  # fmt: skip
        yield f"add {name}", lambda arguments=arguments: pipeline.add_request(*arguments)

    def schedule(texts: list[Any], most: int, **options: Any) -> Any:
        batched = load(**options)
        requests = [
            batched.add_request(i, text, config(max_new_tokens=most, ignore_eos=True))
            for i, text in enumerate(texts)
        ]
        steps: list[Any] = []
        while batched.has_non_finished_requests() and len(steps) < 400:
            batched.step()
            metrics = batched.get_metrics()
            steps.append([metrics.requests, metrics.scheduled_requests, [r.can_read() for r in requests]])
        outputs = [[r.get_status().name, list(map(output, r.read_all()))] for r in requests]
        return [len(steps), steps[:20], outputs]

    prompt = ov.Tensor(np.arange(3, 43)[None].astype(np.int64))
    yield "chunks", lambda: schedule([prompt, prompt, text], 3, max_num_batched_tokens=8)
    yield (
        "whole prompts",
        lambda: schedule(
            [prompt, prompt, text], 3, max_num_batched_tokens=64, max_num_seqs=16, dynamic_split_fuse=False
        ),
    )
    yield "few sequences in chunks", lambda: schedule([text, "the weather", text], 3, max_num_seqs=1)
    yield (
        "few sequences",
        lambda: schedule([prompt, text, text], 3, max_num_seqs=2, dynamic_split_fuse=False),
    )
    yield "one block", lambda: schedule([text], 40, num_kv_blocks=1)
    yield "three blocks", lambda: schedule([text, "the weather", text], 40, num_kv_blocks=3)
    yield (
        "prefixes",
        lambda: schedule([prompt, prompt, prompt], 3, enable_prefix_caching=True, max_num_batched_tokens=64),
    )

    def chat() -> Any:
        pipeline.start_chat("be kind")
        answers = [generate(t, few) for t in ("hello", "is it so?", "no")]
        two = value_of(lambda: generate(["a", "b"], [few, few]))
        pipeline.finish_chat()
        return [answers, two, generate("hello", few)]

    yield "chat", chat

    def running() -> Any:
        request = pipeline.add_request(3, text, few)
        refused = value_of(lambda: generate(text, few))
        while pipeline.has_non_finished_requests():
            pipeline.step()
        return [refused, sorted(map(output, request.read_all()))]

    yield "generate among requests", running

    def figures() -> Any:
        metrics = pipeline.generate(text, few)[0].perf_metrics
        raw = metrics.raw_metrics
        sizes = {name: len(getattr(raw, name)) for name in dir(raw) if not name.startswith("_")}
        return [
            metrics.get_num_generated_tokens(),
            metrics.get_num_input_tokens(),
            sizes,
            list(raw.m_batch_sizes),
        ]

    yield "figures", figures
    for sizes in (
        (32, 32, 96),
        (0, 32, 96),
        (32, 0, 96),
        (32, 32, 64),
        (31, 32, 96),
        (-1, 32, 96),
        ("32", 32, 96),
    ):
        yield (
            f"eviction {sizes}",
            lambda sizes=sizes: (
                (c := genai.CacheEvictionConfig(*sizes, genai.AggregationMode.SUM))
                and [c.to_string(), c.get_evictable_size()]
            ),
        )
    yield "eviction by default", lambda: genai.SchedulerConfig().cache_eviction_config.to_string()
    yield "sparse", lambda: [genai.SparseAttentionConfig().to_string(), genai.KVCrushConfig(2).to_string()]

    def switched_on() -> str:
        config = genai.SchedulerConfig()
        config.use_cache_eviction = config.use_sparse_attention = True
        return config.to_string()

    yield "all switched on", switched_on


def speculation(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Drafts by the model itself, and by earlier tokens."""
    draft = genai.LLMPipeline(folder, "CPU", draft_model=genai.draft_model(folder, "CPU", **EXACT), **EXACT)
    lookup = genai.LLMPipeline(folder, "CPU", prompt_lookup=True, **EXACT)
    plain = genai.LLMPipeline(folder, "CPU", prompt_lookup=False, **EXACT)
    row = ov.Tensor(np.array([[1, 260, 270, 20, 260, 270]], np.int64))
    found = {"num_assistant_tokens": 3, "max_ngram_size": 2}

    class Kept(genai.StreamerBase):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.items: list[Any] = []

        def write(self, token: Any) -> Any:
            self.items.append(token)
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    def run(pipeline: Any, inputs: Any = row, most: int = 20, **options: Any) -> Any:
        results = pipeline.generate(inputs, max_new_tokens=most, **options)
        sizes = list(results.perf_metrics.raw_metrics.m_batch_sizes)
        return [
            results_of(results),
            sizes,
            type(results.extended_perf_metrics).__name__,
            results.perf_metrics.get_num_generated_tokens(),
        ]

    def stream(pipeline: Any, **options: Any) -> Any:
        streamer, pieces = Kept(), list[str]()
        pipeline.generate(row, max_new_tokens=20, ignore_eos=True, streamer=streamer, **options)
        pipeline.generate("hello world", max_new_tokens=9, streamer=pieces.append, **options)
        return [streamer.items, pieces]

    for options in ({}, {"num_assistant_tokens": 3}, {"num_assistant_tokens": 5}, {"num_assistant_tokens": 9}, {"assistant_confidence_threshold": 0.1},
                    {"num_assistant_tokens": 3, "assistant_confidence_threshold": 0.1}, {"num_assistant_tokens": 3, "num_return_sequences": 2, "do_sample": True}):  # fmt: skip
        yield f"draft {options}", lambda o=options: run(draft, ignore_eos=True, **o)
    yield "draft beams", lambda: run(draft, num_beams=2, num_assistant_tokens=3)
    yield "draft stream", lambda: stream(draft, num_assistant_tokens=3)
    yield (
        "draft texts",
        lambda: run(draft, ["hello world", "the"], 8, ignore_eos=True, num_assistant_tokens=3)[0],
    )
    for options in (
        {}, found, {"num_assistant_tokens": 3}, {"max_ngram_size": 2}, {**found, "do_sample": True, "rng_seed": 3}, {**found, "num_beams": 2},
        {"num_assistant_tokens": 12, "max_ngram_size": 4}, {**found, "repetition_penalty": 1.2},
    ):  # fmt: skip
        yield (
            f"lookup {options}",
            lambda o=options: run(lookup, **o, **({} if "num_beams" in o else {"ignore_eos": True})),
        )
    yield "lookup stop token", lambda: run(lookup, stop_token_ids={215}, **found)
    yield "lookup stream", lambda: stream(lookup, **found)
    yield "lookup stop", lambda: run(lookup, ["hello world"], 20, stop_strings={"H"}, **found)[0]
    yield (
        "lookup texts",
        lambda: run(lookup, ["hello world", "the", "is it so? is it"], 12, ignore_eos=True, **found)[0],
    )
    for options in ({}, found, {"num_assistant_tokens": 3}):
        yield f"plain {options}", lambda o=options: run(plain, ignore_eos=True, **o)
    yield "draft missing", lambda: genai.draft_model(folder / "nowhere", "CPU")
    yield "draft number", lambda: genai.draft_model(3)
    yield "draft wrong", lambda: genai.LLMPipeline(folder, "CPU", draft_model=3)
    yield (
        "both",
        lambda: genai.LLMPipeline(
            folder, "CPU", prompt_lookup=True, draft_model=genai.draft_model(folder, "CPU")
        ),
    )


def parsers(genai: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Parsers of whole answers and incremental ones, alone, in `generate` and in a streamer."""
    plain = {
        "default": genai.ReasoningParser(), "deepseek": genai.DeepSeekR1ReasoningParser(), "phi": genai.Phi4ReasoningParser(),
        "drop": genai.ReasoningParser(keep_original_content=False), "tags": genai.ReasoningParser(True, False, "<a>", "</a>"),
        "at once": genai.ReasoningParser(False, False), "pythonic": genai.Llama3PythonicToolParser(), "json": genai.Llama3JsonToolParser(),
    }  # fmt: skip
    texts = (
        "<think>why\nnot</think>\n\nbecause", "why</think> x", "no tags", "<think>open", "", "<a>q</a>w", "x<think>y</think>z", "<think></think>",
        "<think>a</think>b<think>c</think>d", "</think><think>a</think>", '[get_weather(city="Paris", days=3)]', '[a(x=1), b(y=[1,2], z={"k": true})]',
        "text [f(x=1.5)] more", "f(x=1)", "[f()]", "[]", "[f(x='q', y=True)]", '{"name": "f", "parameters": {"a": 1}}', 'text {"name": "f", "arguments": {"a": [1, null]}} x',
        '{"a": ', '{"name": "f"}; {"name": "g"}', '[f(x="a, b", y="c=d")]', '[{"name": "f"}]', '[f(x = "a",x="b")]', '[f(x="a\nb")]', '{"a":\n 1}', "{bad}", "} {", '[a.b(é="c")]',
    )  # fmt: skip

    def parse(parser: Any, message: Any) -> Any:
        parser.parse(message)
        return message

    for (name, parser), text in itertools.product(plain.items(), texts):
        yield f"{name} {text!r}", lambda p=parser, t=text: parse(p, {"content": t})
    for message in (
        {},
        {"content": 3},
        "x",
        {"content": "<think>a</think>", "reasoning_content": "x", "role": "assistant"},
    ):
        yield f"message {message}", lambda m=message: parse(plain["default"], m)
    pieces = (
        ["<th", "ink>", "wh", "y", "</thi", "nk>", "be", "cause"], ["<think>why</think>because"], ["abc", "def"], ["why", "</think>", " x"], ["<", "b>"],
        ["<think>a</think>b<think>c</think>d"], ["<think>a<", "b</", "think>c"], ["a<think>", "b"], [""], ["<think>", "a", "<", "/", "think", ">", "b"], ["<think>", "x</", "</think>"],
    )  # fmt: skip
    kinds = {
        "default": lambda: genai.ReasoningIncrementalParser(), "deepseek": lambda: genai.DeepSeekR1ReasoningIncrementalParser(),
        "phi": lambda: genai.Phi4ReasoningIncrementalParser(), "drop": lambda: genai.ReasoningIncrementalParser(keep_original_content=False),
        "at once": lambda: genai.ReasoningIncrementalParser(False, False, "<a>", "</a>"),
    }  # fmt: skip

    def parse_pieces(parser: Any, texts: Any) -> Any:
        message, results = {}, []
        for _ in range(2):
            for text in texts:
                results.append([parser.parse(message, text), dict(sorted(message.items()))])
            parser.reset()
        return results

    class Kept(genai.TextParserStreamer):  # type: ignore[misc,name-defined]
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            self.items: list[Any] = []

        def write(self, message: Any) -> Any:
            self.items.append(dict(sorted(message.items())))
            return genai.StreamingStatus.RUNNING

    pipeline = genai.LLMPipeline(folder, "CPU", **EXACT)

    def stream(chain: Any, texts: Any) -> Any:
        streamer = Kept(pipeline.get_tokenizer(), chain)
        for text in texts:
            streamer._write(text)
        whole = dict(sorted(streamer.get_parsed_message().items()))
        streamer.reset()
        return [streamer.items, whole, streamer.get_parsed_message()]

    for (name, kind), texts in itertools.product(kinds.items(), pieces):
        yield f"pieces {name} {texts}", lambda k=kind, t=texts: parse_pieces(k(), t)
        yield f"stream {name} {texts}", lambda k=kind, t=texts: stream([k()], t)
    yield "stream plain", lambda: stream([], pieces[0])

    def generate() -> Any:
        streamer = Kept(pipeline.get_tokenizer(), [genai.DeepSeekR1ReasoningIncrementalParser()])
        text = pipeline.generate("hello world", max_new_tokens=8, ignore_eos=True, streamer=streamer)
        return [text, streamer.items, dict(sorted(streamer.get_parsed_message().items()))]

    class Counts(genai.IncrementalParser):  # type: ignore[misc,name-defined]
        """Counts pieces, and ends the generation at one of them."""

        def __init__(self, last: int):
            super().__init__()
            self.last, self.count, self.resets = last, 0, 0

        def parse(self, message: Any, text: str, tokens: Any = None) -> str:
            self.count += 1
            if self.count == self.last:
                self.set_status(genai.StreamingStatus.TOOL_CALL_STOP)
            message[f"of {self.last}"] = f"{self.count}. "
            return text + "|"

        def reset(self) -> None:
            self.count, self.resets = 0, self.resets + 1
            self.set_status(genai.StreamingStatus.RUNNING)

    def generate_parsed(lasts: Any, inputs: Any, **keywords: Any) -> Any:
        """Two answers by one streamer; that of the real package may have further tokens after the end."""
        chain, parsed = [Counts(last) for last in lasts], []
        streamer = Kept(pipeline.get_tokenizer(), chain)
        for _ in range(2):
            results = pipeline.generate(
                inputs, max_new_tokens=8, ignore_eos=True, streamer=streamer, **keywords
            )
            parsed.append([dict(sorted(each.items())) for each in getattr(results, "parsed", ())])
        return [parsed, streamer.items, [each.resets for each in chain]]

    class Own(genai.Parser):  # type: ignore[misc,name-defined]
        def parse(self, message: Any) -> None:
            message["length"] = len(message["content"])
            message["content"] = message["content"][:3]

    class Broken(genai.Parser):  # type: ignore[misc,name-defined]
        def parse(self, message: Any) -> None:
            raise AttributeError("of the parser")

    def parsed(chain: Any, inputs: Any = ("hello", "the")) -> Any:
        results = pipeline.generate(list(inputs), max_new_tokens=4, parsers=chain)
        return [results.texts, [dict(sorted(message.items())) for message in results.parsed]]

    yield "generate", generate
    for lasts, inputs in (
        ((99,), ["hello world"]),
        ((99,), "hello world"),
        ((2, 99), ["hello"]),
        ((99, 2), ["hello"]),
        ((), ["hello"]),
    ):
        yield (
            f"generate parsed {lasts} {inputs}",
            lambda ends=lasts, texts=inputs: generate_parsed(ends, texts),
        )
    own = Own()  # the real package does not keep it alive
    yield "generate parsed twice", lambda: generate_parsed((99,), ["hello"], parsers=[own])
    for name, chain in {"own": [Own()], "both": [Own(), plain["deepseek"]], "none": [], "broken": [Broken()], "base": [genai.Parser()], "number": [3], "one": plain["phi"],
                        "incremental": [genai.ReasoningIncrementalParser()]}.items():  # fmt: skip
        yield f"parsed {name}", lambda c=chain: parsed(c)
    yield "assign", lambda: setattr(genai.GenerationConfig(), "parsers", [3])
    yield "str", lambda: pipeline.generate("hello", max_new_tokens=4, parsers=[Own()])
    yield (
        "statuses",
        lambda: [
            (p := genai.ReasoningIncrementalParser()).get_status().name,
            p.set_status(genai.StreamingStatus.STOP),
            p.get_status().name,
        ],
    )


def retrieval(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """TextEmbeddingPipeline, TextRerankPipeline, and pairs of a tokenizer of one input."""
    temporary = Path(tempfile.mkdtemp())
    encoder = write_encoder(ov, temporary / "encoder", folder)
    classifiers = {n: write_encoder(ov, temporary / f"labels{n}", folder, n) for n in (1, 2, 3)}
    embedding, rerank = genai.TextEmbeddingPipeline, genai.TextRerankPipeline
    pooling = embedding.PoolingType
    texts = ["hello world", "the weather is not there", "é", "1 2 3"]

    def rounded(values: Any) -> Any:
        return np.round(np.array(values, np.float64), 4).tolist()

    for kind, normalize in itertools.product(("CLS", "MEAN", "LAST_TOKEN"), (True, False)):
        yield (
            f"embed {kind} {normalize}",
            lambda k=kind, n=normalize: rounded(
                embedding(encoder, "CPU", pooling_type=getattr(pooling, k), normalize=n).embed_documents(
                    texts
                )
            ),
        )
    for options in (
        {"max_length": 4}, {"max_length": 12, "pad_to_max_length": True}, {"padding_side": "left"}, {"max_length": "4"},
        {"query_instruction": "ask: ", "embed_instruction": "doc: "}, {"batch_size": 4}, {"batch_size": 1, "max_length": 8},
        {"batch_size": 4, "max_length": 8, "pad_to_max_length": True}, {"padding_side": "up"}, {"no_such": 3}, {"pooling_type": 2}, {"normalize": "no"},
    ):  # fmt: skip
        yield (
            f"documents {options}",
            lambda o=options: rounded(embedding(encoder, "CPU", **o).embed_documents(texts)),
        )
        yield (
            f"query {options}",
            lambda o=options: rounded(embedding(encoder, "CPU", **o).embed_query("hello")),
        )
    for kind in ("MEAN", "LAST_TOKEN"):
        yield (
            f"left {kind}",
            lambda k=kind: rounded(
                embedding(
                    encoder, "CPU", padding_side="left", pooling_type=getattr(pooling, k)
                ).embed_documents(texts)
            ),
        )
    config = embedding.Config(pooling_type=pooling.MEAN, normalize=False)
    pipeline = embedding(encoder, "CPU", config)
    yield "config", lambda: rounded(pipeline.embed_query("hello"))
    yield "config and keyword", lambda: embedding(encoder, "CPU", config, normalize=True)
    yield "defaults", lambda: [fields_of(embedding.Config(), True), fields_of(rerank.Config(), True)]
    yield "unknown field", lambda: fields_of(embedding.Config(no_such=1))
    yield "unknown attribute", lambda: setattr(config, "no_such", 1)
    for name, value in (
        ("max_length", None),
        ("max_length", "3"),
        ("normalize", 0),
        ("pooling_type", 1),
        ("padding_side", 3),
        ("batch_size", 2),
    ):
        yield f"set {name} {value!r}", lambda n=name, v=value: setattr(embedding.Config(), n, v)
        yield f"config {name} {value!r}", lambda n=name, v=value: fields_of(embedding.Config(**{n: v}))
    yield "embed", lambda: rounded(pipeline.embed(["a", "b c"], "prompt "))
    for name, arguments in {
        "no prompt": (["a"],),
        "str": ("abc", "a"),
        "numbers": ([1], "a"),
        "none": ([], "a"),
        "empty": ([""], ""),
    }.items():
        yield f"embed {name}", lambda a=arguments: rounded(pipeline.embed(*a))
    yield "query list", lambda: pipeline.embed_query(["a"])
    yield "long", lambda: rounded(pipeline.embed_query("hello " * 60))
    yield (
        "background",
        lambda: [pipeline.start_embed_query_async("hello"), rounded(pipeline.wait_embed_query())],
    )
    yield (
        "documents in background",
        lambda: [pipeline.start_embed_documents_async(texts), rounded(pipeline.wait_embed_documents())],
    )
    yield "missing", lambda: embedding(temporary / "nowhere", "CPU")

    def ranks(labels: int, **options: Any) -> Any:
        return [
            [i, round(score, 4)]
            for i, score in rerank(classifiers[labels], "CPU", **options).rerank("hello", texts)
        ]

    for labels in (1, 2, 3):
        yield f"rerank {labels}", lambda n=labels: ranks(n)
    for options in (
        {"top_n": 1},
        {"top_n": 10},
        {"top_n": 0},
        {"max_length": 5},
        {"max_length": 8},
        {"padding_side": "left"},
        {"max_length": 20, "pad_to_max_length": True},
        {"no_such": 1},
    ):
        yield f"rerank {options}", lambda o=options: ranks(1, **o)
    yield "rerank str", lambda: rerank(classifiers[1], "CPU").rerank("a", "b")

    def ranks_in_background() -> Any:
        ranker = rerank(classifiers[1], "CPU", rerank.Config(top_n=2))
        ranker.start_rerank_async("hello", texts)
        return [[i, round(score, 4)] for i, score in ranker.wait_rerank()]

    yield "rerank in background", ranks_in_background
    pairs = genai.Tokenizer(folder, add_second_input=True)
    yield "pairs", lambda: pairs.supports_paired_input()
    for options in (
        {}, {"max_length": 6}, {"padding_side": "left"}, {"add_special_tokens": False}, {"max_length": 14, "pad_to_max_length": True},
        *({"max_length": n, "truncation": True} for n in range(2, 9)), {"max_length": 6, "truncation": True, "padding_side": "left", "pad_to_max_length": True},
    ):  # fmt: skip
        yield (
            f"pairs {options}",
            lambda o=options: tokens_of(
                pairs.encode(["hello world", "b", "is it"], ["the weather", "c hello hello", "so is it"], **o)
            ),
        )
    for name, arguments in {"lists": ([["a", "b"], ["c", "d e"]],), "one first": (["a"], ["b", "c"]), "one second": (["a", "x"], ["b"]),
                            "other counts": (["a", "b", "c"], ["b", "c"]), "empty": (["a"], [""]), "single": (["a b"],)}.items():  # fmt: skip
        yield f"pairs {name}", lambda a=arguments: tokens_of(pairs.encode(*a))


def collect(genai: Any, ov: Any, folder: Path, only: str = "") -> dict[str, dict[str, Any]]:
    """The results by group: of all groups, or of one."""
    groups = {
        "configs": lambda: configs(genai),
        "tokenizers": lambda: tokenizers(genai, ov, folder),
        "templates": lambda: templates(genai, folder),
        "streams": lambda: streams(genai, folder),
        "pipelines": lambda: pipelines(genai, ov, folder, **EXACT),
        "speculation": lambda: speculation(genai, ov, folder),
        "parsers": lambda: parsers(genai, folder),
        "retrieval": lambda: retrieval(genai, ov, folder),
        "batches": lambda: batches(genai, ov, folder, **EXACT),
        "grammars": lambda: grammars(genai),
        "structured": lambda: structured(genai, ov, folder, **EXACT),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            group: {name: value_of(run) for name, run in items()}
            for group, items in groups.items()
            if only in ("", group)
        }


if __name__ == "__main__":
    import openvino
    import openvino_genai

    results = collect(openvino_genai, openvino, *map(Path, sys.argv[1:2]), *sys.argv[2:3])
    print(json.dumps(results, ensure_ascii=True, indent=0))
