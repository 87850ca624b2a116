"""Accuracy of trained networks in every precision: ovjit beside OpenVINO and ONNX Runtime.

    python -m bench.accuracy [--seeds 0 1 2] [--folder DIR] [--page docs/accuracy.md] [name ...]

Networks are trained here in seconds (`bench.trained`), once for each seed, or come with Python packages
(`bench.packaged`). NNCF makes their versions of 8 and 4 bits; ovjit and the real OpenVINO read the same
files. `differs` counts predictions in which the two differ, of all seeds. A row is marked where ovjit is
worse than OpenVINO by more than a prediction in 200, or by more than 0.5 % in perplexity. Needs torch,
scikit-learn and nncf.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, networks, packaged, report

#: Kind -> (how the file is made, properties of both engines). Caches are those of decoders.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "f32": ("", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}),
    "bf16": ("", {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"}),
    "f16": ("", {"INFERENCE_PRECISION_HINT": "f16", "KV_CACHE_PRECISION": "f16"}),
    "u8 caches": ("", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "u8"}),
    "int8": ("int8", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}),
    "w8": ("w8", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}),
    "w4": ("w4", {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}),
}
COLUMNS = (
    "model",
    "measure",
    "precision",
    "ovjit",
    "openvino",
    "simulated",
    "onnxruntime",
    "differs",
    "of",
    "worse",
)
PAGE = """# Accuracy of trained networks

Made by `python -m bench.accuracy --seeds {seeds} --page docs/accuracy.md` on commit {commit},
{about}.

Each number is the mean over seeds, ± the standard deviation. A seed sets the split of data, the training
and the order of examples. For packaged models it sets the inputs only. ovjit and OpenVINO read the same file
with the same properties. `differs` counts the predictions that differ between the two, over all seeds.

| model | data |
|---|---|
| mlp | scikit-learn's wines |
| cnn, lstm, vit | scikit-learn's digits |
| gpt | a decoder of characters with caches, on the text of these pages; perplexity of held-out windows |
| rapidocr-rec, rapidocr-cls | drawn lines of text: recognised; found upside down |
| rapidocr-det | pages of four drawn lines: lines that are found |
| silero-vad | synthetic sounds, as no package ships labelled speech; right is ONNX Runtime in f32 |

| precision | how it is made |
|---|---|
| f32, bf16, f16 | `INFERENCE_PRECISION_HINT`; caches have the same type |
| u8 caches | `KV_CACHE_PRECISION`; all else is f32 |
| int8 | `nncf.quantize` |
| w8, w4 | `nncf.compress_weights`: INT8_ASYM; INT4_SYM in groups of 16 |
| simulated | int8 by OpenVINO with `LP_TRANSFORMS_MODE: NO`, which computes quantizers in f32 |

ONNX Runtime has f32, and int8 by NNCF's version of the ONNX file. Precisions with equal results share a row.

{table}

`worse` marks a row in which ovjit is worse than OpenVINO by more than 0.5 points, or by more than 0.5 %
of perplexity: {count}. `as simulated` marks a row in which the simulation is worse by as much.

[Residuals](precision.md#quantised-models) explain differences in int8.
"""
#: Tokens that a decoder gets at once before it gets one at a time.
PREFIX = 16


def variant(path: Path, kind: str, some: list[Any]) -> Path:
    """The file of this kind, made once by NNCF. `some` are inputs that ranges are measured on."""
    if not kind:
        return path
    made = path.with_name(f"{path.stem}-{kind}{path.suffix}")
    if made.exists():
        return made
    import nncf
    import onnx
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    whole = path.suffix == ".onnx"
    model = onnx.load(path) if whole else openvino.Core().read_model(path)
    if kind == "int8":
        # Weights of 7 bits: CPUs without VNNI cut off sums of two products of more.
        halved = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        model = nncf.quantize(model, nncf.Dataset(some), subset_size=len(some), advanced_parameters=halved)
    else:
        modes = nncf.CompressWeightsMode
        mode, options = (modes.INT8_ASYM, {}) if kind == "w8" else (modes.INT4_SYM, _few_bits())
        model = nncf.compress_weights(model, mode=mode, **options)
    if whole:
        onnx.save(model, made)
    else:
        openvino.save_model(model, made, compress_to_fp16=False)
    return made


def _few_bits() -> dict[str, Any]:
    """Groups of 16; layers whose rows do not divide into them keep their weights."""
    import nncf

    other = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE)
    return {"group_size": 16, "ratio": 1.0, "all_layers": True, "advanced_parameters": other}


def engines(path: Path, hints: dict[str, Any], simulated: bool = False) -> dict[str, Any]:
    """The file compiled by ovjit and by OpenVINO; `simulated`: by OpenVINO with quantizers in f32, too."""
    import openvino

    import ovjit

    found = {
        "ovjit": ovjit.Core().compile_model(str(path), "CPU", hints),
        "openvino": openvino.Core().compile_model(str(path), "CPU", hints),
    }
    if simulated:
        plain = {**hints, "LP_TRANSFORMS_MODE": "NO"}
        found["simulated"] = openvino.Core().compile_model(str(path), "CPU", plain)
    return found


def session(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The first output of an ONNX file by ONNX Runtime."""
    import onnxruntime

    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda given: opened.run(None, given)[0]


def classifier(name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each kind: the share of held-out examples that each engine gets right."""
    from bench import trained

    path = trained.make(name, seed, folder)
    data = np.load(path.with_suffix(".npz"))
    x, y = data["x"], data["y"]
    rows = []
    for precision, (kind, hints) in KINDS.items():
        if "cache" in precision:
            continue
        file = variant(path, kind, [data["some"][i : i + 1] for i in range(64)])
        found = {
            engine: model(x)[0].argmax(1) for engine, model in engines(file, hints, kind == "int8").items()
        }
        if precision in ("f32", "int8"):
            some = [{"x": data["some"][i : i + 1]} for i in range(64)]
            found["onnxruntime"] = session(variant(path.with_suffix(".onnx"), kind, some))({"x": x}).argmax(1)
        row = {engine: float((labels == y).mean()) * 100 for engine, labels in found.items()}
        differs = int((found["ovjit"] != found["openvino"]).sum())
        rows.append({"measure": "% right", "precision": precision, **row, "differs": differs, "of": len(y)})
    return rows


def decoded(compiled: Any, tokens: np.ndarray) -> np.ndarray:
    """Logits for each window [n, t, letters]: a prefix at once, then a character at a time, with caches."""
    from bench import trained

    request, out = compiled.create_infer_request(), []
    for row in tokens:
        request.reset_state()
        parts, at = [], 0
        for length in (PREFIX, *[1] * (len(row) - PREFIX)):
            given = {"tokens": row[None, at : at + length], "mask": trained.causal(at, length)}
            places = np.arange(at, at + length)
            request.infer({**given, "places": places})
            parts.append(np.array(request.get_output_tensor(0).data[0]))
            at += length
        out.append(np.concatenate(parts))
    return np.stack(out)


def perplexity(logits: np.ndarray, wanted: np.ndarray) -> float:
    """exp of the mean negative log-likelihood of the wanted characters."""
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(np.exp(-np.take_along_axis(logs, wanted[..., None], -1).mean()))


def language_model(name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each kind: the perplexity of held-out text by a decoder with caches."""
    from bench import trained

    path = trained.make(name, seed, folder)
    data = np.load(path.with_suffix(".npz"))
    x, y, rows = data["x"][:, :-1], data["y"], []
    for precision, (kind, hints) in KINDS.items():
        if kind == "int8":
            continue  # NNCF measures no ranges through a decoder's caches
        found = {e: decoded(model, x) for e, model in engines(variant(path, kind, []), hints).items()}
        if precision == "f32":
            given = {"mask": trained.causal(0, x.shape[1]), "places": np.arange(x.shape[1])}
            found["onnxruntime"] = session(path.with_suffix(".onnx"))({"tokens": x, **given})
        row = {engine: perplexity(logits, y) for engine, logits in found.items()}
        differs = int((found["ovjit"].argmax(-1) != found["openvino"].argmax(-1)).sum())
        rows.append(
            {"measure": "perplexity", "precision": precision, **row, "differs": differs, "of": y.size}
        )
    return rows


def from_package(name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each kind, of a model in an installed package; none where the package is not installed."""
    task = packaged.TASKS[name]
    source = packaged.file_of(task)
    if source is None:
        return []
    path = packaged.as_ir(source, folder, name)
    examples = task.examples(seed)
    exact, rows = session(source), []
    known = [exact(given) for given in examples.inputs]
    for precision, (kind, hints) in KINDS.items():
        if "cache" in precision:
            continue
        file = variant(path, kind, task.examples(1000).inputs)
        found = {
            engine: [np.array(model(given)[0]) for given in examples.inputs]
            for engine, model in engines(file, hints, kind == "int8").items()
        }
        if precision == "f32":
            found["onnxruntime"] = known
        read = {engine: [task.read(result) for result in results] for engine, results in found.items()}
        wanted = examples.wanted or [task.read(result) for result in known]
        row = {engine: task.score(said, wanted) for engine, said in read.items()}
        differs = sum(a != b for a, b in zip(read["ovjit"], read["openvino"], strict=True))
        rows.append(
            {"measure": task.measure, "precision": precision, **row, "differs": differs, "of": len(wanted)}
        )
    return rows


def summary(model: str, runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Runs with several seeds as rows of means and standard deviations."""
    out = []
    for same in zip(*runs, strict=True):
        row = {"model": model, "measure": same[0]["measure"], "precision": same[0]["precision"]}
        means = {}
        for engine in ("ovjit", "openvino", "simulated", "onnxruntime"):
            if engine in same[0]:
                values = [one[engine] for one in same]
                means[engine] = statistics.fmean(values)
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                row[engine] = f"{means[engine]:.2f} ± {spread:.2f}"
        row["differs"], row["of"] = (sum(one[key] for one in same) for key in ("differs", "of"))
        row["worse"] = judged(row["measure"], means)
        out.append(row)
    return out


def judged(measure: str, means: dict[str, float]) -> str:
    """ "worse" than OpenVINO, "as simulated" where the exact quantizers are not better, or nothing."""

    def behind(engine: str) -> bool:
        if measure == "perplexity":
            return means["ovjit"] > 1.005 * means[engine]
        if measure == "% of characters wrong":
            return means["ovjit"] > means[engine] + 0.5
        return means["ovjit"] < means[engine] - 0.5

    if not behind("openvino"):
        return ""
    return "as simulated" if "simulated" in means and not behind("simulated") else "worse"


def merge_equal_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a model with equal results in both engines are one row, which names all their precisions."""
    by_result: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row.get(name, "") for name in COLUMNS if name not in ("precision", "onnxruntime"))
        if key not in by_result:
            by_result[key] = dict(row)
            continue
        merged = by_result[key]
        merged["precision"] += f", {row['precision']}"
        figures = merged.get("onnxruntime", ""), row.get("onnxruntime", "")
        if all(figures) and figures[0] != figures[1]:
            figures = f"{figures[0]}, {figures[1]}", ""
        merged["onnxruntime"] = figures[0] or figures[1]
    return list(by_result.values())


def page(rows: list[dict[str, Any]], seeds: list[int]) -> str:
    """docs/accuracy.md"""
    about = report.machine()
    count = sum(row["worse"] == "worse" for row in rows)
    merged = ([row.get(key, "") for key in COLUMNS] for row in merge_equal_rows(rows))
    table = [COLUMNS, ["---"] * len(COLUMNS), *merged]
    return PAGE.format(
        seeds=" ".join(map(str, seeds)),
        about=f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['date'][:10]}",
        commit=about["commit"],
        table="\n".join("| " + " | ".join(map(str, row)) + " |" for row in table),
        count=f"{count} rows of {len(rows)}",
    )


def runners() -> dict[str, Callable[[str, int, Path], list[dict[str, Any]]]]:
    """name -> what measures it with a seed."""
    found = dict.fromkeys(("mlp", "cnn", "lstm", "vit"), classifier) | {"gpt": language_model}
    return found | dict.fromkeys(packaged.TASKS, from_package)


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("accuracy", __doc__, json=False)
    parser.add_argument("names", nargs="*", metavar="name", help=f"default: all of {' '.join(runners())}")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=networks.default_folder().parent / "trained-1")
    parser.add_argument("--page", type=Path, default=None)
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for name, runner in runners().items():
        if not arguments.names or name in arguments.names:
            rows += summary(name, [runner(name, seed, arguments.folder) for seed in arguments.seeds])
            print(report.table([row for row in rows if row["model"] == name], COLUMNS), flush=True)
    if arguments.page:
        arguments.page.write_text(page(rows, arguments.seeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
