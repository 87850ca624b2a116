"""Random programs of openvino_genai's pipelines, on ovjit.genai and on the real package.

    python -m tests.fuzz.fuzz_genai --write FOLDER
    python -m tests.fuzz.fuzz_genai FOLDER texts|batches|vision|whisper|retrieval|images FIRST COUNT

The first one writes small random models, by the real openvino. A seed is a program: a pipeline with random
settings, and some calls with random configurations, prompts and streamers. Each package runs in a process of
its own, which starts again where a program ends it. What differs is printed, and is to be judged:
docs/genai.md lists what differs on purpose. Not in the default suite.
"""

# the cases are a table, and calls run at once
# ruff: noqa: B023, E501
from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import genai_kinds
from tests.fuzz.genai_kinds import EXACT, draw

#: Seconds after which a program is ended: some do not end there.
LIMIT = 240
WORDS = (
    "the",
    "weather",
    "is",
    "not",
    "there",
    "hello",
    "world",
    "1 2 3",
    "naïve",
    "你好",
    "so?",
    "\n",
    "numbers:",
    "</s>",
    "it it it",
)
STOPS = ("a", "e", "th", "\n", "o w", "zz", "\ufffd", "is", "!", "0")
SETTINGS: dict[str, tuple[Any, ...]] = {
    "min_new_tokens": (1, 3, 6), "ignore_eos": (True, True, False), "logprobs": (1, 5), "repetition_penalty": (1.3, 0.7),
    "presence_penalty": (1.0, -1.5), "frequency_penalty": (0.5, -0.7), "apply_chat_template": (False,), "echo": (True,),
    "include_stop_str_in_output": (True,), "max_length": (7, 40, 300), "no_repeat_ngram_size": (1, 2, 3), "rng_seed": (3,),
}  # fmt: skip
CHOICES: dict[str, tuple[Any, ...]] = {
    "temperature": (0.3, 0.8, 1.7), "top_k": (1, 3, 40, 1000), "top_p": (0.3, 0.9), "min_p": (0.05, 0.3),
    "rng_seed": (0, 1, 7, 123456789), "num_return_sequences": (1, 2, 3),
}  # fmt: skip


def draw_config(rng: random.Random, is_drafted: str = "") -> dict[str, Any]:
    config = {"max_new_tokens": rng.choice((1, 2, 5, 9, 16)), **draw(rng, SETTINGS, 0.13)}
    mode = rng.random()
    if mode < 0.35:
        config |= {"do_sample": True, **draw(rng, CHOICES, 0.4)}
    elif mode < 0.55 and not is_drafted:
        groups = rng.choice((1, 1, 2))
        config |= {
            "num_beams": groups * rng.choice((1, 2, 3)),
            "length_penalty": rng.choice((1.0, 0.0, 2.0, -1.0)),
        }
        config["num_return_sequences"] = rng.randint(1, config["num_beams"])
        config |= {"num_beam_groups": 2, "diversity_penalty": rng.choice((0.5, 2.0))} if groups > 1 else {}
    if rng.random() < 0.25:
        config["stop_strings"] = set(rng.sample(STOPS, rng.randint(1, 3)))
    if rng.random() < 0.25:
        config["stop_token_ids"] = set(rng.sample(range(300), rng.choice((1, 8, 40))))
    if is_drafted:
        config["num_assistant_tokens"] = rng.choice((1, 3, 5))
        if is_drafted == "lookup":
            config["max_ngram_size"] = rng.choice((1, 2, 3))
        config.pop("logprobs", None)  # they count the tokens of drafts
    return config


#: Keywords of StructuredOutputConfig.
GRAMMARS: tuple[dict[str, Any], ...] = (
    {"regex": "[a-z]{2,5}( [0-9]+)?"}, {"regex": "(yes|no)"}, {"grammar": 'root ::= "is" [a-z]* "."'},
    {"json_schema": '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'},
    {"json_schema": '{"type": "array", "items": {"enum": ["x", "yes"]}, "maxItems": 3}'}, {"json_schema": '{"type": "string", "maxLength": 5}'},
    {"regex": "["}, {"json_schema": "{"}, {"regex": "a", "json_schema": '{"type": "null"}'},
)  # fmt: skip


def draw_text(rng: random.Random, most: int = 8) -> str:
    count = rng.choice((0, 1, 2, most, 5 * most)) if rng.random() < 0.3 else rng.randint(1, most)
    return " ".join(rng.choice(WORDS) for _ in range(count))


def show(value: Any) -> Any:
    """A result as JSON."""
    if hasattr(type(value), "__members__"):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [show(each) for each in value]
    if isinstance(value, dict):
        return {str(k): show(v) for k, v in value.items()}
    names = ("texts", "tokens", "scores", "finish_reasons", "m_generation_ids", "m_scores", "m_status", "m_request_id",
             "languages", "language", "chunks", "words", "text", "word", "start_ts", "end_ts", "token_ids",
             "parsed", "perf_metrics", "generated_ids", "generated_log_probs", "score", "finish_reason")  # fmt: skip
    if hasattr(value, "get_num_generated_tokens"):
        return show_figures(value)
    found = {name: show(getattr(value, name)) for name in names if hasattr(value, name)}
    return [type(value).__name__, found] if found else type(value).__name__


def sort_outputs(outputs: dict[int, Any]) -> Any:
    """Outputs of a handle, whose numbers differ on purpose."""
    return show(sorted(outputs.values(), key=lambda output: output.generated_ids))


def show_figures(metrics: Any) -> dict[str, Any]:
    raw = metrics.raw_metrics
    sizes = {name: len(getattr(raw, name)) for name in dir(raw) if not name.startswith("_")}
    for name in ("detokenization_durations", "sampling_durations"):
        del sizes[name]
    return {"in": metrics.get_num_input_tokens(), "out": metrics.get_num_generated_tokens(),
            "batches": list(raw.m_batch_sizes), **sizes}  # fmt: skip


def outcome(run: Callable[[], Any]) -> Any:
    try:
        return show(run())
    except Exception as error:
        return "error " + next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")


class Shown:
    """An object that is built for each call, and shown by its keywords."""

    def __init__(self, kind: Any, keywords: dict[str, Any]):
        self.kind, self.keywords = kind, keywords

    def __repr__(self) -> str:
        return str(self.keywords)


def build(keywords: dict[str, Any]) -> dict[str, Any]:
    return {
        name: each.kind(**each.keywords) if isinstance(each, Shown) else each
        for name, each in keywords.items()
    }


class Program:
    """One program: `lines` says what it did, `results` what came of it."""

    def __init__(self, genai: Any, ov: Any, folder: Path, seed: int):
        self.genai, self.ov, self.folder, self.rng = genai, ov, folder, random.Random(seed)
        self.lines: list[str] = []
        self.results: list[Any] = []

    def do(self, line: str, run: Callable[[], Any]) -> Any:
        self.lines.append(line)
        kept: list[Any] = []

        def keep() -> Any:
            kept.append(run())
            return kept[0]

        self.results.append(outcome(keep))
        return kept[0] if kept else None

    # -- parts

    def scheduler(self) -> tuple[str, Any]:
        rng, config = self.rng, self.genai.SchedulerConfig()
        values: dict[str, Any] = {"max_num_batched_tokens": rng.choice((256, 16, 7)), "max_num_seqs": rng.choice((256, 2)),
                  "enable_prefix_caching": rng.random() < 0.4}  # fmt: skip
        if rng.random() < 0.2:
            values["num_kv_blocks"] = rng.choice((8, 40))
        for name, value in values.items():
            setattr(config, name, value)
        return str(values), config

    def special_scheduler(self, kind: str) -> tuple[str, Any]:
        """Settings that change the texts of long prompts."""
        rng, genai, config = self.rng, self.genai, self.genai.SchedulerConfig()
        if kind == "sparse":
            config.use_sparse_attention = True
            values = rng.choice((1, 32, 64)), rng.choice((0, 32)), rng.choice((32, 64))
            config.sparse_attention_config = genai.SparseAttentionConfig(
                genai.SparseAttentionMode.TRISHAPE, num_last_dense_tokens_in_prefill=values[0],
                num_retained_start_tokens_in_cache=values[1], num_retained_recent_tokens_in_cache=values[2],
            )  # fmt: skip
            return str(values), config
        start, recent, most = rng.choice((32, 64)), rng.choice((32, 64)), rng.choice((160, 192))
        config.num_kv_blocks, config.use_cache_eviction = 100, True
        mode = rng.choice((genai.AggregationMode.SUM, genai.AggregationMode.NORM_SUM))
        config.cache_eviction_config = genai.CacheEvictionConfig(start, recent, most, mode)
        return str([start, recent, most, str(mode)]), config

    def stream(self, chunks: list[Any]) -> tuple[str, Any]:
        """A streamer that appends what it gets."""
        rng, genai = self.rng, self.genai
        kind = rng.choice(("none", "none", "function", "function", "text", "base"))
        if kind == "none":
            return kind, None
        if kind == "function":
            return kind, lambda text: chunks.append(text)
        if kind == "text":
            options = {"skip_special_tokens": False} if rng.random() < 0.5 else {}
            args = [options] if options else []
            return f"text {options}", genai.TextStreamer(
                self.pipe.get_tokenizer(), lambda text: chunks.append(text), *args
            )

        class Base(genai.StreamerBase):  # type: ignore[name-defined]
            def write(self, token: Any) -> Any:
                chunks.extend([token] if isinstance(token, int) else token)
                return genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        return kind, Base()

    def inputs(self, is_long: bool = False) -> tuple[str, Any]:
        rng, genai = self.rng, self.genai
        if is_long:
            ids = [rng.randrange(3, 300) for _ in range(rng.choice((150, 220, 300)))]
            return f"{len(ids)} tokens", self.ov.Tensor(np.array([ids], np.int64))
        kind = rng.choice(("str", "str", "str", "list", "history", "tensor", "encoded"))
        if kind == "str":
            text = draw_text(rng)
            return repr(text), text
        if kind == "list":
            texts = [draw_text(rng) for _ in range(rng.randint(1, 3))]
            return repr(texts), texts
        if kind == "history":
            messages = [
                {"role": rng.choice(("user", "assistant", "system", "user")), "content": draw_text(rng)}
                for _ in range(rng.randint(1, 3))
            ]
            messages.append({"role": "user", "content": draw_text(rng)})
            return f"history {messages}", genai.ChatHistory(messages)
        if kind == "tensor":
            ids = [rng.randrange(3, 300) for _ in range(rng.choice((1, 4, 40)))]
            return f"tensor {ids}", self.ov.Tensor(np.array([ids], np.int64))
        texts = [draw_text(rng)]
        return f"encoded {texts}", self.pipe.get_tokenizer().encode(texts)

    # -- programs

    def texts(self) -> None:
        rng, genai = self.rng, self.genai
        is_chat = False
        options: dict[str, Any] = {}
        words = rng.choice(("", "", "PA", "SDPA", "scheduler", "lookup", "sparse", "eviction", "draft"))
        if words in ("PA", "SDPA"):
            options["ATTENTION_BACKEND"] = words
        elif words == "scheduler":
            line, options["scheduler_config"] = self.scheduler()
            words += line
        elif words in ("sparse", "eviction"):
            line, options["scheduler_config"] = self.special_scheduler(words)
            words += line
        elif words == "draft":
            options["draft_model"] = genai.draft_model(
                self.folder / rng.choice(("llama", "draft")), "CPU", **EXACT
            )
        elif words == "lookup":
            options["prompt_lookup"] = True
        self.pipe = self.do(
            f"LLMPipeline {words}",
            lambda: genai.LLMPipeline(self.folder / "llama", "CPU", **options, **EXACT),
        )
        if self.pipe is None:
            return
        for _ in range(rng.randint(2, 6)):
            action = rng.random()
            if action < 0.08:
                is_chat = True
                self.do("start_chat", lambda: self.pipe.start_chat(*rng.choice(((), ("be kind",)))))
            elif action < 0.12:
                self.do("finish_chat", self.pipe.finish_chat)
            elif action < 0.18:
                keywords = draw_config(rng, words if words in ("lookup", "draft") else "")
                self.do(
                    f"set {keywords}",
                    lambda: self.pipe.set_generation_config(genai.GenerationConfig(**build(keywords))),
                )
            else:
                is_error = self.generate(words)
                if is_error and is_chat:  # the real package keeps the message
                    break

    def generate(self, words: str) -> bool:
        """One call. Whether it is an error."""
        rng, is_long = self.rng, words.startswith(("sparse", "eviction"))
        keywords, chunks = draw_config(rng, words if words in ("lookup", "draft") else ""), list[Any]()
        text, inputs = self.inputs(is_long)
        name, stream = self.stream(chunks)
        if (
            rng.random() < 0.15
            and keywords.get("num_return_sequences", 1) == 1
            and "num_beams" not in keywords
        ):
            grammar = rng.choice(GRAMMARS)
            keywords["structured_output_config"] = Shown(self.genai.StructuredOutputConfig, grammar)
        if words == "SDPA":  # an error there; texts of several lengths differ there
            keywords.pop("echo", None)
            inputs = inputs[:1] if isinstance(inputs, list) else inputs
        if rng.random() < 0.3 and stream is None:
            call = lambda: self.pipe.generate(inputs, self.genai.GenerationConfig(**build(keywords)))  # noqa: E731
        else:
            call = lambda: self.pipe.generate(inputs, streamer=stream, **build(keywords))  # noqa: E731
        result = self.do(f"generate {text} {keywords} stream {name}", call)
        self.do("chunks", lambda: chunks)
        return result is None

    def batches(self) -> None:
        rng, genai = self.rng, self.genai
        line, scheduler = self.scheduler()
        self.pipe = self.do(
            f"CB {line}",
            lambda: genai.ContinuousBatchingPipeline(self.folder / "llama", scheduler, "CPU", EXACT),
        )
        if self.pipe is None:
            return
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.5:
                self.generate_batch()
            else:
                self.step_requests()

    def generate_batch(self) -> None:
        rng, genai = self.rng, self.genai
        count, chunks = rng.choice((1, 1, 2, 5)), list[Any]()
        kind = rng.choice(("text", "text", "history", "tensor"))
        prompts: list[Any] = []
        for _ in range(count):
            text = draw_text(rng)
            if kind == "history":
                prompts.append(genai.ChatHistory([{"role": "user", "content": text}]))
            elif kind == "tensor":
                prompts.append(
                    self.ov.Tensor(
                        np.array([[rng.randrange(3, 300) for _ in range(rng.choice((1, 4, 40)))]], np.int64)
                    )
                )
            else:
                prompts.append(text)
            self.lines.append(f"  prompt {kind} {text!r}")
            self.results.append(None)
        keywords = [draw_config(rng) for _ in range(count)]
        name, stream = self.stream(chunks) if count == 1 else ("none", None)
        self.do(f"generate {keywords} {name}",
                lambda: self.pipe.generate(prompts, [genai.GenerationConfig(**each) for each in keywords], *([stream] if stream else [])))  # fmt: skip
        self.do("chunks", lambda: chunks)

    def step_requests(self) -> None:
        rng, genai = self.rng, self.genai
        handles: dict[int, Any] = {}
        reads: dict[int, list[Any]] = {}
        waiting = rng.randint(1, 5)
        for step in range(60):
            if waiting and (step == 0 or rng.random() < 0.5):
                waiting -= 1
                keywords, number = draw_config(rng), len(handles)
                prompt: Any = draw_text(rng) if rng.random() < 0.5 else self.ov.Tensor(
                    np.array([[rng.randrange(3, 300) for _ in range(rng.choice((1, 4, 40)))]], np.int64))  # fmt: skip
                handle = self.do(f"{step} add {prompt!r} {keywords}",
                                 lambda: self.pipe.add_request(number, prompt, genai.GenerationConfig(**keywords)))  # fmt: skip
                self.results[-1] = self.results[-1] if handle is None else "handle"
                if handle is not None:
                    handles[number], reads[number] = handle, []
            self.do(f"{step} more", self.pipe.has_non_finished_requests)
            if not self.pipe.has_non_finished_requests():
                if not waiting:
                    break
                continue
            self.do(f"{step} step", self.pipe.step)
            for number, handle in handles.items():
                if rng.random() < 0.5 and handle.can_read():
                    reads[number].append(sort_outputs(handle.read()))
        for number, handle in handles.items():
            self.do(f"handle {number}", lambda: [handle.get_status(), handle.can_read()])
            if handle.can_read() and not reads[number]:
                self.do(
                    "read_all",
                    lambda: show(sorted(handle.read_all(), key=lambda output: output.generated_ids)),
                )
            self.do("reads", lambda: reads[number])


PROGRAMS: dict[str, Callable[[Program], None]] = {
    "texts": Program.texts, "batches": Program.batches, "vision": genai_kinds.run_vision, "whisper": genai_kinds.run_whisper,
    "retrieval": genai_kinds.run_retrieval, "images": genai_kinds.run_images,
}  # fmt: skip


def serve(name: str, folder: Path, kind: str) -> None:
    """Run the programs of a kind whose seeds come from the standard input."""
    if name == "ovjit":
        import ovjit.as_openvino  # noqa: F401
    import openvino
    import openvino_genai

    for line in sys.stdin:
        program = Program(openvino_genai, openvino, folder, int(line))
        PROGRAMS[kind](program)
        print("\n@@" + json.dumps({"lines": program.lines, "results": program.results}), flush=True)


class Child:
    """A package in a process of its own."""

    def __init__(self, name: str, folder: Path, kind: str):
        module = ["-W", "ignore", "-m", "tests.fuzz.fuzz_genai"]
        self.command = [sys.executable, *module, "--serve", name, str(folder), kind]
        self.process: subprocess.Popen[str] | None = None

    def send(self, seed: int) -> None:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """What came of the program; None where it ended the process."""
        assert self.process is not None and self.process.stdout is not None
        alarm = threading.Timer(LIMIT, self.process.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                if line.startswith("@@"):
                    answer: dict[str, Any] = json.loads(line[2:])
                    return answer
        finally:
            alarm.cancel()
        self.process.wait()
        return None


def is_near(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-3 * max(1, abs(one))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_near, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_near(one[k], other[k]) for k in one)
    return bool(one == other)


def compare(folder: Path, kind: str, seeds: range) -> int:
    """Print what differs. Returns the number of programs that differ."""
    children, count = [Child(name, folder, kind) for name in ("real", "ovjit")], 0
    for seed in seeds:
        for child in children:
            child.send(seed)
        real, ours = (child.receive() for child in children)
        if real is None or ours is None:
            print(
                f"== {seed}: ended the process: {'real' * (real is None)} {'ovjit' * (ours is None)}",
                flush=True,
            )
            continue
        differing = [
            i
            for i, pair in enumerate(zip(real["results"], ours["results"], strict=False))
            if not is_near(*pair)
        ]
        if differing or len(real["results"]) != len(ours["results"]):
            count += 1
            print(f"== {seed}: {real['lines'][0]}")
            for i in differing[:3]:
                if i < min(len(real["lines"]), len(ours["lines"])):
                    print(f"  [{i}] {ours['lines'][i]}\n    before: {ours['lines'][max(i - 1, 0)][:150]}")
                    print(f"    real {real['results'][i]}\n    ours {ours['results'][i]}", flush=True)
    print(f"{count} of {len(seeds)} programs differ")
    return count


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    elif sys.argv[1] == "--write":
        import openvino

        genai_kinds.write_folders(openvino, Path(sys.argv[2]))
    else:
        compare(Path(sys.argv[1]), sys.argv[2], range(int(sys.argv[3]), int(sys.argv[3]) + int(sys.argv[4])))
