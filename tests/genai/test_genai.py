"""ovjit.genai beside results of the real openvino_genai, which `tests.support.genai_cases` has written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_cases as cases
from tests.support.genai_cases import is_same
from tests.support.genai_folder import write_encoder

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.engine import MAX_TOKENS, group_prompts

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return genai.LLMPipeline(folder, "CPU")


@pytest.fixture(autouse=True)
def _without_deprecations() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.parametrize(
    "group",
    [
        "configs",
        "tokenizers",
        "templates",
        "streams",
        "pipelines",
        "retrieval",
        "batches",
        "speculation",
        "parsers",
    ],
)
def test_results_are_those_of_the_real_package(group: str, folder: Path) -> None:
    programs = {
        "configs": lambda: cases.configs(genai),
        "tokenizers": lambda: cases.tokenizers(genai, ov, folder),
        "templates": lambda: cases.templates(genai, folder),
        "streams": lambda: cases.streams(genai, folder),
        "pipelines": lambda: cases.pipelines(genai, ov, folder),
        "speculation": lambda: cases.speculation(genai, ov, folder),
        "parsers": lambda: cases.parsers(genai, folder),
        "retrieval": lambda: cases.retrieval(genai, ov, folder),
        "batches": lambda: cases.batches(genai, ov, folder, **cases.EXACT),
    }[group]()
    results = {name: cases.value_of(run) for name, run in programs}
    assert list(results) == list(EXPECTED[group])
    wrong = {n: (v, EXPECTED[group][n]) for n, v in results.items() if not is_same(v, EXPECTED[group][n])}
    assert not wrong


class Kept(genai.StreamerBase):
    """A streamer that keeps what it gets, and answers with `status`."""

    def __init__(self, status: Any = None):
        super().__init__()
        self.items: list[Any] = []
        self.status = status

    def write(self, token: Any) -> Any:
        self.items.append(token)
        return self.status

    def end(self) -> None:
        self.items.append("end")


def test_streamers_get_lists_of_tokens(pipeline: Any) -> None:
    tokens = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
    streamer = Kept()
    results = pipeline.generate(tokens, streamer=streamer, max_new_tokens=5, ignore_eos=True)
    assert streamer.items == [*([token] for token in results.tokens[0]), "end"]
    streamer = Kept()
    pipeline.generate(tokens, streamer=streamer, max_new_tokens=2, echo=True, ignore_eos=True)
    assert streamer.items == [[1, 260, 270, 20, results.tokens[0][0]], [results.tokens[0][1]], "end"]
    streamer = Kept()
    pipeline.generate(tokens, streamer=streamer, max_new_tokens=5, ignore_eos=True, stop_strings={"zz"})
    first, second, *others = results.tokens[0]
    assert streamer.items == [[first], [second], others, "end"]


@pytest.mark.parametrize(
    "status, reason", [("STOP", "STOP"), ("CANCEL", "NONE"), ("TOOL_CALL_STOP", "TOOL_CALL")]
)
def test_a_streamer_ends_the_generation(pipeline: Any, status: str, reason: str) -> None:
    streamer = Kept(getattr(genai.StreamingStatus, status))
    results = pipeline.generate(["hello"], streamer=streamer, max_new_tokens=9, ignore_eos=True)
    assert (len(streamer.items), results.finish_reasons[0].name) == (2, reason)
    assert results.perf_metrics.get_num_generated_tokens() == 1


def test_an_error_of_a_streamer_is_raised(pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Kept):
        def write(self, token: Any) -> Any:
            raise ZeroDivisionError("of the streamer")

    with pytest.raises(ZeroDivisionError, match="of the streamer"):
        pipeline.generate("hello", streamer=Broken(), max_new_tokens=4)
    with pytest.raises(OvjitError, match="StreamerBase should have a method write"):
        pipeline.generate("hello", streamer=genai.StreamerBase(), max_new_tokens=4)
    with pytest.raises(TypeError, match="StreamingStatus, a bool, an int or None, not str"):
        pipeline.generate("hello", streamer=lambda text: "stop", max_new_tokens=6)
    # one of a plain function is printed, and generation goes on
    whole_text = pipeline.generate("hello", max_new_tokens=6)
    assert pipeline.generate("hello", streamer=lambda text: 1 / 0, max_new_tokens=6) == whole_text
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_cancelled_answer_is_no_part_of_a_chat(pipeline: Any) -> None:
    def chat(*statuses: Any) -> Any:
        pipeline.start_chat()
        for status in statuses:
            pipeline.generate("hi", max_new_tokens=6, ignore_eos=True, streamer=lambda text, s=status: s)
        answer = pipeline.generate("is it so? 1 2 3", max_new_tokens=8)
        pipeline.finish_chat()
        return answer

    cancel = genai.StreamingStatus.CANCEL
    assert chat(cancel) == chat()
    with pytest.raises(OvjitError, match="one prompt at a time"):
        pipeline.start_chat()
        try:
            pipeline.generate(["a", "b"], max_new_tokens=2)
        finally:
            pipeline.finish_chat()


def test_a_chat_reads_new_tokens_only(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pipeline._engine
    counts: list[int] = []
    infer = engine._infer

    def count(ids: np.ndarray, parents: np.ndarray) -> np.ndarray:
        counts.append(ids.size)
        return infer(ids, parents)

    monkeypatch.setattr(engine, "_infer", count)
    prompt = list(range(3, 23))
    first = engine.start(prompt)
    engine.step([0], [30])
    extended = engine.start([*prompt, 30, 31, 32])
    assert counts == [20, 1, 2]
    np.testing.assert_array_equal(engine.start(prompt), first)
    fresh = engine.start([*prompt, 30, 31, 32, 33]), engine.start([*prompt, 30, 31, 32])
    assert counts[3:] == [20, 4, 23]
    np.testing.assert_allclose(extended, fresh[1], rtol=1e-4, atol=1e-4)
    # several rows are never continued by another prompt
    engine.step([0, 0], [5, 6])
    engine.start([*prompt, 30, 31, 32, 5, 7])
    assert counts[-1] == 25


def test_ends_of_prompts_that_begin_alike_are_read(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, counts = pipeline._engine, list[int]()
    infer = engine._infer

    def count(ids: np.ndarray, parents: np.ndarray) -> np.ndarray:
        counts.append(ids.size)
        return infer(ids, parents)

    monkeypatch.setattr(engine, "_infer", count)
    shared = [3 + 7 * i % 200 for i in range(50)]
    engine.start([*shared, 7, 8])
    engine.step([0], [30])
    other = engine.start([*shared, 9])
    shorter = engine.start(shared[:40])
    assert counts == [52, 1, 1, 1]
    for prompt, expected in (shared[:40], shorter), ([*shared, 9], other):
        engine.forget()
        np.testing.assert_allclose(engine.start(prompt), expected, rtol=1e-4, atol=1e-4)
    engine.start([*shared[:31], 11, 12])  # so few tokens are read again
    assert counts[4:] == [40, 51, 33]


def test_begins_of_all_earlier_prompts_are_stored(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, counts = pipeline._engine, list[int]()
    infer = engine._infer

    def count(ids: np.ndarray, parents: np.ndarray) -> np.ndarray:
        counts.append(ids.shape[1])
        return infer(ids, parents)

    monkeypatch.setattr(engine, "_infer", count)
    engine.forget()
    prompts = [[3 + (7 + k) * i % 200 for i in range(70)] for k in range(4)]
    firsts = [np.array(engine.start(prompt)) for prompt in prompts]
    counts.clear()
    for prompt, first in zip(prompts, firsts, strict=True):
        np.testing.assert_allclose(engine.start(prompt), first, rtol=1e-4, atol=1e-4)
    engine.start_rows([prompts[0], prompts[1][:9]])
    engine.start(prompts[3])  # which was in the state when there were two rows
    assert counts == [6, 6, 6, 6, 70, 6]
    engine.step([0, 0], [5, 6])  # so it is stored when it forks
    engine.start([*prompts[3][:64], 4, 5])
    assert counts[6:] == [1, 2]
    # a continued prompt is continued where it ends, not where its last block does
    engine.step([0], [9])
    engine.start([*prompts[3][:64], 4, 5, 9, 11, 12])
    assert counts[8:] == [1, 2]
    monkeypatch.setattr("ovjit.genai.prefixes.BLOCKS", 3)
    engine.start(prompts[2])
    counts.clear()
    for prompt in prompts[3], prompts[0], prompts[2]:  # of which the last has one block left
        engine.start(prompt)
    assert counts == [6, 70, 38] and len(engine._prefixes._blocks) == 3


def test_a_chat_always_has_its_template(folder: Path, pipeline: Any) -> None:
    expected = pipeline.generate("hi", max_new_tokens=5)
    pipeline.start_chat()
    assert pipeline.generate("hi", max_new_tokens=5, apply_chat_template=False) == expected
    pipeline.finish_chat()
    tokenizer = genai.Tokenizer(folder)
    tokenizer.set_chat_template("")
    bare = genai.LLMPipeline(folder, tokenizer, "CPU")
    bare.start_chat()
    with pytest.raises(OvjitError, match="no chat template"):
        bare.generate("hi", max_new_tokens=5)


def test_an_echo_alone_is_streamed(pipeline: Any) -> None:
    streamer = Kept()
    tokens = ov.Tensor(np.array([[1, 260]], np.int64))
    results = pipeline.generate(tokens, streamer=streamer, max_new_tokens=0, echo=True)
    assert (streamer.items, results.tokens) == ([[1, 260], "end"], [[1, 260]])


def test_special_tokens_belong_to_the_text_before_them(pipeline: Any) -> None:
    """As in openvino_genai: parsers that look for the token of a tag find it there."""
    pieces = []

    class Recorder(genai.IncrementalParser):
        def parse(self, delta_message: Any, delta_text: str, delta_tokens: Any = None) -> str:
            pieces.append((delta_text, delta_tokens))
            return delta_text

    class Silent(genai.TextParserStreamer):
        def write(self, message: Any) -> Any:
            return genai.StreamingStatus.RUNNING

    tokenizer = pipeline.get_tokenizer()
    words = [np.array(tokenizer.encode(w, add_special_tokens=False).input_ids.data)[0, -1] for w in "abcdef"]
    streamer, special = Silent(tokenizer, [Recorder()]), tokenizer.get_eos_token_id()
    assert tokenizer.decode([words[0], special]) == tokenizer.decode([words[0]])
    for token in (words[0], special, *words[1:]):
        streamer._write([int(token)])
    assert pieces[0] == ("a", [words[0], special]), pieces
    assert pieces[1] == ("b", [words[1]])


@pytest.mark.parametrize("count", [1, 3])
def test_parsers_get_the_tokens_of_each_piece_once(count: int, pipeline: Any) -> None:
    tokenizer = pipeline.get_tokenizer()
    tokens = tokenizer.encode("the weather is not there,\nhello world 你好").input_ids.data[0].tolist()
    pieces: list[tuple[str, list[int]]] = []

    class Keeps(genai.IncrementalParser):
        def parse(self, delta_message: Any, delta_text: str, delta_tokens: Any = None) -> str:
            pieces.append((delta_text, delta_tokens))
            return delta_text

    class Runs(genai.TextParserStreamer):
        def write(self, message: Any) -> Any:
            return genai.StreamingStatus.RUNNING

    streamer = Runs(tokenizer, [Keeps()])
    for first in range(0, len(tokens), count):
        streamer._write(tokens[first : first + count])
    streamer.end()
    assert len(pieces) > 3
    assert [token for _, some in pieces for token in some] == tokens
    assert [tokenizer.decode(some) for _, some in pieces if "你" not in _] == [
        text for text, _ in pieces if "你" not in text
    ]
    streamer._write("of no tokens")
    assert pieces[-1] == ("of no tokens", [])


def test_a_failed_question_is_no_part_of_a_chat(pipeline: Any) -> None:
    pipeline.start_chat()
    with pytest.raises(RuntimeError, match="max_length"):
        pipeline.generate("hello", max_length=2)

    class Broken(genai.Parser):
        def parse(self, message: Any) -> Any:
            raise ZeroDivisionError("of the parser")

    with pytest.raises(ZeroDivisionError, match="of the parser"):
        pipeline.generate("hello", max_new_tokens=6, parsers=[Broken()])
    answer = pipeline.generate("is it so?", max_new_tokens=6)
    pipeline.finish_chat()
    assert answer == pipeline.generate("is it so?", max_new_tokens=6)


def test_calls_of_threads_take_turns(pipeline: Any) -> None:
    texts = ["hello", "is it so?", "1 2 3", "the weather"]
    expected = [pipeline.generate(text, max_new_tokens=8) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: pipeline.generate(text, max_new_tokens=8), texts)) == expected
    within = Kept()
    within.write = lambda token: pipeline.generate("x", max_new_tokens=1)  # type: ignore[method-assign]
    with pytest.raises(OvjitError, match="cannot call generate"):
        pipeline.generate("hello", streamer=within, max_new_tokens=3)
    assert pipeline.generate("hello", max_new_tokens=8) == expected[0]


def test_figures_of_several_sequences(pipeline: Any) -> None:
    metrics = pipeline.generate(["hello"], num_beams=3, max_new_tokens=5).perf_metrics
    raw = metrics.raw_metrics
    assert [len(raw.m_durations), len(raw.token_infer_durations), raw.m_batch_sizes] == [4, 5, [1] * 5]
    assert metrics.get_num_generated_tokens() == 5
    options = {"do_sample": True, "num_return_sequences": 3, "ignore_eos": True}
    several = pipeline.generate(["hello"], max_new_tokens=5, **options).perf_metrics
    assert (several.raw_metrics.m_batch_sizes, several.get_num_generated_tokens()) == ([1, 3, 3, 3, 3], 13)
    assert metrics.get_ttft().mean > 0 and metrics.get_throughput().mean > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "ignore_eos": False},
        {"do_sample": True, "num_return_sequences": 2, "rng_seed": 4},
        {"echo": True, "max_new_tokens": 0},
    ],
)
@pytest.mark.parametrize("longest", [20, 300])
def test_prompts_of_a_list_run_together(
    pipeline: Any, options: dict[str, Any], longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of one inference with padding, and of several inferences whose states are joined."""
    rng = np.random.default_rng([9, longest])
    prompts = [rng.integers(3, 300, int(count)) for count in rng.integers(1, longest, 5)]
    ids = np.zeros((len(prompts), longest), np.int64)
    mask = np.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :], mask[i, longest - len(prompt) :] = prompt, 1
    config = genai.GenerationConfig(**{"max_new_tokens": 8, "ignore_eos": True, **options})
    expected = [tokens for prompt in prompts
                for tokens in pipeline.generate(ov.Tensor(prompt[None]), config).tokens]  # fmt: skip
    rows = list[int]()
    infer = pipeline._engine._infer

    def count(values: np.ndarray, parents: np.ndarray) -> np.ndarray:
        rows.append(len(values))
        return infer(values, parents)

    monkeypatch.setattr(pipeline._engine, "_infer", count)
    results = pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(mask)), config)
    assert results.tokens == expected
    if config.max_new_tokens:
        groups = 1 if longest == 20 else 2
        assert len(rows) == groups + 7 and sum(rows[:groups]) == 5, rows
        sizes = results.perf_metrics.raw_metrics.m_batch_sizes
        assert len(sizes) == 8 and sum(sizes) == results.perf_metrics.get_num_generated_tokens()


@pytest.mark.parametrize("rows", [1, 3])
def test_prompts_are_read_in_parts(pipeline: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([10, rows])
    prompts = [rng.integers(3, 300, 40 - 3 * i).tolist() for i in range(rows)]
    config = {"max_new_tokens": 6, "ignore_eos": True}
    ids, mask = np.zeros((rows, 40), np.int64), np.zeros((rows, 40), np.int64)
    for i, prompt in enumerate(prompts):
        ids[i, 40 - len(prompt) :], mask[i, 40 - len(prompt) :] = prompt, 1
    inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(mask))
    expected = pipeline.generate(inputs, **config).tokens
    engine, counts = pipeline._engine, list[int]()
    infer, whole = engine._infer, np.array(engine.start_rows(prompts))

    def count(values: np.ndarray, parents: np.ndarray) -> np.ndarray:
        counts.append(values.shape[1])
        return infer(values, parents)

    monkeypatch.setattr(engine, "_infer", count)
    monkeypatch.setattr("ovjit.genai.engine.PART", 16)
    engine.forget()
    np.testing.assert_allclose(engine.start_rows(prompts), whole, rtol=1e-4, atol=1e-4)
    assert counts == [14, 13, 13]
    assert pipeline.generate(inputs, **config).tokens == expected
    engine._can_split = False
    try:
        np.testing.assert_allclose(engine.start_rows(prompts), whole, rtol=1e-4, atol=1e-4)
    finally:
        engine._can_split = True
    assert counts[-1] == 40


def test_groups_of_prompts() -> None:
    rng = np.random.default_rng(10)
    for _ in range(50):
        lengths = rng.integers(1, rng.integers(2, 3000), rng.integers(1, 40)).tolist()
        groups = group_prompts(lengths)
        assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
        for group in groups:
            inside = [lengths[i] for i in group]
            padded = max(inside) * len(inside)
            assert len(group) == 1 or padded <= MAX_TOKENS, lengths
            assert padded - sum(inside) <= max(64, padded // 5), lengths
    assert group_prompts([16] * 8) == [list(range(8))]


def test_seeds_decide(pipeline: Any) -> None:
    options = {"max_new_tokens": 12, "do_sample": True, "ignore_eos": True}
    texts = [pipeline.generate("hello", rng_seed=seed, **options) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_pipelines_of_models_in_memory(folder: Path, pipeline: Any) -> None:
    def read(name: str) -> tuple[str, Any]:
        text = (folder / f"{name}.xml").read_text(encoding="utf-8")
        return text, ov.Tensor(np.fromfile(folder / f"{name}.bin", np.uint8))

    tokenizer = genai.Tokenizer(*read("openvino_tokenizer"), *read("openvino_detokenizer"))
    config = genai.GenerationConfig(max_new_tokens=6)
    in_memory = genai.LLMPipeline(*read("openvino_model"), tokenizer, "CPU", config)
    assert in_memory.get_generation_config().eos_token_id == 2
    expected = pipeline.generate("hello world", max_new_tokens=6)
    assert in_memory.generate("hello world") == expected
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching = 2, True
    properties = {"scheduler_config": scheduler, **cases.EXACT}
    own_tokenizer = genai.LLMPipeline(folder, tokenizer, "CPU", **properties)
    assert own_tokenizer.get_tokenizer() is tokenizer
    assert own_tokenizer("hello world", max_new_tokens=6) == expected


@pytest.mark.parametrize("arguments, options, error, text", [
    (("nowhere", "CPU"), {}, OvjitError, "Could not find a model in the directory 'nowhere': it does not"),
    ((".", "CPU"), {}, OvjitError, "Could not find a model in the directory '.'"),
    ((None,), {}, TypeError, "LLMPipeline takes"),
    ((None, "CPU"), {"scheduler_config": 3}, OvjitError, "scheduler_config"),
    ((None, "CPU"), {"adapters": 3}, OvjitError, "should be an AdapterConfig"),
    ((None, "CPU"), {"draft_model": 3}, OvjitError, "draft_model"),
    ((None, "CPU"), {"ATTENTION_BACKEND": "XA"}, OvjitError, "ATTENTION_BACKEND"),
    ((None, "XPU"), {}, RuntimeError, "XPU"), ((None, "CPU"), {"NO_SUCH": 1}, RuntimeError, "NO_SUCH"),
])  # fmt: skip
def test_wrong_constructors(folder: Path, arguments: Any, options: Any, error: type, text: str) -> None:
    path, *others = arguments
    with pytest.raises(error, match=text):
        genai.LLMPipeline(path or folder, *others, **options)


def test_features_that_are_missing_are_errors(pipeline: Any) -> None:
    with pytest.raises(OvjitError, match="needs a pipeline with a draft_model"):
        pipeline.generate("hello", max_new_tokens=4, assistant_confidence_threshold=0.4)
    with pytest.raises(OvjitError, match="tree_depth needs a draft_model of EAGLE-3"):
        pipeline.generate("hello", max_new_tokens=4, tree_depth=2, num_assistant_tokens=3)
    with pytest.raises(AttributeError, match=r"has no OmniPipeline: .*docs/genai.md"):
        _ = genai.OmniPipeline


def test_a_tokenizer_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "openvino_tokenizer.xml", tmp_path)
    shutil.copy(folder / "openvino_tokenizer.bin", tmp_path)
    tokenizer = genai.Tokenizer(tmp_path)
    assert tokenizer.encode("hello").input_ids.data.tolist() == [[1, 259, 275, 81]]
    assert tokenizer.get_vocab() == {}
    with pytest.raises(OvjitError, match=r"there is no detokenizer: openvino_detokenizer\.xml is missing"):
        tokenizer.decode([259])
    with pytest.raises(OvjitError, match="folder is needed"):
        genai.Tokenizer(folder / "openvino_tokenizer.xml")
    with pytest.raises(OvjitError, match="pad_to_max_length needs max_length"):
        tokenizer.encode("hello", pad_to_max_length=True)
    with pytest.raises(UnsupportedError, match="number_of_inputs=2"):
        text = (tmp_path / "openvino_tokenizer.xml").read_text(encoding="utf-8")
        without = text.replace("processed_post_processor_template", "no_template")
        (tmp_path / "openvino_tokenizer.xml").write_text(without, encoding="utf-8")
        genai.Tokenizer(tmp_path, add_second_input=True)


def test_special_tokens_and_templates_of_settings(folder: Path, tmp_path: Path) -> None:
    assert genai.Tokenizer(tmp_path).get_eos_token_id() == -1
    settings = {
        "eos_token": {"content": "<e>"}, "bos_token": "<b>",
        "chat_template": [{"name": "default", "template": "A"}],
        "added_tokens_decoder": {"7": {"content": "<e>"}, "8": {"content": "<b>"}},
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = genai.Tokenizer(tmp_path)
    names = ("bos", "eos", "pad")
    assert [getattr(tokenizer, f"get_{n}_token")() for n in names] == ["<b>", "<e>", "<e>"]
    assert [getattr(tokenizer, f"get_{n}_token_id")() for n in names] == [8, 7, 7]
    assert tokenizer.chat_template == "A"
    (tmp_path / "chat_template.jinja").write_text("B")
    assert genai.Tokenizer(tmp_path).chat_template == "B"
    tokenizer.chat_template = "{{ messages[0].content }}!"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], False) == "x!"
    tokenizer.set_chat_template("")
    with pytest.raises(OvjitError, match="no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], False)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OvjitError, match=r"config\.json is not valid JSON"):
        genai.Tokenizer(tmp_path)


def test_histories_are_copies() -> None:
    message = {"role": "user", "content": [{"text": "a"}]}
    history = genai.ChatHistory([message])
    message["content"] = "b"
    history.get_messages()[0]["content"] = "c"
    assert history.get_messages() == [{"role": "user", "content": [{"text": "a"}]}]
    history.set_tools([{"name": "f"}])
    history.set_extra_context({"b": (1, 2)})
    assert (history.get_tools(), history.get_extra_context()) == ([{"name": "f"}], {"b": [1, 2]})
    with pytest.raises(TypeError):
        history.append("hello")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        list(history)  # type: ignore[call-overload]
    history.pop()
    with pytest.raises(IndexError):
        history.pop()


def test_logits_that_are_no_numbers_are_an_error() -> None:
    from ovjit.genai.sampler import Sampler

    with pytest.raises(OvjitError, match="NaN"):
        Sampler(genai.GenerationConfig(max_new_tokens=1), [0]).choose(np.array([0, np.nan], np.float32), 0)


def test_the_name_of_the_real_package(folder: Path) -> None:
    program = (
        "import ovjit.as_openvino, sys, openvino_genai as genai\n"
        "from openvino_genai import LLMPipeline, GenerationConfig\n"
        "assert genai.__name__ == 'ovjit.genai', genai\n"
        "assert 'openvino_genai.py_openvino_genai' not in sys.modules\n"
        "print(genai.Tokenizer(sys.argv[1]).encode('hello').input_ids.data.tolist())\n"
        "from openvino_genai.py_openvino_genai import GenerationHandle, LLMPipeline\n"
        "assert LLMPipeline is genai.LLMPipeline and LLMPipeline.__module__.startswith('ovjit')\n"
        "try:\n    from openvino_genai import OmniPipeline\n"
        "except ImportError:\n    print('ImportError')\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[[1, 259, 275, 81]]", "ImportError"]


def check_steps(metrics: Any, calls: int) -> None:
    """The figures of both models are those of their steps: the first, the second, and the others."""
    for part in (metrics.main_model_metrics, metrics.draft_model_metrics):
        durations = part.raw_metrics.m_durations
        count = len(durations) // calls
        groups = [durations[i * count : (i + 1) * count] for i in range(calls)]

        def mean(values: list[float]) -> Any:
            return pytest.approx(sum(values) / len(values) / 1000)

        others = [value for group in groups for value in group[2:]]
        sizes = part.raw_metrics.m_batch_sizes
        shares = [duration / size for duration, size in zip(durations, sizes, strict=True)]
        assert part.get_generate_duration().mean == mean([sum(group) for group in groups])
        assert part.get_ttft().mean == mean([group[0] for group in groups])
        assert part.get_ttst().mean == mean([group[1] for group in groups])
        assert part.get_latency().mean == mean(others)
        assert part.get_tpot().mean == mean([v for i, v in enumerate(shares) if i % count > 1])
        assert part.get_throughput().mean == pytest.approx(1000 / part.get_tpot().mean)
        assert (part.get_ipot().mean, part.raw_metrics.token_infer_durations) == (0, [])


def test_figures_of_drafts(folder: Path) -> None:
    tokens = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
    draft = genai.draft_model(folder, "CPU")
    pipeline = genai.LLMPipeline(folder, "CPU", draft_model=draft)
    options = {"max_new_tokens": 21, "ignore_eos": True}
    results = pipeline.generate(tokens, num_assistant_tokens=4, **options)
    metrics = results.extended_perf_metrics
    # the model is its own draft: all is accepted
    # and counted but for the last step, as there
    assert [metrics.get_num_draft_tokens(), metrics.get_num_accepted_tokens()] == [12, 12]
    assert [metrics.get_num_rejected_tokens(), metrics.get_draft_acceptance_rate()] == [0, 1.0]
    assert metrics.main_model_metrics.raw_metrics.m_batch_sizes == [1, 5, 5, 5, 5]
    assert metrics.get_draft_to_main_inference_duration_ratio() > 0
    two = pipeline.generate(["hello", "is it"], num_assistant_tokens=4, **options).extended_perf_metrics
    assert two.get_num_draft_tokens() == 24
    check_steps(metrics, 1)
    check_steps(two, 2)
    assert metrics.raw_metrics.m_durations == results.perf_metrics.raw_metrics.m_durations
    assert metrics.get_ttft().mean == results.perf_metrics.get_ttft().mean > 0
    assert metrics.get_generate_duration().mean == results.perf_metrics.get_generate_duration().mean > 0
    assert (metrics.get_ttst().mean, metrics.get_latency().mean) == (0, 0)
    # choices that a draft does not foresee are the model's own
    options |= {"do_sample": True, "rng_seed": 5, "logprobs": 1}
    sampled = pipeline.generate(tokens, num_assistant_tokens=4, **options)
    plain = genai.LLMPipeline(folder, "CPU")
    expected = plain.generate(tokens, **options)
    assert sampled.tokens == expected.tokens
    np.testing.assert_allclose(sampled.scores, expected.scores, rtol=1e-5)
    assert sampled.extended_perf_metrics.get_num_rejected_tokens() > 0
    assert expected.extended_perf_metrics is None


def test_embeddings_as_a_tensor(folder: Path, tmp_path: Path) -> None:
    """Numbers are those of the real package."""
    encoder = write_encoder(ov, tmp_path / "encoder", folder)
    config = genai.TextEmbeddingPipeline.Config(query_instruction="is ", embed_instruction="so ")
    config.pooling_type = genai.TextEmbeddingPipeline.PoolingType.LAST_TOKEN
    pipeline = genai.EmbeddingPipeline(encoder, "CPU", **cases.EXACT)
    instructed = genai.EmbeddingPipeline(encoder, "CPU", text_embedding_config=config, **cases.EXACT)
    for result, expected in (
        (pipeline.embed("hello world"), [0.2898, 0.3934, 0.22, -0.4078]),
        (pipeline.embed(text=["hello"]), [0.3268, 0.4033, 0.2983, -0.3939]),
        (pipeline.embed("hello", embedding_prompt="is it"), [0.2928, 0.4251, 0.0662, -0.443]),
        (pipeline.embed(), [0.3688, 0.3994, 0.2276, -0.3933]),
        (instructed.embed("hello world"), [-0.2339, -0.296, 0.4279, -0.3082]),
        (instructed.embed("hello world", embedding_prompt="x "), [-0.1562, -0.2724, 0.4556, -0.235]),
    ):
        assert result.embeddings.data.shape == (1, 8) and result.embeddings.data.dtype == np.float32
        np.testing.assert_allclose(result.embeddings.data[0, :4], expected, atol=1e-4)
    with pytest.raises(OvjitError, match="does not support image"):
        pipeline.embed("hello", images=[ov.Tensor(np.zeros((1, 4, 4, 3), np.uint8))])


def test_rerankers_get_the_types_of_tokens(folder: Path, tmp_path: Path) -> None:
    """A classifier that counts the tokens of the second text."""
    tokenizer = shutil.copytree(folder, tmp_path / "ranker") / "openvino_tokenizer.xml"
    text = tokenizer.read_text()
    types = "&quot;type_ids&quot;: [0, 0, {0}, {0}]"
    assert types.format(0) in text
    tokenizer.write_text(text.replace(types.format(0), types.format(1)))
    nodes = [ov.opset13.parameter([-1, -1], np.int64, name=n) for n in ("input_ids", "token_type_ids")]
    for node in nodes:
        node.output(0).set_names({node.get_friendly_name()})
    count = ov.opset13.reduce_sum(nodes[1], ov.opset13.constant(1), keep_dims=True)
    logits = ov.opset13.multiply(ov.opset13.convert(count, np.float32), ov.opset13.constant(np.float32(0.1)))
    logits.output(0).set_names({"logits"})
    ov.save_model(ov.Model([ov.opset13.result(logits)], nodes), tmp_path / "ranker" / "openvino_model.xml")
    texts = ["a", "hello is it there", "so is it"]
    lengths = [genai.Tokenizer(folder).encode(each).input_ids.shape[1] for each in texts]
    ranks = genai.TextRerankPipeline(tmp_path / "ranker", "CPU").rerank("the weather", texts)
    assert [i for i, _ in ranks] == [1, 2, 0]
    expected = [1 / (1 + np.exp(-0.1 * lengths[i])) for i, _ in ranks]
    np.testing.assert_allclose([score for _, score in ranks], expected, rtol=1e-3)


def test_classes_have_their_fields() -> None:
    for kind, name in ((genai.GenerationConfig, "max_new_tokens"), (genai.SchedulerConfig, "cache_size")):
        assert getattr(kind, name).fget(kind()) == getattr(kind(), name)
        assert not hasattr(kind, "no_such_field")
    assert hasattr(genai.EmbedResult, "embeddings")
    assert hasattr(genai.TokenizedInputs, "input_ids")


def test_texts_keep_u0000_at_their_ends(folder: Path) -> None:
    """As the real package has it; an array of str would drop it."""
    tokenizer = genai.Tokenizer(folder)
    for text in ("a\0", "a\0\0b\0", "\0"):
        ids = tokenizer.encode(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids.data[0].tolist()) == text
        assert tokenizer.decode(ov.Tensor(np.repeat(ids.data, 2, 0))) == [text] * 2


def test_json_of_templates_has_a_line_in_empty_objects_and_arrays(folder: Path) -> None:
    """As minja indents them; calls and answers of functions are written by another routine there."""
    tokenizer = genai.Tokenizer(folder)
    message = {"role": "user", "content": "x", "a": {}, "b": [{}, [1, []]]}
    templates = {
        "{{ messages[0] | tojson }}": '{"role": "user", "content": "x", "a": {}, "b": [{}, [1, []]]}',
        "{{ messages[0].a | tojson(indent=4) }}": "{\n    \n}",
        "{{ messages[0].b | tojson(indent=2) }}": (
            "[\n  {\n    \n  },\n  [\n    1,\n    [\n      \n    ]\n  ]\n]"
        ),
    }
    for template, expected in templates.items():
        assert tokenizer.apply_chat_template([message], True, template) == expected
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    asked = [{"role": "user", "content": "x"}]
    text = tokenizer.apply_chat_template(asked, True, tools=[tool])
    assert '"parameters": {\n        \n      }\n' in text
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    asked += [{"role": "assistant", "content": "", "tool_calls": [call]}]
    assert '"arguments": {}\n' in tokenizer.apply_chat_template(asked, True)


def test_blocks_of_generation_are_rendered(folder: Path) -> None:
    """Templates for training mark what the model writes; as in openvino_genai."""
    template = (
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n  {% generation %}\n<{{ m.content }}>\n"
        "  {%- endgeneration %}!\n{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert genai.Tokenizer(folder).apply_chat_template(messages, False, template) == "a<b>!\n"


def test_calls_of_tools_print_as_in_the_real_package() -> None:
    """The order of keys is that of openvino_genai: programs print them."""
    pythonic: dict[str, Any] = {"content": '[f(b="x", a="y")]'}
    as_json: dict[str, Any] = {"content": '{"parameters": {"b": 1, "a": 2}, "name": "g"}'}
    genai.Llama3PythonicToolParser().parse(pythonic)
    genai.Llama3JsonToolParser().parse(as_json)
    assert str(pythonic["tool_calls"]) == "[{'arguments': {'b': 'x', 'a': 'y'}, 'name': 'f'}]"
    assert str(as_json["tool_calls"]) == "[{'parameters': {'b': 1, 'a': 2}, 'name': 'g'}]"


@pytest.mark.parametrize("texts", [[("a", "b")], ["a", 3], [["a", 3]], [["a", "b"], "c"]])
def test_lists_of_other_things_than_texts(folder: Path, texts: Any) -> None:
    with pytest.raises(OvjitError):
        genai.Tokenizer(folder).encode(texts)


def test_a_time_limit_is_no_failure_of_a_template() -> None:
    """What a signal's handler raises comes out as it is; what a template raises is OvjitError."""
    from ovjit.genai.templates import _render

    class TimeLimit(Exception):
        pass

    def interrupt() -> None:
        raise TimeLimit("the time is over")

    with pytest.raises(TimeLimit, match="the time is over"):
        _render("{{ call() }}", [], {"call": interrupt})
    for template in ("{{ 1 / 0 }}", "{% if %}", "{{ messages.pop() }}"):
        with pytest.raises(OvjitError, match="the chat template failed"):
            _render(template, [], {})


@pytest.mark.parametrize(
    ("options", "properties", "expected"),
    [
        ({}, {"INFERENCE_PRECISION_HINT": "bf16"}, "u8"),
        ({"KV_CACHE_PRECISION": "f16"}, {}, "f16"),
        ({"KV_CACHE_PRECISION": "f16"}, {"INFERENCE_PRECISION_HINT": "f32"}, "f16"),
        ({"KV_CACHE_PRECISION": "f16"}, {"EXECUTION_MODE_HINT": "ACCURACY"}, "f32"),
        ({"KV_CACHE_PRECISION": "f16"}, {"KV_CACHE_PRECISION": "u8"}, "u8"),
        ({}, {"INFERENCE_PRECISION_HINT": "f32"}, "f32"),
    ],
)
def test_caches_have_the_types_that_the_model_names(
    folder: Path, tmp_path: Path, options: dict[str, str], properties: dict[str, Any], expected: str
) -> None:
    """As in openvino_genai, but for the last case, which is u8 there."""
    shutil.copytree(folder, tmp_path / "model")
    model = ov.Core().read_model(folder / "openvino_model.xml")
    for name, value in options.items():
        model.set_rt_info(value, ["runtime_options", name])
    ov.save_model(model, tmp_path / "model" / "openvino_model.xml", compress_to_fp16=False)
    for _ in range(2):  # the second time, kept models are loaded
        pipeline = genai.LLMPipeline(tmp_path / "model", "CPU", **properties)
        pipeline.generate("hello", max_new_tokens=2)
        kinds = {v.stored for v in pipeline._engine._request.query_state()[0]._states.variables}
        assert kinds == {expected}
    batches = genai.ContinuousBatchingPipeline(tmp_path / "model", genai.SchedulerConfig(), "CPU", properties)
    assert batches._batches._decoder.kind == expected
    if options:  # those that a model names are as in openvino_genai
        state = genai.LLMPipeline(tmp_path / "model", "CPU", ATTENTION_BACKEND="SDPA", **properties)
        state.generate("hello", max_new_tokens=2)
        assert {v.stored for v in state._engine._request.query_state()[0]._states.variables} == {expected}
