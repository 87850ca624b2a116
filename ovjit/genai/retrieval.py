"""TextEmbeddingPipeline and TextRerankPipeline: vectors of texts, and scores of texts for a query."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.engine import INPUTS
from ovjit.genai.enums import _Enum
from ovjit.genai.fields import BOOL, SIZE, Instance, Keywords, Optional, Text
from ovjit.genai.tokenizer import TokenizedInputs, Tokenizer
from ovjit.generation.head import keep_last
from ovjit.generation.row_slices import take_first_tokens, take_rows
from ovjit.generation.tokenizer import read_settings
from ovjit.locks import rlock


class _PoolingType(_Enum):
    """The token whose vector is that of the text, or their mean."""

    CLS, MEAN, LAST_TOKEN = range(3)


_PoolingType.__name__ = "PoolingType"


class _EmbeddingConfig(Keywords):
    """`batch_size`: the only number of texts that a call takes. Instructions are put before texts."""

    _fields = {
        "batch_size": (None, Optional(SIZE)), "embed_instruction": (None, Optional(Text())),
        "max_length": (None, Optional(SIZE)), "normalize": (True, BOOL),
        "pad_to_max_length": (None, Optional(BOOL)), "padding_side": (None, Optional(Text())),
        "pooling_type": (_PoolingType.CLS, Instance(_PoolingType)),
        "query_instruction": (None, Optional(Text())),
    }  # fmt: skip

    def validate(self) -> None:
        """RuntimeError if fields contradict each other."""
        if self.padding_side not in (None, "left", "right"):
            raise OvjitError(f"padding_side should be 'left' or 'right', not {self.padding_side!r}")


class _RerankConfig(Keywords):
    """`top_n`: the most texts that are returned."""

    _fields = {
        "max_length": (None, Optional(SIZE)), "pad_to_max_length": (None, Optional(BOOL)),
        "padding_side": (None, Optional(Text())), "top_n": (3, SIZE),
    }  # fmt: skip


for _kind in (_EmbeddingConfig, _RerankConfig):
    _kind.__name__ = "Config"


def split_config(config: Any, kind: type[Keywords], properties: dict[str, Any], **defaults: Any
                 ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """(a copy of the configuration, properties of the device). Without a configuration, the properties that
    are fields of its class, and the defaults, make one. TypeError for one of another class."""
    if config is None:
        others = {name: value for name, value in properties.items() if name not in kind._fields}
        return kind(**{**defaults, **properties}), others
    if not isinstance(config, kind):
        raise TypeError(f"config should be a {kind.__qualname__}, not {type(config).__name__}")
    return config.__copy__(), properties


class _Encoder:
    """The model and the tokenizer of a folder. At most one call runs in the background. `change` edits the
    model for the configuration."""

    def __init__(self, path: Any, device: str, config: Any, kind: type[Keywords], properties: dict[str, Any],
                 pairs: bool, change: Callable[[Any, Any], Any]):  # fmt: skip
        from ovjit.api.run.core import Core

        self.config, properties = split_config(config, kind, properties)
        if not isinstance(path, (str, bytes, os.PathLike)) or not isinstance(device, str):
            raise TypeError("models_path should be the path of a folder, and device a str")
        folder = Path(os.fsdecode(path))
        file = folder / "openvino_model.xml"
        if not file.is_file():
            raise OvjitError(f'Could not open the file: "{file}": export it with optimum-cli')
        self.tokenizer = Tokenizer(folder, **({"add_second_input": True} if pairs else {}))
        model = Core().read_model(file)
        change(model, self.config)
        compiled = Core().compile_model(model, device, properties)
        self._names = [next(iter(port.get_names()), "") for port in compiled.inputs]
        if not set(self._names) <= INPUTS | {"token_type_ids"}:
            raise UnsupportedError(f"a model with the inputs {self._names} is not supported")
        self._request, self._lock = compiled.create_infer_request(), rlock("pipeline")
        self._executor, self._pairs = ThreadPoolExecutor(1), pairs
        self._future: Future[Any] | None = None

    def encode(self, *texts: list[str]) -> TokenizedInputs:
        """The tokens of texts, or of pairs, by the configuration."""
        config = self.config
        options: dict[str, Any] = {"padding_side": config.padding_side}
        options |= (
            {"prompts": texts[0]} if len(texts) == 1 else {"prompts_1": texts[0], "prompts_2": texts[1]}
        )
        if config.max_length is not None:
            options |= {"max_length": config.max_length, "truncation": True}
        if config.pad_to_max_length is not None:
            options["pad_to_max_length"] = config.pad_to_max_length
        return self.tokenizer.encode(**options)

    def infer(self, inputs: TokenizedInputs) -> tuple[np.ndarray, np.ndarray]:
        """(the model's output in f32, the mask of tokens)."""
        ids, mask = np.array(inputs.input_ids.data), np.array(inputs.attention_mask.data)
        # openvino_genai leaves the types of single texts at 0
        types = inputs._types if self._pairs and inputs._types is not None else np.zeros_like(ids)
        feeds = {
            "input_ids": ids, "attention_mask": mask, "token_type_ids": types,
            "position_ids": np.cumsum(mask, 1) - mask, "beam_idx": np.zeros(len(ids), np.int32),
        }  # fmt: skip
        with self._lock:  # a call in the background uses the same request
            self._request.reset_state()
            arrays = {name: feeds[name] for name in self._names}
            results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
            return np.array(results[0], np.float32), mask

    def start(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Run a call in the background."""
        self._future = self._executor.submit(call, *arguments)

    def wait(self) -> Any:
        """The result of the last call in the background. RuntimeError without one."""
        if self._future is None:
            raise OvjitError("nothing was started: call the start method before")
        return self._future.result()


def check_texts(texts: Any) -> list[str]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
        raise TypeError(f"texts should be a list of str, not {type(texts).__name__}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("texts should be a list of str")
    return list(texts)


def _check_text(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} should be a str, not {type(text).__name__}")
    return text


def pool_states(states: np.ndarray, mask: np.ndarray, config: _EmbeddingConfig) -> np.ndarray:
    """The vectors f32 [texts, size] of states [texts, tokens, size]."""
    if config.pooling_type is _PoolingType.CLS:
        vectors = states[:, 0]
    elif config.pooling_type is _PoolingType.MEAN:
        weights = mask[..., None].astype(np.float32)
        vectors = (states * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)
    else:
        last = mask.shape[1] - 1 - (mask[:, ::-1] != 0).argmax(1)
        vectors = states[np.arange(len(states)), last]
    if config.normalize:
        norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(1, keepdims=True))
        vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return vectors


class TextEmbeddingPipeline:
    """Vectors of texts: TextEmbeddingPipeline(folder, device, config=None, **kwargs). Keywords are fields of
    Config, if there is no config, and properties of the device."""

    Config = _EmbeddingConfig
    PoolingType = _PoolingType

    def __init__(self, models_path: Any, device: str, config: Any = None, **kwargs: Any):
        self._encoder = _Encoder(models_path, device, config, _EmbeddingConfig, kwargs, False, self._prepare)
        self._encoder.config.validate()

    @staticmethod
    def _prepare(model: Any, config: Any) -> None:
        """Make the model compute only the first token's state, if that is the embedding."""
        taker = model.get_results()[0].input(0)
        if config.pooling_type is _PoolingType.CLS and taker.get_partial_shape().rank == 3:
            take_rows(taker, 1, 0, 1)
            model.get_results()[0].validate_and_infer_types()

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text."""
        return self.embed(texts, self._encoder.config.embed_instruction or "")

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        instruction = self._encoder.config.query_instruction or ""
        return self.embed([_check_text(text, "text")], instruction)[0]

    def embed(self, texts: Sequence[str], prompt: str) -> list[list[float]]:
        """A vector for each text with `prompt` before it."""
        config, checked = self._encoder.config, check_texts(texts)
        prompt = _check_text(prompt, "prompt")
        if not checked:
            raise OvjitError("the list of texts is empty")
        if config.batch_size is not None and len(checked) != config.batch_size:
            raise OvjitError(
                f"Number of texts passed to pipeline should be equal to batch_size({config.batch_size})"
            )
        states, mask = self._encoder.infer(self._encoder.encode([prompt + text for text in checked]))
        return pool_states(states, mask, config).tolist()

    def start_embed_documents_async(self, texts: Sequence[str]) -> None:
        """Begin `embed_documents` in the background."""
        self._encoder.start(self.embed_documents, check_texts(texts))

    def wait_embed_documents(self) -> list[list[float]]:
        """The result of the call in the background."""
        return self._encoder.wait()

    def start_embed_query_async(self, text: str) -> None:
        """Begin `embed_query` in the background."""
        self._encoder.start(self.embed_query, _check_text(text, "text"))

    def wait_embed_query(self) -> list[float]:
        """The result of the call in the background."""
        return self._encoder.wait()


class TextRerankPipeline:
    """Scores of texts for a query: TextRerankPipeline(folder, device, config=None, **kwargs). The model
    classifies pairs: with one label the score is its sigmoid, else the probability of the second label. A
    decoder of the type qwen3 reads the query and a text in one, and answers: the score is the probability of
    `yes` among `yes` and `no`."""

    Config = _RerankConfig

    def __init__(self, models_path: Any, device: str, config: Any = None, **kwargs: Any):
        self._answers = False
        if isinstance(models_path, (str, bytes, os.PathLike)):
            settings = read_settings(Path(os.fsdecode(models_path)) / "config.json")
            self._answers = settings.get("model_type") == "qwen3"
        self._encoder = _Encoder(
            models_path, device, config, _RerankConfig, kwargs, not self._answers, self._prepare
        )
        if self._answers:
            vocabulary = self._encoder.tokenizer.get_vocab()
            if not {b"yes", b"no"} <= vocabulary.keys():
                raise IndexError(
                    "a reranker of the type qwen3 needs the tokens 'yes' and 'no' in its vocabulary"
                )
            self._words = [vocabulary[b"no"], vocabulary[b"yes"]]

    def _prepare(self, model: Any, _: Any) -> None:
        """Make the model compute only the rows from which the score is computed."""
        if self._answers:
            keep_last(model, 1)
        else:
            take_first_tokens(model)

    def rerank(self, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """(index of a text, its score) of the best texts, the best first."""
        query, checked = _check_text(query, "query"), check_texts(texts)
        if not checked:
            return []
        if self._answers:
            logits, _ = self._encoder.infer(self._encoder.encode([query + text for text in checked]))
            if logits.ndim == 3:
                logits = logits[:, -1, self._words]
        else:
            logits, _ = self._encoder.infer(self._encoder.encode([query] * len(checked), checked))
        if logits.ndim != 2:
            raise UnsupportedError(
                f"a model whose logits have {logits.ndim} dimensions is not supported: a classifier of pairs "
                "has [texts, labels]"
            )
        values = logits.astype(np.float64)
        if values.shape[1] == 1:
            scores = 1 / (1 + np.exp(-values[:, 0]))
        else:
            weights = np.exp(values - values.max(1, keepdims=True))
            scores = weights[:, 1] / weights.sum(1)
        order = np.argsort(-scores, kind="stable")[: self._encoder.config.top_n]
        return [(int(i), float(np.float32(scores[i]))) for i in order]

    def start_rerank_async(self, query: str, texts: Sequence[str]) -> None:
        """Begin `rerank` in the background."""
        self._encoder.start(self.rerank, _check_text(query, "query"), check_texts(texts))

    def wait_rerank(self) -> list[tuple[int, float]]:
        """The result of the call in the background."""
        return self._encoder.wait()
