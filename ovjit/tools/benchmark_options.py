"""The options of `ovjit benchmark`: the names are those of OpenVINO's benchmark_app, and some of our own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Seconds without -t and -niter.
SECONDS = 10.0
ROUNDS = 10
HINTS = {
    "latency": "LATENCY", "throughput": "THROUGHPUT", "tput": "THROUGHPUT", "none": None,
    "cumulative_throughput": "CUMULATIVE_THROUGHPUT", "ctput": "CUMULATIVE_THROUGHPUT",
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="ovjit benchmark",
        usage="ovjit benchmark -m MODEL [MODEL ...] [options]   (ovjit benchmark -h lists them)",
        description="Latency and throughput of models, compared in interleaved rounds.",
        allow_abbrev=False,
    )

    def add(names: str, text: str, **how: Any) -> None:
        p.add_argument(*names.split(), help=text, **how)

    for options in (_add_model_options, _subjects, _reports):
        options(add)
    return p


def _add_model_options(add: Callable[..., None]) -> None:
    """Models and their inputs, and how long they run."""
    add("-m --path_to_model", "IR, ONNX or blob files", nargs="+", required=True, metavar="MODEL")
    add(
        "-i --paths_to_input",
        "an .npy or .bin file for each input, in order",
        nargs="*",
        default=[],
        metavar="FILE",
    )
    add("-niter --number_iterations", "inferences of each subject, in place of a time", type=positive)
    add(
        "-t --time",
        f"time for all subjects together; default {SECONDS:.0f} each",
        type=_seconds,
        metavar="SECONDS",
    )
    add("-b --batch_size", "the first dimension of all inputs", type=positive)
    add("-shape", '"input[1,3,224,224],mask[1,128]" or "[1,3,224,224]"', default="")
    add(
        "-data_shape",
        'shapes of the data where those of the model are open; several in turn: "x[1,8][1,16]"',
        default="",
    )
    add("-layout", '"input[NCHW],other[NC]" or "[NCHW]": where -b finds the batch', default="")
    add("-ip --input_precision", "element type of all inputs", metavar="TYPE")
    add("-op --output_precision", "element type of all outputs", metavar="TYPE")
    add("-iop --input_output_precision", '"input:f16,output:u8"', default="")
    add("--mean_values", "subtracted from inputs: [..] or name[..]", default="", metavar="[R,G,B]")
    add("--scale_values", "inputs are divided by these", default="", metavar="[R,G,B]")
    add(
        "-inference_only --inference_only",
        "False: give the inputs to every inference; default: True with one set of data",
        **_SWITCH | {"default": None},
    )
    add("-no_warmup", "count the first inferences as well", action="store_true")
    add("-lfile --load_from_file", "compile the file without reading it first", action="store_true")
    add(
        "-max_irate --maximum_inference_rate",
        "start no more inferences in a second",
        type=float,
        default=0,
        metavar="FPS",
    )


def _subjects(add: Callable[..., None]) -> None:
    """Options of the subjects to compare: devices, hints, ways of calling, properties."""
    add("-d --target_device", "CPU, GPU, or AUTO, which is the CPU", default="CPU")
    add(
        "-hint --perf_hint",
        "latency (default), throughput or tput, cumulative_throughput or ctput, none",
        nargs="+",
        default=["latency"],
        choices=sorted(HINTS),
        metavar="HINT",
    )
    add("-api --api_type", "default: sync for latency, else async", choices=("sync", "async"))
    add("-pin --infer_threads_pinning", "ENABLE_CPU_PINNING", choices=("YES", "NO"))
    add("-nireq --number_infer_requests", "requests of the asynchronous way", type=positive)
    add("-nstreams --number_streams", "numbers of streams to compare", nargs="+", default=[None])
    add(
        "-nthreads --number_threads",
        "numbers of threads to compare",
        nargs="+",
        type=positive,
        default=[None],
    )
    add(
        "-infer_precision", "f32, bf16, f16: precisions to compare", nargs="+", default=[None], metavar="TYPE"
    )
    add("-cdir --cache_dir -cache_dir", "CACHE_DIR of the compilations")
    add(
        "-extensions --extensions",
        "Python files, separated by commas, with operations derived from ovjit.Op",
        default="",
        metavar="FILES",
    )
    add("-c --path_to_cldnn_config", "kernels of Intel's GPUs: without effect", metavar="FILE")
    add("-load_config", "a JSON file {device: {property: value}}", type=Path)
    add("-dump_config", "write the properties that are in force there", type=Path)


def _reports(add: Callable[..., None]) -> None:
    """Options of reports: their content and their files."""
    add("-pc --perf_counts", "print the times of all steps of each subject", **_SWITCH)
    add("-pcseq --pcseq", "latencies for each shape of -data_shape", **_SWITCH)
    add(
        "-pcsort --perf_counts_sort",
        "the slowest first; simple_sort: only what was executed",
        choices=("no_sort", "sort", "simple_sort"),
        default="no_sort",
    )
    add(
        "-report_type --report_type",
        "write benchmark_report.csv, and the times of steps",
        choices=("no_counters", "average_counters", "detailed_counters"),
    )
    add("-report_folder --report_folder", "where reports are written", type=Path, default=Path())
    add("-json_stats --json_stats", "reports as JSON and not as CSV", **_SWITCH)
    add(
        "-lp -latency_percentile --latency_percentile",
        "a percentile of latencies for the table; default 50",
        type=int,
        default=50,
        choices=range(1, 101),
        metavar="1..100",
    )
    add(
        "-exec_graph_path --exec_graph_path",
        "write the runtime model of the first subject there (IR)",
        type=Path,
    )
    add("--rounds", "every subject is measured so many times, in turn", type=positive, default=ROUNDS)
    add("--seed", "of random inputs", type=int, default=1)
    add("--json", "write all numbers there", type=Path)
    add("--csv", "write the table there", type=Path)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} should be at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be above 0")
    return value


def yes(text: str) -> bool:
    """The options that benchmark_app gives as True or False."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text}: True or False")


#: An option whose value may be left out.
_SWITCH: dict[str, Any] = {"type": yes, "nargs": "?", "const": True, "default": False}
