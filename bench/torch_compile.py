"""Compiled modules, `torch.compile(backend="openvino")` of ovjit beside OpenVINO's backend and Inductor.

    python -m bench.torch_compile [model ...] [--engines ovjit openvino inductor eager] [--rounds 9]
                                  [--threads 1] [--json out.json]

The models are those of `MODELS`, with seeded random weights, from torchvision and transformers. Each engine
has a process of its own. In every round each runs for `MOMENT` seconds; the order turns from round to round.
Times are CPU time, of all threads. `ratio` is ovjit's time divided by the engine's: the median over the
rounds, with quartiles. `difference` is the largest one to eager mode, as a share of the largest output. An
operator that ovjit leaves to eager mode ends the run of its engine: what is timed is compiled whole. So does
a graph that OpenVINO's backend hands to Inductor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

SEED = 20261122
ENGINES = ("ovjit", "openvino", "inductor", "eager")
#: Seconds that an engine runs in a round, and between two engines.
MOMENT, PAUSE = 0.5, 0.03
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def _image(name: str) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def make() -> tuple[Any, dict[str, Any]]:
        import torch
        import torchvision

        module = torchvision.models.get_model(name, weights=None)
        for weight in module.parameters():  # torchvision's ViT has a head of zeros: all outputs would be 0
            if weight.dim() > 1 and not weight.any():
                torch.nn.init.normal_(weight, std=0.02)
        return module, {"x": torch.rand(1, 3, 224, 224)}

    return make


def _text(kind: str, **sizes: int) -> Callable[[], tuple[Any, dict[str, Any]]]:
    def make() -> tuple[Any, dict[str, Any]]:
        import torch
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.for_model(kind, **sizes, use_cache=False)
        ids = torch.randint(3, config.vocab_size, (1, 128))
        return AutoModel.from_config(config), {"input_ids": ids}

    return make


#: Name -> makes a module and its arguments.
MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "resnet50": _image("resnet50"),
    "mobilenet_v3": _image("mobilenet_v3_large"),
    "vit": _image("vit_b_16"),
    "bert": _text("bert"),
    "llama": _text("llama", hidden_size=512, intermediate_size=1376, num_hidden_layers=8,
                   num_attention_heads=8, num_key_value_heads=4, vocab_size=8000),
    "tiny": _text("bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                  vocab_size=99),
}  # fmt: skip


# -- the side of an engine ---------------------------------------------------------------------------------


def compiled(engine: str, module: Any, threads: int) -> Any:
    """The module by an engine."""
    import torch

    if engine == "eager":
        return module
    if engine == "inductor":
        return torch.compile(module)
    if engine == "ovjit":
        import ovjit.torch  # noqa: F401  (its backends are registered)

        warnings.filterwarnings("error", message=r"torch.compile\(backend")
    else:
        import openvino.torch  # noqa: F401
        from openvino.frontend.pytorch.torchdynamo import backend

        backend.compile_fx = _refused
    options: dict[str, Any] = {"config": {**F32, "INFERENCE_NUM_THREADS": str(threads)}}
    # without, OpenVINO's backend of 2026.4 fails at the guards of PyTorch 2.15
    options["aot_autograd"] = engine == "openvino"
    return torch.compile(module, backend="ovjit" if engine == "ovjit" else "openvino", options=options)


def _refused(*_: Any) -> Any:
    """In the place of Inductor, to which OpenVINO's backend hands over without a word."""
    raise RuntimeError("OpenVINO's backend hands the graph to Inductor")


def difference(got: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The largest difference of an output, as a share of its largest number; NaN if one is not a number.

    Raises ValueError for an output of zeros, which a wrong engine may give, too.
    """
    import torch

    if any(not b.any() for b in wanted):
        raise ValueError("an output of the model is 0 everywhere: no engine can be checked with it")
    shares = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, wanted, strict=True)]
    return float(torch.stack(shares).max())


def serve(engine: str, name: str, threads: int) -> None:
    """Compile, tell how it went in a line of JSON, and for each line that is read run for a moment."""
    import torch

    from bench.torch_models import tensors_of

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    module, arguments = MODELS[name]()
    module.eval()
    with torch.inference_mode():
        wanted = tensors_of(module(**arguments))
        started = time.perf_counter()
        run = compiled(engine, module, threads)
        got = tensors_of(run(**arguments))
        first = time.perf_counter() - started
        print(json.dumps({"first_s": first, "difference": difference(got, wanted)}), flush=True)
        for _ in sys.stdin:
            times = []
            end = time.perf_counter() + MOMENT
            while not times or time.perf_counter() < end:
                began = time.process_time()
                run(**arguments)
                times.append(time.process_time() - began)
            print(json.dumps(statistics.median(times)), flush=True)


# -- the side that compares --------------------------------------------------------------------------------


def measure(name: str, engines: Sequence[str], rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Engine -> what it said of its first call, and its time in each round."""
    found: dict[str, dict[str, Any]] = {}
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for engine in engines:
            command = [sys.executable, "-m", "bench.torch_compile", "--serve", engine, name, str(threads)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                print(f"  {engine} is left out: it ended with {process.wait()}", file=sys.stderr)
                continue
            running[engine] = process
            found[engine] = {**json.loads(line), "times": []}
        order = list(running)
        for i in range(rounds):
            turn = i % max(len(order), 1)
            for engine in order[turn:] + order[:turn]:
                time.sleep(PAUSE)
                process = running[engine]
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                found[engine]["times"].append(json.loads(process.stdout.readline()))
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and their quartiles."""
    values = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return middle, low, high


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--serve"]:
        serve(given[1], given[2], int(given[3]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; all but tiny without")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="a file for all figures")
    chosen = parser.parse_args(given)
    kept = {}
    print(f"{'model':14}{'engine':10}{'median_ms':>10}{'ratio':>7}{'low':>7}{'high':>7}"
          f"{'first_s':>9}{'difference':>12}")  # fmt: skip
    for name in chosen.models or [m for m in MODELS if m != "tiny"]:
        kept[name] = measure(name, chosen.engines, chosen.rounds, chosen.threads)
        for engine, said in kept[name].items():
            base = kept[name].get("ovjit")
            cells = ratios(base["times"], said["times"]) if base else (float("nan"),) * 3
            print(f"{name:14}{engine:10}{statistics.median(said['times']) * 1e3:10.2f}"
                  f"{cells[0]:7.2f}{cells[1]:7.2f}{cells[2]:7.2f}"
                  f"{said['first_s']:9.2f}{said['difference']:12.1e}", flush=True)  # fmt: skip
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(kept, file, indent=1)


if __name__ == "__main__":
    main()
