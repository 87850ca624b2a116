"""OpenVINO's public names and signatures beside ovjit's.

`python -m tests.support.parity` writes docs/parity.md.

The real package is walked: its public modules, and the private ones that programs import. A name that ovjit
lacks, or a function that does not take the arguments of the real one, is a gap; each has a reason in `GAPS`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import inspect
import pkgutil
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import openvino

from tests.support import ROOT
from tests.support.printed_programs import BETTER, read_programs

#: Modules that are not walked, and why.
LEFT_OUT = {
    "frontend.jax": "`convert_model` and the front end read jaxprs; the decoder holds the one that it is "
    "given",
    "frontend.paddle": "Paddle is read through paddle2onnx ([model_files.md](model_files.md)); the "
    "extensions' names are there",
    "frontend.pytorch": "`convert_model` reads modules; the front end's decoders hold what they are given "
    "([pytorch.md](pytorch.md))",
    "frontend.tensorflow": "TensorFlow is read through tf2onnx ([model_files.md](model_files.md)); the "
    "extensions' names are there",
    "preprocess.torchvision.torchvision_preprocessing": "importing it needs torchvision, for steps inside of "
    "`PreprocessConverter`",
    "tools.benchmark": "served by the real package's files where they are on the path",
    "tools.ovc": "`convert_model` and `ovc` are there, and below them what reads their arguments; the rest "
    "serves frameworks that are not read",
    "torch": "importing it needs PyTorch; the backend is there ([pytorch.md](pytorch.md))",
}
#: Gaps by name (`fnmatch`), and why they are there. The first that fits counts.
GAPS = {
    "*.py_onnx_frontend": "a native module",
    "frontend.onnx.ConversionExtension.m_converter": "a member of the native part",
    "frontend.get_version": "an import of the module's own, as `get_version` at the top",
    "preprocess.get_version": "an import of the module's own, as `get_version` at the top",
    "*OVDict._OVDict__*": "private to the real class",
    "*OVDict._": "private to the real class",
    "*OVDict._dict": "private to the real class",
    "*OVDict._names": "private to the real class",
    "*OVDict()": "made by an inference only",
    "*.name": "of the enumeration's members, as with Python's enumerations, not of the class",
    "*.value": "of the enumeration's members, as with Python's enumerations, not of the class",
    "*._update_type_info": "types follow the class",
    "*._from_node()": "a class method here: the class is the first argument",
    "_pyopenvino.FrontEnd()": "made by FrontEndManager",
    "_pyopenvino.Core.*()": "the native forms below Core's: programs call Core's own",
    "*save_model()": "the native function's text of its arguments cannot be read",
    "*set_batch()": "the native function's two forms are one: batch_size takes a Dimension",
    "_pyopenvino.passes.Matcher()": "`output=` is the second form's name of the first argument",
    "passes.Matcher()": "`output=` is the second form's name of the first argument",
    "*Model.reshape()": "`partial_shapes=` is the second form's name of the first argument",
    "_ov_api._data_dispatch": "a step inside of OpenVINO's inference, which ovjit does otherwise",
    "utils.data_helpers.data_dispatcher*":
        "a step inside of OpenVINO's inference, which ovjit does otherwise",
    "utils.node_factory.NodeFactory._*": "private to the real class",
    "opset4.ops.range()":
        "opset4 itself has the range of opset1, as in OpenVINO; its `ops` is the same module here",
    "opset*.ops.[A-Z]*": "an import of the module's own",
    "_ov_api.[A-Z]*": "an import of the module's own",
    "frontend.frontend.FrontEndBase()": "made by FrontEndManager",
    "passes.*Base": "the class below in OpenVINO's native part; here they are one",
    "utils.data_helpers.wrappers.[A-Z]*": "an import of the module's own",
    "utils.postponed_constant.TensorVector": "an import of the module's own",
}  # fmt: skip
#: Names that are no gap of the API: a builder of an operation that ovjit does not have is in the operations'
#: table.
OPERATIONS = re.compile(r"opset\d+(\.ops)?\.[a-z]\w*")


class Gap(NamedTuple):
    """A name without a counterpart, or one (with brackets) whose arguments differ; `what` says how."""

    name: str
    what: str

    @property
    def reason(self) -> str | None:
        for pattern, reason in GAPS.items():
            if fnmatch.fnmatchcase(self.name, pattern):
                return reason
        return None


def modules() -> list[str]:
    """The modules that are walked, without the leading "openvino."; "" is the package itself.

    All of them are imported: which are there does not depend on what the process did before.
    """
    found = {name[9:] for name in list(sys.modules) if name == "openvino" or name.startswith("openvino.")}
    found |= set(_below(openvino))
    return sorted(name for name in found if not _left_out(name))


def _below(package: types.ModuleType) -> Iterator[str]:
    """The modules in a package's folder, and what is below those. They are imported."""
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        name = info.name.removeprefix("openvino.")
        if not _left_out(name):
            module = importlib.import_module(info.name)
            yield name
            if info.ispkg:
                yield from _below(module)


def _left_out(name: str) -> bool:
    return any(name == left or name.startswith(f"{left}.") for left in LEFT_OUT)


def gaps() -> tuple[list[Gap], dict[str, int]]:
    """All gaps, and how many names each module has."""
    missing: list[Gap] = []
    counts: dict[str, int] = {}
    for name in modules():  # a submodule that is imported is a name of its package
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"ovjit.{name}" if name else "ovjit")
    for name in modules():
        real = importlib.import_module(f"openvino.{name}" if name else "openvino")
        prefix = f"{name}." if name else ""
        try:
            ours = importlib.import_module(f"ovjit.{name}" if name else "ovjit")
        except ModuleNotFoundError:
            missing.append(Gap(name, "no such module"))
            continue
        names = list(public(real, name))
        counts[name] = len(names)
        for key in names:
            there, here = getattr(real, key), getattr(ours, key, None)
            if here is None:
                if not OPERATIONS.fullmatch(prefix + key):
                    missing.append(Gap(prefix + key, "is not there"))
            elif isinstance(there, type) and isinstance(here, type):
                missing += of_class(prefix + key, there, here)
            elif callable(there) and not isinstance(there, type):
                missing += of_function(prefix + key, there, here)
    return missing, counts


def public(module: types.ModuleType, name: str) -> Iterator[str]:
    """The names that a module defines or hands on, its imports from elsewhere left out."""
    for key in sorted(dir(module)):
        value = getattr(module, key, None)
        if key.startswith("__") or (key.startswith("_") and not name.startswith("_")):
            continue
        owner = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(owner, str) and not owner.startswith("openvino"):
            continue
        if owner is None and not isinstance(value, (str, int, float, dict, list, types.BuiltinFunctionType)):
            continue  # what typing makes
        if isinstance(value, types.ModuleType) and _left_out(str(owner).removeprefix("openvino.")):
            continue
        if type(value).__name__ == "Logger" or isinstance(value, types.GenericAlias):
            continue
        yield key


def of_class(name: str, there: type, here: type) -> Iterator[Gap]:
    for key in sorted(set(dir(there)) - set(dir(object))):
        if key.startswith(("__", "_pybind11")) or key in vars(Exception):
            continue
        if not hasattr(here, key):
            yield Gap(f"{name}.{key}", "is not there")
        elif key not in ("name", "value"):
            try:
                a, b = getattr(there, key), getattr(here, key)
            except (TypeError, RuntimeError):
                continue
            if callable(a) and callable(b) and not isinstance(a, type):
                yield from of_function(f"{name}.{key}", a, b)
    yield from of_function(name, there.__init__, here.__init__)


def of_function(name: str, there: Any, here: Any) -> Iterator[Gap]:
    """A Gap for the first form of the real function whose arguments ours does not take."""
    taken = forms(here)
    if not taken or any(kind == "any" for _, kind, _ in taken[0]):
        return
    names = [n for n, _, _ in taken[0]]
    needed = {n for n, _, required in taken[0] if required}
    for form in forms(there):
        if any(kind == "any" for _, kind, _ in form):
            continue
        wanted = [n for n, _, _ in form]
        if any(re.fullmatch(r"arg\d+", n) for n in wanted):
            if len(wanted) > len(names):
                yield Gap(f"{name}()", f"takes {len(names)} arguments, not {len(wanted)}")
                return
            continue
        absent = [n for n in wanted if n not in names]
        order = [n for n in names if n in wanted]
        if absent or [n for n in wanted if n in names] != order or needed - set(wanted):
            yield Gap(f"{name}()", f"takes ({', '.join(names)}), not ({', '.join(wanted)})")
            return


def forms(function: Any) -> list[list[tuple[str, str, bool]]]:
    """The forms of a function: (name, "one" or "any", whether required) for each argument but self."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
        listed = [(p.name, "any" if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) else "one",
        p.default is p.empty)
                  for p in parameters]  # fmt: skip
        return [[row for row in listed if row[0] != "self"]]
    except (TypeError, ValueError):
        pass
    name, out = getattr(function, "__name__", ""), []
    for line in (getattr(function, "__doc__", None) or "").splitlines():
        match = re.fullmatch(rf"(?:\d+\. )?{re.escape(name)}\((.*)\)(?: ->.*)?", line.strip())
        if match and match[1] != "*args, **kwargs":
            rows = [(re.split("[:=]", part)[0].strip(), "=" not in part) for part in _split(match[1])]
            out.append([(n, "one", required) for n, required in rows if n not in ("self", "/", "*")])
    return out


def _split(text: str) -> list[str]:
    """Arguments between commas, those inside of brackets left alone."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "[({<") - (c in "])}>")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def without_modules(names: Iterable[str]) -> list[str]:
    """Dotted names, sorted. Those of one class or function in several modules are one, without the module."""
    by_tail: dict[str, list[str]] = {}
    for name in names:
        by_tail.setdefault(re.sub(r"^(?:_?[a-z]\w*\.)+(?=[\w.]+)", "", name), []).append(name)
    return sorted(tail if len(some) > 1 else some[0] for tail, some in by_tail.items())


def table() -> str:
    """docs/parity.md."""
    found, counts = gaps()
    lines = [
        "# API parity with OpenVINO",
        "",
        "Made by `python -m tests.support.parity` from the real package (2026.4). "
        "`tests/compat/test_parity.py` keeps it true.",
        "It compares every public name of every module below, every method, and the arguments of every "
        "function.",
        "Private modules that programs import are included. Missing builders of operations are listed in "
        "[operations.md](operations.md).",
        "Names end in `()` if only their arguments differ. A name that several modules have stands without "
        "its module.",
        "",
        f"{len(counts)} modules have {sum(counts.values())} names. {len(found)} of their names and arguments "
        "differ.",
    ]
    lines += ["", "## Gaps, and why", "", "| why | difference | names |", "|---|---|---|"]
    names_by_gap: dict[tuple[str, str], set[str]] = {}
    for gap in found:
        names_by_gap.setdefault((gap.reason or "**no reason**", gap.what), set()).add(gap.name)
    lines += [
        f"| {why} | {what} | {', '.join(f'`{name}`' for name in without_modules(names))} |"
        for (why, what), names in sorted(names_by_gap.items())
    ]
    lines += ["", "## Answers", "", "| what | where | why |", "|---|---|---|"]
    lines += [
        "| NaN, infinities, overflow, division by 0 | [special_values.md](special_values.md), by operation "
        "| IEEE 754 and NumPy, where OpenVINO has what the CPU's instructions give |",
        "| a region whose parent gets another shape | `Tensor(parent, begin, end)`, then `parent.shape =` "
        "| the region keeps its elements; OpenVINO applies the parent's new strides, and reads memory that "
        "is freed if the parent has grown |",
        "| arrays of the other byte order | `Tensor`, `Constant`, `opset.constant` "
        "| their numbers; OpenVINO reads the bytes as they are |",
        "| a key that is no index, no name and no port | `infer({-1: tensor})`, `infer({None: tensor})`"
        " | TypeError, as for arrays; OpenVINO may raise RuntimeError if the value is a Tensor |",
        '| a text of lengths that are no numbers | `Shape("[2,?]")`, `Shape("[a]")` | RuntimeError; OpenVINO '
        "takes the digits at the start of each, and 0 if there are none |",
        "| a parameter with a dimension that no length fits | `parameter([Dimension(4, 1)])` | ModelError; "
        "OpenVINO refuses every tensor that it is given |",
        "| a tokenizer's word with more ids than bytes | `BPETokenizer` with `end_suffix` (CLIP) "
        "| the ids; the package raises RuntimeError |",
        "| bytes that no word of a trie begins with | `TrieTokenizer` "
        "| RuntimeError; the package does not end |",
        "| rows or strings outside of their elements | the operations of openvino_tokenizers "
        "| RuntimeError; the package reads other memory |",
        "| pieces of equal scores | `SentencepieceTokenizer`, unigram "
        "| those of the installed sentencepiece, which may choose another cut than the package's "
        "own version |",
        "| callbacks' threads, templates, batches | `openvino_genai` | [its page](genai.md#differences) |",
        "| texts of dicts | `compile_model` with `DEVICE_PROPERTIES` "
        "| spaces and quotes around names are left out, and `{}` is empty; OpenVINO passes by such names. "
        "Braces without a partner raise RuntimeError |",
        "| a number of requests that is none | `AUTO:CPU(4a)`, `BATCH:CPU(4` | RuntimeError; OpenVINO takes "
        "the digits at the start |",
        "| requests of a batch | `BATCH:CPU(4)` and its OPTIMAL_NUMBER_OF_INFER_REQUESTS | one for each "
        "stream: the requests run one by one, and more of them gain nothing; OpenVINO gathers 4 |",
        "| files with tokenizers' operations | `Core.read_model` "
        "| read without `add_extension`, which OpenVINO needs |",
        "| ONNX QuantizeLinear of activations | `read_model`, `convert_model` | Divide, Round, Clamp and "
        "Convert, whose numbers are those of ONNX; OpenVINO has a FakeQuantize, which may differ by a step |",
        "| numbers times, plus and between constants | `convert_model` | Divide and Subtract stay, and sums "
        "and products in a row; OpenVINO makes Multiply and Add of them, and one constant of several |",
        "| quantized ONNX graphs in f16 | `compile_model` | computed in f32, so that an element on the "
        "border of two steps may take the other one. Of 57 random graphs (seeds 0 to 399 of `fuzz_qdq`, "
        "f32), 9 of 30,535 elements are more than 2 % of the range from ONNX Runtime's; of OpenVINO "
        "4,206, and 10 graphs refused |",
        "| names of operations that change nothing | `CompiledModel.inputs`, `outputs` | the model's own "
        "names; OpenVINO adds those of removed operations beside, so `any_name` may be `/Cast_output_0` "
        "for `images` |",
        "| RGBX and BGRX of another layout than NHWC | `set_color_format` | four channels along the axis "
        "C; OpenVINO's are along the last axis |",
        "| RESIZE_BILINEAR_PILLOW, RESIZE_BICUBIC_PILLOW of HWC | `resize` | Pillow's numbers; OpenVINO "
        "reads memory that is not initialised |",
        "| pads that remove more than there is | `pad` | RuntimeError; OpenVINO builds a length that is "
        "open |",
    ]
    lines += [
        "",
        "## Programs",
        "",
        f"Of {len(read_programs())} small programs over the API, in `tests/compat/programs/api`, all print "
        "the same with both packages but these.",
        "",
        "| programs | why they print something else here |",
        "|---|---|",
    ]
    names_by_reason: dict[str, list[str]] = {}
    for name, (_, reason) in sorted(BETTER.items()):
        names_by_reason.setdefault(reason, []).append(name)
    lines += [f"| {'; '.join(names)} | {reason} |" for reason, names in names_by_reason.items()]
    lines += ["", "## Modules that are not walked", "", "| module | why |", "|---|---|"]
    lines += [f"| `openvino.{name}` | {why} |" for name, why in LEFT_OUT.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    assert openvino.__file__ and "ovjit" not in openvino.__file__
    target = ROOT / "docs" / "parity.md"
    target.write_text(table())
    print(target)
