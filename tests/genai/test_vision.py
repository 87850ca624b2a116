"""VLMPipeline of ovjit.genai beside results of the real one in vision.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_vision as cases
from tests.support.genai_cases import value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.vision.pixels import normalize
from ovjit.genai.vision.resizing import resize_bicubic, resize_bilinear

EXPECTED = json.loads((Path(__file__).parent / "vision.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_folder(ov, tmp_path_factory.mktemp("vision") / "llava")


def is_same(value: Any, expected: Any) -> bool:
    """True for equal JSON values; fractions to five digits."""
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-4, abs_tol=1e-4)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(is_same, value, expected))
    return type(value) is type(expected) and value == expected


def test_results_are_those_of_the_real_package(folder: Path) -> None:
    results = {name: value_of(run) for name, run in cases.programs(genai, folder)}
    assert list(results) == list(EXPECTED)
    wrong = {n: (v, EXPECTED[n]) for n, v in results.items() if not is_same(v, EXPECTED[n])}
    assert not wrong


@pytest.mark.parametrize("name, resize", [("BICUBIC", resize_bicubic), ("BILINEAR", resize_bilinear)])
@pytest.mark.parametrize("seed", range(6))
def test_a_side_is_resized_as_by_pillow(name: str, resize: Any, seed: int) -> None:
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(seed)
    for _ in range(20):
        height, width, new, other = (int(size) for size in rng.integers(1, 90, 4))
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        for sizes in ((new, width), (height, new)):
            expected = image_module.fromarray(image).resize(sizes[::-1], getattr(image_module, name))
            message = f"{name}, seed {seed}: {image.shape} to {sizes}"
            assert (resize(image, *sizes) == np.array(expected)).all(), message
        both = resize(resize(image, height, other), new, other)
        assert (resize(image, new, other) == both).all(), f"{name}, seed {seed}: columns first"


@pytest.mark.parametrize("seed", range(3))
def test_normalized_pictures_have_the_bits_of_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, deviation = (rng.uniform(0.2, 0.6, 3).astype(np.float32) for _ in range(2))
    images = np.stack([rng.permutation(256) for _ in range(6)]).reshape(2, 16, 16, 3).astype(np.uint8)
    values = (images.astype(np.float32) / np.float32(255) - mean) / deviation
    assert (normalize(images, mean, deviation) == values.transpose(0, 3, 1, 2)).all(), f"seed {seed}"


def test_models_in_memory(folder: Path) -> None:
    def read(name: str) -> tuple[str, Any]:
        path = folder / f"openvino_{name}_model.xml"
        return path.read_text(), ov.Tensor(np.fromfile(path.with_suffix(".bin"), np.uint8))

    models = {name: read(name) for name in ("language", "text_embeddings", "vision_embeddings")}
    config = genai.GenerationConfig(max_new_tokens=6, ignore_eos=True)
    pipe = genai.VLMPipeline(models, genai.Tokenizer(folder), folder, "CPU", config, **cases.EXACT)
    direct = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    image = cases.picture(ov, 30, 30)
    results = [p.generate("a", images=[image], generation_config=config).texts for p in (pipe, direct)]
    assert results[0] == results[1] and pipe.generate("a", image=image).texts == results[0]


def test_a_streamer_gets_the_prompt_with_echo(folder: Path) -> None:
    """As in openvino_genai: the pieces are those of the result."""
    pipe = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    pieces = list[str]()
    options = {"max_new_tokens": 4, "ignore_eos": True, "echo": True}
    text = pipe.generate("hello", streamer=pieces.append, **options).texts[0]
    assert "".join(pieces) == text and "hello" in text


def test_a_cancelled_answer_is_no_part_of_a_chat(folder: Path) -> None:
    pipe = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    image, options = cases.picture(ov, 30, 30), {"max_new_tokens": 8, "ignore_eos": True}

    def chat(is_cancelled: bool) -> list[str]:
        with pytest.warns(DeprecationWarning):
            pipe.start_chat()
        if is_cancelled:
            cancel = lambda text: genai.StreamingStatus.CANCEL  # noqa: E731
            pipe.generate("hi", images=[image], streamer=cancel, **options)
            with pytest.raises(ZeroDivisionError):
                pipe.generate("hi", images=[image], streamer=Broken(), **options)
        texts = [
            *pipe.generate("is it so?", images=[image], **options).texts,
            *pipe.generate("why", **options).texts,
        ]
        with pytest.warns(DeprecationWarning):
            pipe.finish_chat()
        return texts

    class Broken(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            raise ZeroDivisionError

        def end(self) -> None:
            pass

    assert chat(True) == chat(False)


def test_a_cancelled_answer_to_a_changed_history_can_be_repeated(folder: Path) -> None:
    pipe = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    options: dict[str, Any] = {"images": [cases.picture(ov, 30, 30)], "max_new_tokens": 6, "ignore_eos": True}
    stop = lambda text: genai.StreamingStatus.CANCEL  # noqa: E731

    def chat(is_cancelled: bool) -> list[str]:
        history = genai.ChatHistory([{"role": "user", "content": "hi"}])
        pipe.generate(history, **options)
        history.set_messages([{"role": "user", "content": "why"}])
        if is_cancelled:
            pipe.generate(history, streamer=stop, **options)
        return pipe.generate(history, **options).texts

    assert chat(True) == chat(False)


def test_calls_within_a_call_and_drafts_are_refused(folder: Path) -> None:
    pipe = genai.VLMPipeline(folder, "CPU")

    class Nested(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            return pipe.generate("b", max_new_tokens=1)

        def end(self) -> None:
            pass

    with pytest.raises(OvjitError, match="a streamer or callback cannot call generate"):
        pipe.generate("a", streamer=Nested(), max_new_tokens=3)
    with pytest.raises(OvjitError, match="tree_depth needs a draft_model of EAGLE-3"):
        pipe.generate("a", max_new_tokens=3, tree_depth=1, num_assistant_tokens=2, branching_factor=1)


def test_durations_are_added(folder: Path) -> None:
    pipe = genai.VLMPipeline(folder, "CPU")
    images = [cases.picture(ov, 30, 30)] * 2
    metrics = pipe.generate("a", images=images, max_new_tokens=3).perf_metrics
    total = metrics + pipe.generate("a", max_new_tokens=3).perf_metrics
    assert total.get_total_image_slice_count() == 2
    raw = total.vlm_raw_metrics
    assert len(raw.vision_encoding_durations) == len(raw.prepare_embeddings_durations) == 2
    assert 0 < metrics.get_vision_encoding_duration().mean < metrics.get_prepare_embeddings_duration().mean
    assert metrics.get_text_embedding_duration().mean > 0


def test_other_families_and_inputs_are_refused(folder: Path, tmp_path: Path) -> None:
    pipe = genai.VLMPipeline(folder, "CPU")
    with pytest.raises(UnsupportedError, match="Pass frames as independent images"):
        pipe.generate("a", videos=[cases.picture(ov, 30, 30)])
    for shape in ((1, 0, 30, 3), (1, 30, 0, 3), (30, 30, 4), (1, 30, 30, 0)):
        with pytest.raises(RuntimeError, match="a Tensor of u8"):
            pipe.generate("a", images=[ov.Tensor(np.zeros(shape, np.uint8))])
    (folder / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
    with pytest.raises(UnsupportedError, match=r"'idefics3' VLM model type: ovjit runs \["):
        genai.VLMPipeline(folder, "CPU")
