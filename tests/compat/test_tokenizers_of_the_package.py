"""Tokenizers beside openvino_tokenizers, where it is installed: conversions and random texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino_tokenizers", exc_type=ImportError)
pytest.importorskip("transformers")

from bench.tokenizers import KINDS, pages, train, write
from tests.support.run import printed

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1800)]
SEED, TEXTS = 20261127, 2000
WORDS = (
    "the don't WORLD naïve straße 你好 こんにちは 한국어 שלום हिन्दी 😀 👩‍👧 e\u0301 ﬁ Ａ ² 12345 3.14 "
    "foo_bar ... "
    "== </s> <s> <unk> <0x41> ▁ ▁▁ Ġ \\"
).split(" ")
ODD = (
    "\n|\r\n|\t|  |\u00a0|\u3000|\u200b|\ufeff|\u2028|\x1c|\u0130|\u03a3|\u1e9e|\ufffd|\u180e|"
    "\U00010400|\u0345"
).split("|")
RUN = """
import json, sys
if sys.argv[1] == "ovjit":
    import ovjit as ov
else:
    import openvino as ov, openvino_tokenizers
core, texts = ov.Core(), json.load(open(sys.argv[2]))
encode, decode = (core.compile_model(path, "CPU") for path in sys.argv[3:5])
rows = []
for i in range(0, len(texts), 16):
    made = encode(texts[i : i + 16])
    rows.append([[y.tolist() for y in made.values()], decode(made[0])[0].tolist()])
json.dump(rows, open(sys.argv[5], "w"))
print(len(rows))
"""
CONVERT = """
import sys
import ovjit.as_openvino
import openvino as ov
from openvino_tokenizers import convert_tokenizer
from transformers import PreTrainedTokenizerFast
made = convert_tokenizer(PreTrainedTokenizerFast.from_pretrained(sys.argv[1]), with_detokenizer=True)
for model, path in zip(made, sys.argv[2:4]):
    ov.save_model(model, path, compress_to_fp16=False)
print(ov.compile_model(made[0], "CPU")(["Hello world"])["input_ids"].shape[0])
"""


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(SEED)
    made = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(0, 14)):
            kind = rng.random()
            if kind < 0.6:
                parts += [str(rng.choice(WORDS)), " " * int(rng.integers(0, 2))]
            elif kind < 0.85:
                parts.append(str(rng.choice(ODD)))
            else:
                ranges = ((32, 127), (0xA0, 0xD7FF), (0x10000, 0x1FFFF))
                parts.append(chr(rng.integers(*ranges[rng.integers(3)])))
        made.append("".join(parts))
    return made


def trained(kind: str) -> Any:
    return train(kind, pages().splitlines(keepends=True))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts(kind: str, tmp_path: Path) -> None:
    paths = [str(path) for path in write(trained(kind), tmp_path)]
    texts, found = tmp_path / "texts.json", []
    texts.write_text(json.dumps(random_texts(TEXTS)))
    for package in ("openvino", "ovjit"):
        out = tmp_path / f"{package}.json"
        assert printed("-c", RUN, package, texts, *paths, out).split() == [str(TEXTS // 16)]
        found.append(json.loads(out.read_text()))
    assert found[0] == found[1], f"seed {SEED}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_converts_on_ovjit(kind: str, tmp_path: Path) -> None:
    """Its Python part unchanged: the constants are those that it writes on openvino."""
    tokenizer = trained(kind)
    expected = write(tokenizer, tmp_path)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    made = [tmp_path / f"made{i}.xml" for i in range(2)]
    assert printed("-c", CONVERT, tmp_path / "tokenizer", *made).split()[-1] == "1"
    for path, other in zip(made, expected, strict=True):
        assert path.with_suffix(".bin").read_bytes() == other.with_suffix(".bin").read_bytes()
