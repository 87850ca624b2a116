"""Exceptions of signals' handlers in a chat: the caller gets no answer, so the chat has no such turn, and the
pipeline answers the next question. By default some bytecodes, with `-m long` all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ovjit as ov
import ovjit.genai as genai
from tests.support import genai_vision as cases
from tests.support.interrupted import SignalError, bytecodes, check_interrupted, distinct_of, sample_of
from tests.support.sweeps import some

pytestmark = [
    pytest.mark.thread_unsafe(reason="a trace function belongs to its thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

#: The files of a turn. Those of the engine have a thousand times as many bytecodes.
FILES = tuple(
    f"ovjit/genai/{name}.py"
    for name in ("turns", "history", "llm", "prompts", "batching", "batch_prompts", "vision/pipeline")
)
#: Bytecodes of each case in the default suite.
SOME = 30
SEED = 5
KINDS = ["single", "batched", "pictures"]
OPTIONS = {"max_new_tokens": 1, "ignore_eos": True}


def load(kind: str, request: pytest.FixtureRequest) -> Any:
    if kind == "pictures":
        folder = cases.write_folder(ov, request.getfixturevalue("tmp_path") / "llava")
        return genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    folder = request.getfixturevalue("folder")
    if kind == "batched":
        return genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU")
    return genai.LLMPipeline(folder, "CPU")


def ask(pipeline: Any, text: str) -> str:
    if isinstance(pipeline, genai.ContinuousBatchingPipeline):
        return str(pipeline.generate(text, genai.GenerationConfig(**OPTIONS))[0].m_generation_ids[0])
    answer = pipeline.generate(text, **OPTIONS)
    return answer if isinstance(answer, str) else answer.texts[0]


def chat_of(pipeline: Any) -> Any:
    return pipeline._history if isinstance(pipeline, genai.VLMPipeline) else pipeline._prompts.history


def check_chat(pipeline: Any, count: Callable[[Any], list[int]], error: type[BaseException]) -> None:
    pipeline.start_chat("be short")
    first = ask(pipeline, "hi")
    before = chat_of(pipeline).get_messages()
    expected = ask(pipeline, "is it so?")

    def forget() -> None:
        chat_of(pipeline).set_messages(before)

    answers: list[str] = []

    def scenario() -> None:
        answers.append(ask(pipeline, "is it so?"))

    def check() -> None:
        if answers:  # it had come to its end
            assert answers.pop() == expected
            forget()
        assert chat_of(pipeline).get_messages() == before, "the turn is in the chat"
        assert ask(pipeline, "is it so?") == expected
        forget()

    assert [m["content"] for m in before] == ["be short", "hi", first]
    forget()
    places = bytecodes(scenario, FILES)
    check()
    assert check_interrupted(scenario, check, count(places), error, FILES) > 20
    pipeline.finish_chat()


@pytest.mark.parametrize("error", some([SignalError, KeyboardInterrupt], 1))
@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_without_an_answer(
    kind: str, error: type[BaseException], request: pytest.FixtureRequest
) -> None:
    check_chat(load(kind, request), lambda places: sample_of(places, SOME, SEED), error)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_without_an_answer_everywhere(kind: str, request: pytest.FixtureRequest) -> None:
    check_chat(load(kind, request), distinct_of, SignalError)
