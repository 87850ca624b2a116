"""The options of `ovjit benchmark`: the names are those of OpenVINO's benchmark_app, and some of our own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

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
    for options in (_given, _subjects, _reports):
        options(p.add_argument)
    return p


def _given(add: Callable[..., object]) -> None:
    """Models and their inputs, and how long they run."""
    add("-m", "--path_to_model", nargs="+", required=True, metavar="MODEL", help="IR, ONNX or blob files")
    add(
        "-i",
        "--paths_to_input",
        nargs="*",
        default=[],
        metavar="FILE",
        help="an .npy or .bin file for each input, in order",
    )
    add("-niter", "--number_iterations", type=positive, help="inferences of each subject, in place of a time")
    add(
        "-t",
        "--time",
        type=_seconds,
        metavar="SECONDS",
        help=f"time for all subjects together; default {SECONDS:.0f} each",
    )
    add("-b", "--batch_size", type=positive, help="the first dimension of all inputs")
    add("-shape", default="", help='"input[1,3,224,224],mask[1,128]" or "[1,3,224,224]"')
    add(
        "-data_shape",
        default="",
        help='shapes of the data where those of the model are open; several in turn: "x[1,8][1,16]"',
    )
    add("-layout", default="", help='"input[NCHW],other[NC]" or "[NCHW]": where -b finds the batch')
    add("-ip", "--input_precision", metavar="TYPE", help="element type of all inputs")
    add("-op", "--output_precision", metavar="TYPE", help="element type of all outputs")
    add("-iop", "--input_output_precision", default="", help='"input:f16,output:u8"')
    add("--mean_values", default="", metavar="[R,G,B]", help="subtracted from inputs: [..] or name[..]")
    add("--scale_values", default="", metavar="[R,G,B]", help="inputs are divided by these")
    _switch(
        add,
        "-inference_only",
        "--inference_only",
        default=None,
        help="False: give the inputs to every inference; default: True with one set of data",
    )
    add("-no_warmup", action="store_true", help="count the first inferences as well")
    add("-lfile", "--load_from_file", action="store_true", help="compile the file without reading it first")
    add(
        "-max_irate",
        "--maximum_inference_rate",
        type=float,
        default=0,
        metavar="FPS",
        help="start no more inferences in a second",
    )


def _subjects(add: Callable[..., object]) -> None:
    """What is compared: devices, hints, ways of calling, properties."""
    add("-d", "--target_device", default="CPU", help="CPU, or AUTO, which is the CPU")
    add(
        "-hint",
        "--perf_hint",
        nargs="+",
        default=["latency"],
        choices=sorted(HINTS),
        metavar="HINT",
        help="latency (default), throughput or tput, cumulative_throughput or ctput, none",
    )
    add("-api", "--api_type", choices=("sync", "async"), help="default: sync for latency, else async")
    add("-pin", "--infer_threads_pinning", choices=("YES", "NO"), help="ENABLE_CPU_PINNING")
    add("-nireq", "--number_infer_requests", type=positive, help="requests of the asynchronous way")
    add("-nstreams", "--number_streams", nargs="+", default=[None], help="numbers of streams to compare")
    add(
        "-nthreads",
        "--number_threads",
        nargs="+",
        type=positive,
        default=[None],
        help="numbers of threads to compare",
    )
    add(
        "-infer_precision",
        nargs="+",
        default=[None],
        metavar="TYPE",
        help="f32, bf16, f16: precisions to compare",
    )
    add("-cdir", "--cache_dir", "-cache_dir", help="CACHE_DIR of the compilations")
    add(
        "-extensions",
        "--extensions",
        default="",
        metavar="FILES",
        help="Python files, separated by commas, with operations derived from ovjit.Op",
    )
    add("-c", "--path_to_cldnn_config", metavar="FILE", help="kernels of GPUs: without effect on a CPU")
    add("-load_config", type=Path, help="a JSON file {device: {property: value}}")
    add("-dump_config", type=Path, help="write the properties that are in force there")


def _reports(add: Callable[..., object]) -> None:
    """Options of reports: their content and their files."""
    _switch(add, "-pc", "--perf_counts", help="print the times of all steps of each subject")
    _switch(add, "-pcseq", "--pcseq", help="latencies for each shape of -data_shape")
    add(
        "-pcsort",
        "--perf_counts_sort",
        choices=("no_sort", "sort", "simple_sort"),
        default="no_sort",
        help="the slowest first; simple_sort: only what was executed",
    )
    add(
        "-report_type",
        "--report_type",
        choices=("no_counters", "average_counters", "detailed_counters"),
        help="write benchmark_report.csv, and the times of steps",
    )
    add("-report_folder", "--report_folder", type=Path, default=Path(), help="where reports are written")
    _switch(add, "-json_stats", "--json_stats", help="reports as JSON and not as CSV")
    add(
        "-lp",
        "-latency_percentile",
        "--latency_percentile",
        type=int,
        default=50,
        choices=range(1, 101),
        metavar="1..100",
        help="a percentile of latencies for the table; default 50",
    )
    add(
        "-exec_graph_path",
        "--exec_graph_path",
        type=Path,
        help="write the runtime model of the first subject there (IR)",
    )
    add("--rounds", type=positive, default=ROUNDS, help="every subject is measured so many times, in turn")
    add("--seed", type=int, default=1, help="of random inputs")
    add("--json", type=Path, help="write all numbers there")
    add("--csv", type=Path, help="write the table there")
    add(
        "--html",
        type=Path,
        help="write one page with histograms there (needs matplotlib: pip install 'ovjit[cli]')",
    )


def _switch(add: Callable[..., object], *names: str, help: str, default: bool | None = False) -> None:
    """An option whose value may be left out."""
    add(*names, type=yes, nargs="?", const=True, default=default, help=help)


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
