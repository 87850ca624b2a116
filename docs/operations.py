"""`python -m docs.operations`: the table of operations, `docs/operations.md`, from the registry.

`docs/operations.txt` lists every operation of OpenVINO's opsets 1 to 17 with the opsets in which its
versions came; the table says for each how it runs here. With `--check`, whether the page is up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ovjit.graph.op import Op, all_ops

LISTED, PAGE = (Path(__file__).resolve().with_suffix(kind) for kind in (".txt", ".md"))

#: Operations that are not steps: name -> what they are.
SPECIAL = {
    "Parameter": "an input",
    "Result": "an output",
    "Constant": "data",
    "ReadValue": "state of a request",
    "Assign": "state of a request",
    "If": "bodies are programs",
    "Loop": "bodies are programs",
    "TensorIterator": "bodies are programs",
}
#: What a reader of the table should know of an operation's way.
_LAYERS = "f32, f16 and bf16; peepholes and f64: reference"
_PREFIX = "written to a buffer of the maximum size; the output is a view of the valid prefix"
_SMALL_PRIMES = "lengths whose prime factors are at most 1000, known with the shapes; others: reference"
NOTES = {
    "LSTMCell": _LAYERS,
    "LSTMSequence": _LAYERS,
    "GRUCell": _LAYERS,
    "GRUSequence": _LAYERS,
    "RNNCell": _LAYERS,
    "RNNSequence": _LAYERS,
    "DFT": _SMALL_PRIMES,
    "IDFT": _SMALL_PRIMES,
    "RDFT": _SMALL_PRIMES,
    "IRDFT": _SMALL_PRIMES,
    "STFT": _SMALL_PRIMES,
    "ISTFT": "frames of known size; others: reference",
    "Col2Im": "windows of known size; others: reference",
    "ScaledDotProductAttention": "f32, f16 and bf16, up to three batch dimensions; others: reference",
    "RandomUniform": "every inference draws the same numbers for seeds other than 0",
    "NonMaxSuppression": f"{_PREFIX}; a computed sigma: reference",
    "NMSRotated": _PREFIX,
    "Unique": _PREFIX,
    "SegmentMax": "a number of segments known with the shapes; others: reference",
    "NonZero": _PREFIX,
    "ExperimentalDetectronROIFeatureExtractor": "f32, f16 and bf16; f64: reference",
    "ExperimentalDetectronGenerateProposalsSingleImage": "known shapes, f32, f16 and bf16; others: reference",
    "Proposal": "f32, f16 and bf16; f64: reference",
    "ExperimentalDetectronDetectionOutput": "f32, f16 and bf16; f64: reference",
    "ExperimentalDetectronTopKROIs": "f32, f16 and bf16; f64: reference",
    "CTCGreedyDecoder": "floats with a mask of floats; others: reference",
    "CTCLoss": "f32, f16 and bf16; f64: reference",
    "GatherTree": "f32, f16, bf16, i32 and i64; others: reference",
    "DeformablePSROIPooling": "f32, f16 and bf16; f64: reference",
    "Interpolate": "f64, and sums of integers of 32 bits and more: reference",
    "MulticlassNms": "f32, regions that are not split among images; others: reference",
    "MatrixNms": "f32; f64: reference",
    "GenerateProposals": "f32; f64: reference",
    "DetectionOutput": "f32, priors of known number; auxiliary inputs and decrease_label_id: reference",
    "GridSample": "f32, f16 and bf16; f64: reference",
    "ROIPooling": "f32, f16 and bf16; f64: reference",
    "PSROIPooling": "f32, f16 and bf16; f64: reference",
    "ROIAlign": "f32, f16 and bf16; f64: reference",
    "ROIAlignRotated": "f32, f16 and bf16; f64: reference",
    "DeformableConvolution": "f32, f16 and bf16, filters of known shape; others: reference",
    "Convolution": "in three dimensions, groups and dilated windows become sums of slices",
    "GroupConvolution": "in three dimensions, a sum over slices",
    "ConvolutionBackpropData": "constant filters in f32, f16 and bf16; others: a product, then Col2Im",
    "GroupConvolutionBackpropData": "constant filters in f32, f16 and bf16; others: a product, then Col2Im",
    "ExtractImagePatches": "patches of at most 64 elements; larger: reference",
    "RGBtoNV12": "OpenVINO 2026.4 declares it without a builder and cannot run it",
    "BGRtoNV12": "OpenVINO 2026.4 declares it without a builder and cannot run it",
    "PriorBox": "computed once, when shapes are known",
    "PriorBoxClustered": "computed once, when shapes are known",
}
#: (operation, version) -> why it is not there.
MISSING: dict[tuple[str, int], str] = {}
#: Where the answers differ from OpenVINO's, and why.
DIFFERENCES = [
    ("f64, i64, u64", "computed in their own types; the CPU device computes f64 as f32, i64 and u64 as i32"),
    (
        "Divide of integers",
        "rounds down unless `m_pythondiv` is false, as specified; the CPU device always truncates",
    ),
    ("MatMul of integers", "exact; the CPU device adds in f32, which is exact up to 2^24 only"),
    (
        "Softmax, MVN and other functions of floats on integers",
        "the nearest integer, as on the CPU device; 8-bit results saturate, 16-bit results wrap around",
    ),
    (
        "lists where one number is meant",
        "refused: axes of CumSum and ScatterElementsUpdate, alpha of Selu; the CPU device takes the first "
        "or refuses to compile",
    ),
    ("FakeQuantize", "fewer than two levels are refused; the CPU device gives NaN for one, takes 0 for 2"),
    (
        "Interpolate, linear, antialias",
        "as specified and as `Model.evaluate` has it; the CPU device ignores `antialias` in two dimensions",
    ),
    (
        "Interpolate, bicubic_pillow",
        "as Pillow and the CPU device: always a = -0.5; `Model.evaluate` uses `cube_coeff`",
    ),
    ("LRN", "the bias is a real number; the CPU device takes its whole part, so 0 for 0.5"),
    (
        "NonMaxSuppression 1 to 4",
        "the number of rows is open; OpenVINO says a fixed shape and returns fewer rows",
    ),
    (
        "NonMaxSuppression",
        "the number of rows is 0 where no row may be selected; OpenVINO leaves it undefined",
    ),
    ("Proposal 4", "the scores of regions that are missing are 0; OpenVINO leaves them undefined"),
    (
        "ROIAlign",
        "a region without samples gives 0, OpenVINO NaN; an index of a missing image is an error; the "
        "largest sample counts from 0 on, as in OpenVINO",
    ),
    (
        "ROIPooling, PSROIPooling, DeformablePSROIPooling",
        "an index of a missing image is an error; a region with a negative index is absent",
    ),
    (
        "PriorBox",
        "several fixed_ratio, or max_size without scale_all_sizes: all boxes count; OpenVINO counts fewer "
        "and crashes",
    ),
    (
        "MatrixNms, sort_result_type=classid",
        "as the CPU device: sorted by class only across the batch",
    ),
    ("BinaryConvolution", "as specified; OpenVINO 2026's CPU device cannot run it"),
    (
        "AvgPool",
        "elements past the padding (rounding up) never count, and a window of them alone gives 0; "
        "OpenVINO counts them if there is padding, and gives NaN",
    ),
    (
        "MaxPool",
        "a window of padding alone gives minus infinity, and so does minus infinity in the data; OpenVINO "
        "gives the lowest finite number for both",
    ),
    (
        "Range 1",
        "limits that step away from each other give nothing; OpenVINO's CPU device counts back, so that "
        "`range(5, 0, 1)` of inputs has 5 numbers",
    ),
    (
        "SliceScatter",
        "as specified; where some of its lists are inputs, OpenVINO's CPU device writes other elements or "
        "ends the process",
    ),
    ("Unique, axis", "equal slices are merged along any axis; OpenVINO does so along the first axis only"),
    ("SearchSorted", "0 for an empty list; OpenVINO's answer is undefined"),
    (
        "SegmentMax, fill_mode=LOWEST",
        "the lowest finite number of the type; OpenVINO gives minus infinity for bf16",
    ),
    ("EmbeddingBagOffsets", "a last bag that is empty is zeros; OpenVINO reads past the indices"),
    (
        "RDFT, IRDFT",
        "take -1 in signal_size, and longer signals; OpenVINO refuses both, "
        "and gives wrong numbers for some inverse ones",
    ),
    ("AUGRUSequence", "takes sequences of different lengths; OpenVINO only full ones"),
    ("FakeConvert", "NaN stays NaN; OpenVINO gives the lowest number"),
    (
        "RandomUniform",
        "the numbers of OpenVINO's specification in every type; its CPU device draws f64 and f16 as f32, i64 "
        "as i32, and other numbers at the next inference",
    ),
    ("Multinomial", "draws by Philox; OpenVINO's stream is not specified"),
    ("GridSample", "a NaN coordinate gives NaN, or element 0 for nearest; OpenVINO's answer is undefined"),
]
_INTRODUCTION = """# Operations

Every operation of OpenVINO's opsets 1 to 17, and how it runs. `python -m docs.operations` makes the
page from the registry. A test keeps it true and compares the list with the installed OpenVINO.

| runs | meaning |
|---|---|
| native | by kernels of its own |
| elementwise | as part of a kernel that is fused from neighbouring operations |
| expanded | as simpler operations; their rows say how they run |
| reference | by NumPy, as a step between native ones; the profile shows it as `ref_numpy` |

A native operation runs by the reference for types or shapes that its kernel does not support.

Numbers are the opsets in which a version of the operation came.
"""


def listed() -> dict[str, list[int]]:
    """name -> the opsets in which versions of it came."""
    rows = (line.split() for line in LISTED.read_text().splitlines())
    return {name: [int(v) for v in versions] for name, *versions in rows}


def way(record: Op) -> str:
    """How an operation runs, in a word."""
    if record.name in SPECIAL:
        return SPECIAL[record.name]
    if record.scalar is not None:
        return "elementwise"
    if record.lower is not None:
        return "native"
    return "expanded" if record.expand is not None else "reference"


def family(record: Op) -> str:
    """The folder of `ovjit_ops` that has its record."""
    module = getattr(record.infer, "__module__", "").split(".")
    return module[1] if module[0] == "ovjit_ops" and len(module) > 1 else ""


def find(name: str, version: int) -> Op | None:
    """The record that serves this version: the newest that is not newer, or the oldest."""
    versions = {r.opset: r for r in all_ops() if r.name == name and not r.internal}
    if not versions or (name, version) in MISSING:
        return None
    fitting = [v for v in versions if v <= version]
    return versions[max(fitting) if fitting else min(versions)]


def page() -> str:
    """The text of the page: operations by family and way, those with a note in a table of their own."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    by_note: dict[tuple[str, str], list[str]] = {}
    for name, versions in listed().items():
        for version in versions:
            record = find(name, version)
            note = MISSING.get((name, version), "") if record is None else NOTES.get(name, "")
            kind = "missing" if record is None else way(record)
            if note or record is None:
                by_note.setdefault((kind, note), []).append(f"{name} {version}")
            else:
                by_kind.setdefault((family(record), kind), []).append(f"{name} {version}")
    lines = [_INTRODUCTION.rstrip("\n"), "", "| family | runs | operations |", "|---|---|---|"]
    lines += [f"| {room} | {kind} | {', '.join(names)} |" for (room, kind), names in sorted(by_kind.items())]
    lines += ["", "| operations | runs | note |", "|---|---|---|"]
    lines += [f"| {', '.join(names)} | {kind} | {note} |" for (kind, note), names in by_note.items()]
    lines += ["", "## Differences from OpenVINO's answers", "", "| operation | ovjit |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in DIFFERENCES]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with --check compare it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.operations", description="docs/operations.md")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where the page is out of date")
    arguments = parser.parse_args(argv)
    if arguments.check:
        same = PAGE.read_text() == page()
        if not same:
            print(f"{PAGE.name} is out of date", file=sys.stderr)
        return int(not same)
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
