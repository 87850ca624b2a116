"""The options of `ovjit benchmark`: the names are those of OpenVINO's benchmark_app, and some of our own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

#: Seconds without -t and -niter.
SECONDS = 10.0
ROUNDS = 10
HINTS = {
    "latency": "LATENCY", "throughput": "THROUGHPUT", "tput": "THROUGHPUT", "none": None,
    "cumulative_throughput": "CUMULATIVE_THROUGHPUT", "ctput": "CUMULATIVE_THROUGHPUT",
}  # fmt: skip


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


#: The kinds of options: what argparse is told of them.
_KINDS: dict[str, dict[str, Any]] = {
    "models": {"nargs": "+", "required": True, "metavar": "MODEL"},
    "files": {"nargs": "*", "default": [], "metavar": "FILE"},
    "file": {"metavar": "FILE"},
    "path": {"type": Path},
    "folder": {"type": Path, "default": Path()},
    "names": {"default": "", "metavar": "FILES"},
    "text": {"default": ""},
    "word": {},
    "colour": {"default": "", "metavar": "[R,G,B]"},
    "type": {"metavar": "TYPE"},
    "types": {"nargs": "+", "default": [None], "metavar": "TYPE"},
    "flag": {"action": "store_true"},
    "switch": {"type": yes, "nargs": "?", "const": True, "default": False},
    "unless": {"type": yes, "nargs": "?", "const": True, "default": None},
    "count": {"type": positive},
    "counts": {"type": positive, "nargs": "+", "default": [None]},
    "words": {"nargs": "+", "default": [None]},
    "seconds": {"type": _seconds, "metavar": "SECONDS"},
    "rate": {"type": float, "default": 0, "metavar": "FPS"},
    "percent": {"type": int, "default": 50, "choices": range(1, 101), "metavar": "1..100"},
    "rounds": {"type": positive, "default": ROUNDS},
    "seed": {"type": int, "default": 1},
    "device": {"default": "CPU"},
    "hints": {"nargs": "+", "default": ["latency"], "choices": sorted(HINTS), "metavar": "HINT"},
    "api": {"choices": ("sync", "async")},
    "yes or no": {"choices": ("YES", "NO")},
    "order": {"choices": ("no_sort", "sort", "simple_sort"), "default": "no_sort"},
    "report": {"choices": ("no_counters", "average_counters", "detailed_counters")},
}

#: Names | kind | help: models and their inputs, and how long they run; the subjects to compare, which are
#: devices, hints, ways of calling and properties; reports.
_OPTIONS = f"""
-m --path_to_model | models | IR, ONNX or blob files
-i --paths_to_input | files | an .npy or .bin file for each input, in order
-niter --number_iterations | count | inferences of each subject, in place of a time
-t --time | seconds | time for all subjects together; default {SECONDS:.0f} each
-b --batch_size | count | the first dimension of all inputs
-shape | text | "input[1,3,224,224],mask[1,128]" or "[1,3,224,224]"
-data_shape | text | shapes of the data where those of the model are open; several in turn: "x[1,8][1,16]"
-layout | text | "input[NCHW],other[NC]" or "[NCHW]": where -b finds the batch
-ip --input_precision | type | element type of all inputs
-op --output_precision | type | element type of all outputs
-iop --input_output_precision | text | "input:f16,output:u8"
--mean_values | colour | subtracted from inputs: [..] or name[..]
--scale_values | colour | inputs are divided by these
-inference_only --inference_only | unless | False: give inputs each time; default: True with one set of data
-no_warmup | flag | count the first inferences as well
-lfile --load_from_file | flag | compile the file without reading it first
-max_irate --maximum_inference_rate | rate | start no more inferences in a second
-d --target_device | device | CPU, GPU, or AUTO, which is the CPU
-hint --perf_hint | hints | latency (default), throughput or tput, cumulative_throughput or ctput, none
-api --api_type | api | default: sync for latency, else async
-pin --infer_threads_pinning | yes or no | ENABLE_CPU_PINNING
-nireq --number_infer_requests | count | requests of the asynchronous way
-nstreams --number_streams | words | numbers of streams to compare
-nthreads --number_threads | counts | numbers of threads to compare
-infer_precision | types | f32, bf16, f16: precisions to compare
-cdir --cache_dir -cache_dir | word | CACHE_DIR of the compilations
-extensions --extensions | names | Python files, separated by commas, with operations derived from ovjit.Op
-c --path_to_cldnn_config | file | kernels of Intel's GPUs: without effect
-load_config | path | a JSON file {{device: {{property: value}}}}
-dump_config | path | write the properties that are in force there
-pc --perf_counts | switch | print the times of all steps of each subject
-pcseq --pcseq | switch | latencies for each shape of -data_shape
-pcsort --perf_counts_sort | order | the slowest first; simple_sort: only what was executed
-report_type --report_type | report | write benchmark_report.csv, and the times of steps
-report_folder --report_folder | folder | where reports are written
-json_stats --json_stats | switch | reports as JSON and not as CSV
-lp -latency_percentile --latency_percentile | percent | a percentile of latencies for the table; default 50
-exec_graph_path --exec_graph_path | path | write the runtime model of the first subject there (IR)
--rounds | rounds | every subject is measured so many times, in turn
--seed | seed | of random inputs
--json | path | write all numbers there
--csv | path | write the table there
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="ovjit benchmark",
        usage="ovjit benchmark -m MODEL [MODEL ...] [options]   (ovjit benchmark -h lists them)",
        description="Latency and throughput of models, compared in interleaved rounds.",
        allow_abbrev=False,
    )
    for row in _OPTIONS.strip().splitlines():
        names, kind, text = row.split(" | ")
        p.add_argument(*names.split(), help=text, **_KINDS[kind])
    return p
