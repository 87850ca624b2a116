"""sentence-transformers with its OpenVINO backend, as its documentation uses it, on small random networks.
Prints a line of JSON: case -> numbers.

    python sentences.py FOLDER
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers import models as parts
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    logging,
)

warnings.simplefilter("ignore")
logging.set_verbosity_error()
TEXTS = ["a quick brown fox", "the lazy dog sleeps", "a fox and the dog , again and again"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
EXACT = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}


def saved(folder: Path, make: type, **more: int) -> str:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(" ".join(TEXTS).split())]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(7)
    make(BertConfig(vocab_size=len(words), **SIZES, **more)).eval().save_pretrained(folder)
    return str(folder)


def numbers(array: object) -> list[float]:
    return np.asarray(array, np.float64).round(5).ravel().tolist()


def main() -> None:
    folder, out = Path(sys.argv[1]), {}
    words = parts.Transformer(saved(folder / "bert", BertModel))
    pooled = parts.Pooling(words.get_word_embedding_dimension())
    plain = SentenceTransformer(modules=[words, pooled], device="cpu")
    plain.save(str(folder / "sentence"))
    model = SentenceTransformer(
        str(folder / "sentence"), backend="openvino", model_kwargs=dict(EXACT), device="cpu"
    )
    out["embeddings"] = numbers(model.encode(TEXTS))
    out["off by"] = float(np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max())
    out["similarity"] = numbers(model.similarity(model.encode(TEXTS), model.encode(TEXTS)))
    model.save_pretrained(str(folder / "kept"))
    again = SentenceTransformer(
        str(folder / "kept"), backend="openvino", model_kwargs=dict(EXACT), device="cpu"
    )
    out["loaded"] = numbers(again.encode(TEXTS, batch_size=1))
    ranker = CrossEncoder(
        saved(folder / "ranker", BertForSequenceClassification, num_labels=1),
        backend="openvino", model_kwargs=dict(EXACT), device="cpu",
    )  # fmt: skip
    out["scores"] = numbers(ranker.predict([(TEXTS[0], text) for text in TEXTS]))
    print(json.dumps(out))


main()
