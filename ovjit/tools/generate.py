"""`ovjit generate`: text from a decoder with state, as it comes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from ovjit.tools.files import parse_config
from ovjit.tools.terminal import FAULTS, reporting, stages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovjit generate",
        description="Text from a language model: a GGUF file, or a folder with IR and tokenizer.json.",
    )
    add = parser.add_argument
    add("model", help="a .gguf file, or a folder with the model and its tokenizer.json")
    add("-p", "--prompt", help="the text to go on with; - reads it from standard input")
    add("--prompt_file", type=Path, help="a file with the prompt")
    add("--chat", action="store_true", help="put the prompt into the model's chat template")
    add("-n", "--max_new_tokens", type=int, default=128, help="tokens at most (default: 128)")
    add("--temperature", type=float, default=0.0, help="0 (the default): the likeliest token each time")
    add("--top_k", type=int, default=0, help="choose among so many tokens; 0: all")
    add("--top_p", type=float, default=1.0, help="choose among the likeliest tokens of this probability")
    add("--min_p", type=float, default=0.0, help="drop tokens below this part of the greatest probability")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: what the text has is less likely")
    add("--seed", type=int, help="of the random numbers")
    add("--ignore_eos", action="store_true", help="do not stop at the end of an answer")
    add("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated")
    add("--tokenizer", type=Path, help="a folder with tokenizer.json; default: the model's")
    add("--assistant", help="a smaller model with the same tokens that drafts")
    add("--draft_tokens", type=int, default=5, help="tokens that the assistant drafts at a time")
    add("--prompt_lookup", type=int, default=0, metavar="COUNT", help="draft what the text has had before")
    add("-d", "--device", default="CPU")
    add("-c", "--config", action="append", default=[], metavar="KEY=VALUE", help="as of compile_model")
    add("--quiet", action="store_true", help="no times on standard error")
    return parser


@reporting(*FAULTS, TypeError, KeyError)
def main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit generate`. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args([_with_underscores(word) for word in arguments])
    return _generate(options, _prompt(options))


def _with_underscores(word: str) -> str:
    """`--max-new-tokens` is `--max_new_tokens`, too."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _prompt(options: argparse.Namespace) -> str:
    prompts = [x for x in (options.prompt, options.prompt_file) if x is not None]
    if len(prompts) != 1:
        raise ValueError("give the prompt: --prompt TEXT, --prompt - (standard input) or --prompt_file FILE")
    if options.prompt_file is not None:
        text: str = options.prompt_file.read_text(encoding="utf-8")
        return text
    return sys.stdin.read() if options.prompt == "-" else options.prompt


@contextmanager
def _loading() -> Iterator[Callable[[str], None]]:
    """A progress bar for loading a model. The yielded function begins a stage. Packing weights and compiling
    kernels are stages of their own."""
    from ovjit.codegen import compiling
    from ovjit.planning import constants

    with stages() as tell:
        kernels = compiling.progress(lambda p: tell("compiling kernels", p.done, p.total))
        packed = constants.tell_written(lambda done, total: tell("packing weights", done, total))
        try:
            yield lambda what: tell(what, 0, 1)
        finally:
            compiling.progress(kernels)
            constants.tell_written(packed)


def _generate(options: argparse.Namespace, prompt: str) -> int:
    from ovjit.generation import Assistant, Decoder, Lookup, Settings, Tokenizer, generate
    from ovjit.generation.decoder import model_file
    from ovjit.generation.speculative import Draft
    from ovjit.generation.tokenizer import until

    o = options
    if o.max_new_tokens < 1:
        raise ValueError(f"--max_new_tokens is {o.max_new_tokens}; it should be at least 1")
    settings = Settings(
        o.max_new_tokens, o.temperature, o.top_k, o.top_p, o.seed, min_p=o.min_p, penalty=o.repetition_penalty
    )
    settings.check()
    if options.assistant and options.prompt_lookup:
        raise ValueError("--assistant and --prompt_lookup are alternatives: give one of them")
    config = parse_config(options.config)
    draft: Draft | None = Lookup(options.prompt_lookup) if options.prompt_lookup else None
    begun = time.perf_counter()
    with _loading() as stage:
        stage("reading the tokenizer")
        tokenizer = Tokenizer.of(options.tokenizer or model_file(options.model))
        tokens = tokenizer.chat(prompt) if options.chat else tokenizer.encode(prompt)
        stage(f"loading {options.model}")
        decoder = Decoder.load(options.model, options.device, config)
        if options.assistant:
            stage(f"loading {options.assistant}")
            draft = Assistant(Decoder.load(options.assistant, options.device, config), options.draft_tokens)
    loaded = time.perf_counter()
    ends = frozenset() if options.ignore_eos else tokenizer.ends
    total = len(tokens) + o.max_new_tokens
    if 0 < tokenizer.context < total and not options.quiet:
        print(f"ovjit: {len(tokens)} tokens and {o.max_new_tokens} new tokens exceed the model's "
              f"context of {tokenizer.context}", file=sys.stderr)  # fmt: skip
    result = _Timed(generate(decoder, tokens, settings._replace(ends=ends), draft))
    try:
        before = () if o.chat else tokens  # an answer begins a text of its own
        _print(until(tokenizer.stream(iter(result), before), o.stop))
    finally:
        if not options.quiet:
            print(result.summary(len(tokens), loaded - begun, loaded), file=sys.stderr)
    return 0


def _print(texts: Iterator[str]) -> None:
    """Texts as they come, and the end of the line, which a reader that is interrupted sees, too."""
    if isinstance(sys.stdout, TextIOWrapper):  # of what a terminal cannot show there are marks
        sys.stdout.reconfigure(errors="replace")
    try:
        for text in texts:
            print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except BaseException:
        print(flush=True)
        raise
    print(flush=True)


class _Timed:
    """Tokens, and when they came."""

    def __init__(self, tokens: Iterator[int]):
        self._tokens = tokens
        self.times: list[float] = []

    def __iter__(self) -> Iterator[int]:
        for token in self._tokens:
            self.times.append(time.perf_counter())
            yield token

    def summary(self, prompt: int, loading: float, begin: float) -> str:
        parts = [f"loaded in {loading:.2f} s", f"prompt of {prompt} tokens"]
        if self.times:
            parts.append(f"first token after {self.times[0] - begin:.3f} s")
        if len(self.times) > 1:
            rate = (len(self.times) - 1) / max(self.times[-1] - self.times[0], 1e-9)
            parts.append(f"{len(self.times)} tokens, {rate:.1f} tokens/s")
        return ", ".join(parts)
