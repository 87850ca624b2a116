"""Programs of EmbeddingPipeline with folders that read pictures, whose results are compared.

    python -m tests.support.genai_embeddings tests/genai/embeddings.json

runs them on the real packages. The folders are those of `tests.support.genai_families`, with a token behind each text in the place of the one before
it: the real package takes no other special tokens.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import sys
import tempfile
import warnings
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.genai_cases import value_of
from tests.support.genai_families import clip, write_folder
from tests.support.genai_images import Program, image_package, picture
from tests.support.genai_vision import EXACT

#: Families whose language models the real pipeline feeds with pictures.
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
#: Texts of as many tokens: the masks of these small nets do not hide padding.
LIKE = ["hello a", "hello b", "hello c"]
#: The tag of the families.
NATIVE = "<|vision_start|><|image_pad|><|vision_end|>"


def write_embedding_folder(package: Any, folder: Path, kind: str) -> Path:
    write_folder(package, folder, kind)
    file = folder / "openvino_tokenizer.xml"
    tree = xml.parse(file)
    (joined,) = (
        layer.get("id") for layer in tree.iterfind("layers/layer") if layer.get("type") == "CombineSegments"
    )
    for edge in tree.iterfind("edges/edge"):
        port = int(edge.get("to-port", 0))
        if edge.get("to-layer") == joined and port < 6:
            edge.set("to-port", str((port + 3) % 6))
    tree.write(file)
    return folder


def programs(genai: Any, folder: Path, kind: str) -> Iterator[Program]:
    ov = image_package(genai)
    one, two, film = picture(ov, 40, 33, seed=3), picture(ov, 20, 64, seed=4), clip(ov, 6, 30, 21)
    pooling = genai.TextEmbeddingPipeline.PoolingType
    config = genai.TextEmbeddingPipeline.Config()
    config.pooling_type, config.normalize = pooling.MEAN, False
    settings: dict[str, dict[str, Any]] = {
        "default": {}, "mean": {"pooling_type": pooling.MEAN}, "first": {"pooling_type": pooling.CLS, "normalize": False},
        "config": {"text_embedding_config": config}, "left": {"padding_side": "left"},
    }  # fmt: skip
    for name, options in settings.items():
        pipe = genai.EmbeddingPipeline(folder, "CPU", **EXACT, **options)

        def run(*arguments: Any, pipe: Any = pipe, **keywords: Any) -> Any:
            embeddings = pipe.embed(*arguments, **keywords).embeddings
            return [list(embeddings.shape), embeddings.data[:, :5].tolist() if embeddings.data.size else []]

        yield f"{name} text", lambda run=run: run("is it so?")
        yield f"{name} image", lambda run=run: run("is it so?", [one])
        if name != "default":
            continue
        if kind.startswith("qwen2"):  # the real pipeline gives texts of the others what belongs to one
            yield "texts", lambda: run(LIKE)
            yield "texts with an image", lambda: run(LIKE, [one])
        yield "images", lambda: run("is it so?", [one, two])
        yield "no text", lambda: run(images=[one])
        yield "no texts", lambda: run([])
        yield "nothing", lambda: run()
        yield "prompt", lambda: run("hello", embedding_prompt="look")
        yield "prompt and image", lambda: run("hello", images=[one], embedding_prompt="look")
        yield "empty prompt", lambda: run("hello", embedding_prompt="")
        yield "tags", lambda: run("a <ov_genai_image_1> b <ov_genai_image_0>", [one, two])
        yield "native tags", lambda: run(f"a {NATIVE} b {NATIVE}", [one, two])
        yield "too few tags", lambda: run(f"a {NATIVE} b", [one, two])
        yield "one of two", lambda: run("a <ov_genai_image_1> b", [one, two])
        yield "no such image", lambda: run("a <ov_genai_image_3> b", [one, two])
        yield "metadata", lambda: run("hello", videos=[film], videos_metadata=[genai.VideoMetadata()] * 2)
        yield "keyword", lambda: run(text="hello")
        yield "again", lambda: run("is it so?")
        yield "wrong text", lambda: run(7)
        yield "wrong image", lambda: run("hello", ["image"])
        if kind.startswith("qwen2"):  # the real pipeline is not sure to read videos of the others
            yield "video", lambda: run("hello", videos=[film])
            yield (
                "video and image",
                lambda: run("a <ov_genai_video_0> b <ov_genai_image_0>", [two], [film]),
            )
            yield "video tag", lambda: run("a <ov_genai_video_0> b", videos=[film])


def collect(package: Any, genai: Any, folder: Path, kind: str) -> dict[str, Any]:
    """The results of the programs of a family."""
    path = write_embedding_folder(package, folder / kind, kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a video without VideoMetadata.fps", RuntimeWarning)
        return {name: value_of(run) for name, run in programs(genai, path, kind)}


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as name:
        expected = {kind: collect(openvino, openvino_genai, Path(name), kind) for kind in FAMILIES}
    Path(sys.argv[1]).write_text(json.dumps(expected, indent=0) + "\n")
