"""Programs of adapters and drafts whose results are compared: on the real openvino_genai or on ovjit.

    python -m tests.support.genai_adapters FOLDER > tests/genai/adapters.json

runs on the real packages. FOLDER is one that `tests.support.genai_folder` has written.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.genai_cases import EXACT, value_of

SEED = 20261129
LAYERS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
NAMES = (*(f"model.layers.{i}.{layer}" for i in range(2) for layer in LAYERS), "lm_head")
#: Outputs and inputs of the layers of the small llama.
SHAPES = dict(
    zip(LAYERS, ((32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48)), strict=True)
)
PREFIX = "base_model.model."
Tensors = dict[str, tuple[str, np.ndarray]]


def write_safetensors(tensors: Tensors) -> bytes:
    """The bytes of a file: name -> (type, values)."""
    header, body = {}, b""
    for name, (kind, array) in tensors.items():
        data = array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def adapt_names(package: Any, folder: Path, like: Path) -> Path:
    """A folder whose layers have the names that optimum-intel gives them."""
    shutil.copytree(like, folder)
    model = package.Core().read_model(like / "openvino_model.xml")
    products = [n for n in model.get_ordered_ops() if n.get_type_name() == "MatMul"
                and n.input_value(1).get_node().get_type_name() == "Constant"]  # fmt: skip
    products.sort(key=lambda n: int(n.get_friendly_name().split("_")[1]))
    for node, name in zip(products, NAMES, strict=True):
        node.set_friendly_name(f"__module.{name}/ov_ext::linear/MatMul")
    (folder / "openvino_model.xml").unlink()
    (folder / "openvino_model.bin").unlink()
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return folder


def tensors_of(seed: int, rank: int, names: Any = NAMES, scale: float = 0.5, kind: str = "F32",
               prefix: str = PREFIX, parts: tuple[str, str] = ("lora_A", "lora_B")) -> Tensors:  # fmt: skip
    """Random matrices of layers."""
    rng = np.random.default_rng([SEED, seed])
    tensors: Tensors = {}
    for name in names:
        outputs, inputs = SHAPES.get(".".join(name.split(".")[3:]), (300, 32))
        for part, shape in zip(parts, ((rank, inputs), (outputs, rank)), strict=True):
            array = rng.standard_normal(shape).astype(np.float32) * np.float32(scale)
            if kind == "F16":
                array = array.astype(np.float16)
            elif kind == "BF16":
                array = (array.view(np.uint32) >> 16).astype(np.uint16)
            tensors[f"{prefix}{name}.{part}.weight"] = kind, array
    return tensors


def pair_of(name: str, outputs: int, inputs: int, ranks: tuple[int, int] = (4, 4)) -> Tensors:
    """Matrices of ones of one layer."""
    return {
        f"{PREFIX}{name}.lora_A.weight": ("F32", np.ones((ranks[0], inputs), np.float32)),
        f"{PREFIX}{name}.lora_B.weight": ("F32", np.ones((outputs, ranks[1]), np.float32)),
    }


_SOME = tuple(name for name in NAMES if "q_proj" in name or "v_proj" in name)
_A = tensors_of(1, 4, _SOME)
_FIRST = "model.layers.0.mlp.up_proj"
#: Adapters by name.
FILES: dict[str, Tensors] = {
    "a": _A, "b": tensors_of(2, 2, scale=0.4), "f16": tensors_of(1, 4, _SOME, kind="F16"),
    "bf16": tensors_of(1, 4, _SOME, kind="BF16"), "no prefix": tensors_of(1, 4, _SOME, prefix=""),
    "down": tensors_of(1, 4, _SOME, parts=("lora_down", "lora_up")), "dots": tensors_of(1, 4, _SOME, parts=("lora.down", "lora.up")),
    "alpha": _A | {f"{PREFIX}{name}.alpha": ("F32", np.array(0.25, np.float32)) for name in _SOME},
    "unused": _A | pair_of("model.layers.7.mlp.up_proj", 48, 32) | {"other": ("F32", np.ones(3, np.float32))},
    "half a pair": _A | dict([next(iter(pair_of(_FIRST, 48, 32).items()))]),
    "wrong size": _A | pair_of(_FIRST, 48, 33), "wrong rank": _A | pair_of(_FIRST, 48, 32, (4, 5)),
    "integers": _A | {"other": ("I32", np.ones(3, np.int32))},
}  # fmt: skip


def write_adapters(folder: Path) -> dict[str, Path]:
    paths = {}
    for name, tensors in FILES.items():
        paths[name] = folder / f"{name}.safetensors"
        paths[name].write_bytes(write_safetensors(tensors))
    return paths


def programs(genai: Any, ov: Any, like: Path, work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    folder = adapt_names(ov, work / "llama", like)
    paths = write_adapters(work)
    adapters = {name: genai.Adapter(paths[name]) for name in ("a", "b")}
    a, b = adapters["a"], adapters["b"]
    config, modes = genai.AdapterConfig, genai.AdapterConfig.Mode
    row = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
    options = {"max_new_tokens": 8, "ignore_eos": True}

    def load(adapted: Any, **properties: Any) -> Any:
        return genai.LLMPipeline(folder, "CPU", adapters=adapted, **properties, **EXACT)

    def run(pipeline: Any, **others: Any) -> Any:
        return pipeline.generate(row, **options, **others).tokens[0]

    yield "plain", lambda: run(genai.LLMPipeline(folder, "CPU", **EXACT))
    yield "plain with adapters", lambda: run(genai.LLMPipeline(folder, "CPU", **EXACT), adapters=config(a))
    for name, path in paths.items():
        yield f"file {name}", lambda path=path: run(load(config(genai.Adapter(path))))
    yield "bytes", lambda: run(load(config(genai.Adapter(ov.Tensor(np.fromfile(paths["a"], np.uint8))))))
    (work / "junk.safetensors").write_bytes(b"nothing to see here")
    (work / "a.bin").write_bytes(paths["a"].read_bytes())
    for name in ("junk.safetensors", "a.bin", "missing.safetensors"):
        yield name, lambda name=name: genai.Adapter(work / name)
    for name, adapted in {"an adapter": a, "a list": [a], "None": None, "no adapters": config()}.items():
        yield f"load {name}", lambda adapted=adapted: run(load(adapted))
    for mode in ("AUTO", "DYNAMIC", "STATIC_RANK", "STATIC", "FUSE"):
        kind = getattr(modes, f"MODE_{mode}")
        pipelines: list[Any] = []

        def both(kind: Any = kind, pipelines: Any = pipelines, **others: Any) -> Any:
            if not pipelines:
                pipelines.append(load(config([a, b], kind)))
            return run(pipelines[0], **others)

        yield f"{mode} both", both
        yield f"{mode} both again", both
        yield f"{mode} the same", lambda both=both: both(adapters=config([a, b]))
        yield (
            f"{mode} other mode",
            lambda both=both, mode=mode: both(
                adapters=config([a, b], modes.MODE_STATIC if mode == "FUSE" else modes.MODE_FUSE)
            ),
        )
        for name, adapted in {
            "both scaled": config([(a, 0.5), (b, 2)]), "one of both": config([(a, 0.0), (b, 1.0)]), "one": config(a),
            "scaled": config(b, 0.5), "nothing": config(), "scale 0": config(a, 0.0), "another": config(genai.Adapter(paths["b"])),
        }.items():  # fmt: skip
            yield f"{mode} {name}", lambda adapted=adapted, both=both: both(adapters=adapted)
        if mode not in ("STATIC", "FUSE"):  # the real package fails here
            yield f"{mode} defaults", both
    some = load(config(a))
    for name, adapted in {"fewer layers": config(b), "fewer and more": config([a, b])}.items():
        yield name, lambda adapted=adapted: run(some, adapters=adapted)
    yield "the last ones stay", lambda: some.generate(row, genai.GenerationConfig(**options)).tokens[0]
    yield "beams", lambda: some.generate(row, num_beams=3, num_return_sequences=3, **options).tokens
    yield from batches(genai, ov, folder, config, a, b)
    yield from sparse(genai, ov, folder)
    yield from rerankers(genai, like, work)


def batches(
    genai: Any, ov: Any, folder: Path, config: Any, a: Any, b: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    row = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
    long = ov.Tensor(np.random.default_rng(SEED).integers(3, 300, (1, 80)))
    options = {"max_new_tokens": 12, "ignore_eos": True}
    similar = config(b, 0.12)

    def load(**properties: Any) -> Any:
        return genai.ContinuousBatchingPipeline(
            folder, genai.SchedulerConfig(), "CPU", {**properties, **EXACT}
        )

    def run(pipeline: Any, inputs: Any, **others: Any) -> Any:
        configs = [genai.GenerationConfig(**options, **others)] * len(inputs)
        results = pipeline.generate(inputs, configs)
        return [[r.m_generation_ids[0] for r in results], figures(results[0].extended_perf_metrics)]

    def figures(metrics: Any) -> Any:
        if metrics is None:
            return None
        names = ("accepted", "draft", "rejected", "generated", "input")
        return [type(metrics).__name__, *(getattr(metrics, f"get_num_{name}_tokens")() for name in names)]

    adapted = load(adapters=config(b))
    for name, others in {
        "default": {},
        "another": {"adapters": config(a)},
        "the last": {},
        "none": {"adapters": config()},
    }.items():
        yield f"batch {name}", lambda others=others: run(adapted, [row, long], **others)
    draft = load(draft_model=genai.draft_model(folder, "CPU", adapters=similar, **EXACT))
    for others in ({}, *({"num_assistant_tokens": n} for n in (1, 3, 9))):
        for name, inputs in {"one": [row], "two": [row, long], "long": [long]}.items():
            yield f"draft {others} {name}", lambda o=others, i=inputs: run(draft, i, **o)
    for name, others in {
        "beams": {"num_beams": 3}, "several": {"num_return_sequences": 2, "do_sample": True},
        "both": {"num_assistant_tokens": 3, "assistant_confidence_threshold": 0.3},
    }.items():  # fmt: skip
        yield f"draft {name}", lambda o=others: run(draft, [row], **o)

    def read() -> Any:
        handle = draft.add_request(0, row, genai.GenerationConfig(num_assistant_tokens=3, **options))
        outputs = []
        while draft.has_non_finished_requests():
            draft.step()
            while handle.can_read():
                outputs += [[o.generated_ids, o.finish_reason.name] for o in handle.read().values()]
        return outputs

    yield "draft handle", read
    lookup = load(prompt_lookup=True)
    repeated = ov.Tensor(np.array([[1, 235, 108, 109, 67, 97, 255, 67, 97, 1, 260, 270, 20] * 2], np.int64))
    yield "lookup", lambda: run(lookup, [repeated, long], num_assistant_tokens=3, max_ngram_size=2)
    yield "lookup without settings", lambda: run(lookup, [row])
    yield (
        "both kinds",
        lambda: load(prompt_lookup=True, draft_model=genai.draft_model(folder, "CPU", **EXACT)),
    )
    yield "no draft", lambda: load(draft_model=3)
    single = genai.LLMPipeline(
        folder,
        "CPU",
        adapters=config(a),
        draft_model=genai.draft_model(folder, "CPU", adapters=similar, **EXACT),
        **EXACT,
    )
    own = genai.LLMPipeline(folder, "CPU", draft_model=genai.draft_model(folder, "CPU", **EXACT), **EXACT)
    for most in (20, 21, 22):
        results = lambda p, n=most: p.generate(row, num_assistant_tokens=4, max_new_tokens=n, ignore_eos=True)  # noqa: E731
        for name, pipeline in {"adapted": single, "own": own}.items():
            yield (
                f"single {name} {most}",
                lambda p=pipeline, results=results: [
                    results(p).tokens[0],
                    figures(results(p).extended_perf_metrics),
                ],
            )


def sparse(genai: Any, ov: Any, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Chunks of a long prompt that attend to its begin and to recent tokens."""
    prompt = ov.Tensor(np.random.default_rng(SEED).integers(3, 300, (1, 700)))
    config = genai.GenerationConfig(max_new_tokens=8, ignore_eos=True, logprobs=1)

    def run(prompts: int = 1, **sizes: int) -> Any:
        scheduler = genai.SchedulerConfig()
        scheduler.use_sparse_attention, scheduler.max_num_batched_tokens = bool(sizes), sizes.pop("chunk", 64)
        scheduler.sparse_attention_config = genai.SparseAttentionConfig(**sizes)
        pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", dict(EXACT))
        results = pipeline.generate([prompt] * prompts, [config] * prompts)
        return [
            [result.m_generation_ids[0], [round(float(s), 3) for s in result.m_scores]] for result in results
        ]

    names = (
        "num_last_dense_tokens_in_prefill",
        "num_retained_start_tokens_in_cache",
        "num_retained_recent_tokens_in_cache",
        "chunk",
    )
    yield "dense", run
    for sizes in (
        (0, 32, 64, 64), (100, 32, 64, 64), (100, 0, 32, 64), (1, 50, 100, 48), (1, 64, 96, 48), (100, 128, 1920, 64), (650, 32, 32, 64), (10, 32, 32, 333),
    ):  # fmt: skip
        yield f"sparse {sizes}", lambda sizes=sizes: run(**dict(zip(names, sizes, strict=True)))
    yield "sparse two", lambda: run(2, **dict(zip(names, (100, 32, 64, 64), strict=True)))


def write_reranker(folder: Path, like: Path, labels: dict[bytes, bytes]) -> Path:
    """A folder whose model_type is qwen3, and whose vocabulary has other words of the same length."""
    shutil.copytree(like, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    data = (folder / "openvino_detokenizer.bin").read_bytes()
    for old, new in labels.items():
        assert data.count(old) == 1
        data = data.replace(old, new)
    (folder / "openvino_detokenizer.bin").write_bytes(data)
    return folder


def rerankers(genai: Any, like: Path, work: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Decoders that answer with a word."""
    folder = write_reranker(work / "reranker", like, {b"<s>": b"yes", b" 2": b"no"})
    texts = ["hello world", "the weather isn't there, so", "is it so?", "other words and numbers 1 2 3"]

    def ranks(query: str, given: list[str], **options: Any) -> Any:
        pipeline = genai.TextRerankPipeline(folder, "CPU", **options, **EXACT)
        return [[i, round(score, 4)] for i, score in pipeline.rerank(query, given)]

    for options in ({}, {"top_n": 1}, {"max_length": 8}, {"padding_side": "left", "top_n": 9},
                    {"padding_side": "right", "top_n": 9}):  # fmt: skip
        yield (
            f"answers {options}",
            lambda o=options: [ranks("is it so?", texts, **o), ranks("the ", texts[:1], **o)],
        )
    missing = write_reranker(work / "missing", like, {b" 2": b"no"})
    yield "answers without words", lambda: genai.TextRerankPipeline(missing, "CPU")


def collect(genai: Any, ov: Any, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: value_of(run) for name, run in programs(genai, ov, folder, Path(work))}


if __name__ == "__main__":
    import openvino
    import openvino_genai

    results = collect(openvino_genai, openvino, Path(sys.argv[1]))
    print("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in results.items()) + "\n}")
