"""Structured output of ovjit.genai beside results of openvino_genai, which `tests.support.genai_cases` has
written. Masks need `pip install --no-deps xgrammar==0.1.31`, which a test of the marker pypi does."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_cases as cases
from tests.support.genai_grammars import grammars, structured
from tests.support.run import ROOT, command

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai import grammar_library, grammar_masks

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
RELEASE = "" if importlib.util.find_spec("xgrammar") is None else importlib.metadata.version("xgrammar")
needs_xgrammar = pytest.mark.skipif(not RELEASE, reason="xgrammar is missing")
needs_release = pytest.mark.skipif(
    RELEASE != grammar_library.RELEASE, reason=f"needs xgrammar {grammar_library.RELEASE}"
)
pytestmark = pytest.mark.filterwarnings("ignore:structured output by xgrammar:RuntimeWarning")
Config = genai.StructuredOutputConfig

#: Cases whose values differ on purpose: no token is allowed, where the real package generates any tokens; and
#: min_new_tokens behind a grammar's end.
DIFFERENT = {
    "grammar root ::= root": "error: RuntimeError",
    "stateful {'min_new_tokens': 4}": None,
    "paged {'min_new_tokens': 4}": None,
}


def compare(group: str, programs: Any) -> None:
    results = {name: cases.value_of(run) for name, run in programs}
    assert list(results) == list(EXPECTED[group])
    wrong = {n: (v, EXPECTED[group][n]) for n, v in results.items() if not is_same(v, EXPECTED[group][n])}
    assert wrong.keys() - DIFFERENT.keys() == set(), wrong
    assert all(results[name] == value for name, value in DIFFERENT.items() if value and name in results)


def is_same(value: Any, expected: Any) -> bool:
    """Whether JSON values are equal; fractions, which are rounded to three digits, but for the last one."""
    if isinstance(value, float) and isinstance(expected, float):
        return abs(value - expected) < 1.5e-3
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(is_same, value, expected))
    return type(value) is type(expected) and value == expected


def test_classes_are_those_of_the_real_package() -> None:
    compare("grammars", grammars(genai))


@needs_release
def test_answers_are_those_of_the_real_package(folder: Path) -> None:
    compare("structured", structured(genai, ov, folder, **cases.EXACT))


@needs_xgrammar
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 4},
        {"min_new_tokens": 9},
    ],
)
@pytest.mark.parametrize("pattern", ["[a-c]{2}x", "<a>"])
def test_all_sequences_obey_the_grammar(folder: Path, options: dict[str, Any], pattern: str) -> None:
    """Where the real package does not apply it."""
    config = genai.GenerationConfig(
        structured_output_config=Config(regex=pattern), max_new_tokens=9, **options
    )
    results = genai.LLMPipeline(folder, "CPU").generate(["hello"], config)
    assert results.texts and all(re.fullmatch(pattern, each) for each in results.texts), results.texts
    batches = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU")
    assert sorted(batches.generate(["hello"], [config])[0].m_generation_ids) == sorted(results.texts)


@needs_xgrammar
@pytest.mark.parametrize("is_lookup", [False, True])
def test_drafts_in_common_batches_obey_the_grammar(folder: Path, is_lookup: bool) -> None:
    """Proposals that the grammar does not allow are rejected, and leave its state as it is."""
    properties = {"prompt_lookup": True} if is_lookup else {"draft_model": genai.draft_model(folder, "CPU")}
    batches = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU", properties)
    single, prompts = genai.LLMPipeline(folder, "CPU"), ["hello", "ab ab", "xyx"]
    configs = [
        genai.GenerationConfig(
            structured_output_config=Config(regex=pattern), max_new_tokens=12, do_sample=seed > 0,
            rng_seed=seed, num_assistant_tokens=3, max_ngram_size=2 * is_lookup,
        )
        for seed, pattern in enumerate(["(ab){4}x", "[a-c]{5}x", "[xy]{3}(ab){3}"])
    ]  # fmt: skip
    texts = [result.m_generation_ids[0] for result in batches.generate(prompts, configs)]
    assert texts == [single.generate(*pair) for pair in zip(prompts, configs, strict=True)]
    assert all(re.fullmatch(c.structured_output_config.regex, t) for c, t in zip(configs, texts, strict=True))
    assert batches._proposals.metrics.get_num_rejected_tokens() > 0


@needs_xgrammar
def test_a_grammar_that_is_not_valid_leaves_the_pipeline_usable(folder: Path) -> None:
    batches = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU")
    wrong, right = (
        genai.GenerationConfig(structured_output_config=Config(regex=x), max_new_tokens=9)
        for x in ("(", "ab")
    )
    for call in (
        lambda: batches.add_request(0, "hello", wrong),
        lambda: batches.generate(["hello"], [wrong]),
    ):
        with pytest.raises(
            OvjitError,
            match=r"^structured_output_config: Failed to create grammar: Regex parsing error at position 2: ",
        ):
            call()
    assert batches.generate(["hello"], [right])[0].m_generation_ids == ["ab"]


@needs_xgrammar
def test_masks_of_bytes_and_of_padded_logits() -> None:
    """Tokens with a zero, a part of a character, and logits for more tokens than the vocabulary has."""
    words = [b"a", b"\x00", b"\xc3", b"\xa9", b"x\x00y", b"", b"</s>"]
    compiler = grammar_masks.GrammarCompiler(words, 6)

    def allowed(matcher: Any) -> list[int]:
        logits = np.zeros(40, np.float32)
        matcher.mask(logits)
        return np.flatnonzero(logits == 0).tolist()

    matcher = compiler.start(Config(regex="[^a]{2,}"), [6])
    assert allowed(matcher) == [1, 2, 4]
    matcher.advance(2)
    assert allowed(matcher) == [3]
    with pytest.raises(OvjitError, match="does not allow the token 0"):
        matcher.advance(0)
    matcher.advance(3)
    other = matcher.fork()
    matcher.advance(1)
    assert allowed(matcher) == [1, 2, 4, 6]
    assert allowed(other) == [1, 2, 4]
    matcher.advance(6)
    assert allowed(matcher) == list(range(40))  # the grammar has ended
    matcher = compiler.start(Config(regex="b"), [6])
    with pytest.raises(OvjitError, match="the vocabulary has no token that the grammar allows here"):
        allowed(matcher)
    with pytest.raises(OvjitError, match="set eos_token_id"):
        compiler.start(Config(regex="a"), [])
    with pytest.raises(OvjitError, match="needs the vocabulary of a detokenizer"):
        grammar_masks.GrammarCompiler([], 6)


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = genai.LLMPipeline(folder, "CPU")
    monkeypatch.setattr(grammar_library.importlib.util, "find_spec", lambda name: None)
    grammar_library._load.cache_clear()
    with pytest.raises(OvjitError, match=r"pip install --no-deps xgrammar==0\.1\.31"):
        pipeline.generate("hello", max_new_tokens=4, structured_output_config=Config(regex="ab"))


@pytest.mark.skipif(RELEASE in ("", grammar_library.RELEASE), reason="needs another release of xgrammar")
def test_another_release_is_named_once_and_its_answers_obey(folder: Path) -> None:
    pipeline = genai.LLMPipeline(folder, "CPU")
    schema = '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}'
    tags = Config.ConstString("a") + (Config.Regex("[0-9]{2}") | Config.EBNF('root ::= "x" "y"'))
    grammar_library._load.cache_clear()
    with pytest.warns(RuntimeWarning, match=f"xgrammar {RELEASE}: openvino_genai has 0.1.31") as caught:
        texts = [
            pipeline.generate("hello", max_new_tokens=60, structured_output_config=Config(**field))
            for field in (
                {"json_schema": schema},
                {"grammar": 'root ::= "b" [cd]+ "e"'},
                {"structural_tags_config": tags},
            )
        ]
    assert len(caught) == 1
    assert re.match(r"\{\s*\"a\"", texts[0]) and re.match("b[cd]", texts[1])
    assert re.fullmatch("a([0-9]{2}|xy)", texts[2])


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_with_the_library_of_pypi(tmp_path: Path) -> None:
    library = tmp_path / "site"
    installed = command(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", library, "xgrammar==0.1.31"
    )
    assert installed.returncode == 0, installed.stderr[-2000:]
    tests = command(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-m",
        "not pypi",
        "-k",
        f"not {test_another_release_is_named_once_and_its_answers_obey.__name__}",
        __file__,
        PYTHONPATH=f"{library}:{ROOT}",
    )
    assert tests.returncode == 0 and "skipped" not in tests.stdout, tests.stdout[-2000:]
