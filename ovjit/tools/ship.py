"""`python -m ovjit.tools.ship`: common kernels into the package (`codegen/shipped.py`), what they are printed
as, and texts of modules.

Common are the kernels of the layers that most networks are made of and of groups of nodes of many models
(`ovjit.tools.groups`), and of the embedded model. What is
written is object code, and depends on the sources alone: not on this CPU, and not on the order of things. To
be run when the code generators have changed; files that are no longer theirs are not used.

The texts are for installations without sources (`codegen/module_texts.py`), and to be written anew when a
module with kernels has changed; the index of operations (`graph/op_index.py`), when a module of `ovjit_ops`
has; ONNX's operators (`readers/onnx/standard.py`), when the package onnx has. `--texts` writes only these.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovjit.records import NamedTuple
from ovjit.tools.groups import cuts, programs_of

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.codegen.kernel import Kernel

#: The features of CPUs with a matrix unit; of their kernels those are added that use it.
_AMX = ("avx512bf16", "avx512vnni", "amx-bf16", "amx-int8")
#: Instruction sets and what CPUs have besides, as `targets.EXTRA` names it: server CPUs of ten years.
VARIANTS = {
    "avx512": ((), ("avx512vnni",), ("avx512bf16", "avx512vnni"), _AMX),
    "avx2": ((),),
    "neon": ((), ("lse", "dotprod", "i8mm", "bf16", "fp16fml")),
    "generic": ((),),
}  # fmt: skip
#: Those of which no more is shipped than what every model needs, the runner among it. A kernel is for all
#: CPUs that have what it uses, so that they share those of f32.
FEW = {("neon", ())}
#: Bytes of the object code of an instruction set, at most.
MOST = 4_000_000
#: Kinds of models that are not compiled for some CPUs: files have no room for what comes so late.
LEFT_OUT = {
    ("neon", VARIANTS["neon"][1]): ("further", "combinations", "linear_quantised"),
    ("avx512", ()): ("linear_quantised",),
    ("avx512", _AMX): ("combinations", "varied", "linear_quantised"),
}


#: Bytes of printed texts that are unpacked together: texts have few bytes once they are compressed.
TEXTS = 1 << 15
#: For tests that print some: beginnings of kernels' names, "" for all, and how many groups, None for all.
PICK = ""
GROUPS: int | None = None


def kernels(target: Target) -> list[Kernel]:
    """The common kernels for a target, each once."""
    return [kernel for group in groups(target) for kernel in group.kernels]


class Group(NamedTuple):
    """What is likely to be needed together: kernels, and the texts that were printed for them."""

    kernels: list[Kernel]
    texts: dict[str, bytes]


def groups(target: Target) -> Iterator[Group]:
    """The common kernels for a target by kinds of models, each kernel once. First what every model needs."""
    import ovjit as ov
    from ovjit.codegen import texts
    from ovjit.data import DIGITS_XML

    texts.recorded = {}
    try:
        found = dict.fromkeys(_always(target))
        for kernel in kernels_of(ov.Core().read_model(str(DIGITS_XML)), target).values():
            found.update(dict.fromkeys(kernel))
        yield Group(list(found), texts.recorded)
        extras = {(name, frozenset(extra)): kinds for (name, extra), kinds in LEFT_OUT.items()}
        left_out = extras.get((target.name, frozenset(target.extras)), ())
        for kind, some in itertools.groupby(cuts(), key=lambda cut: cut.kind):
            before = dict(found)
            texts.recorded = {}
            for cut in () if kind in left_out else some:
                found.update(dict.fromkeys(cut.kernels(target)))
            yield Group([kernel for kernel in found if kernel not in before], texts.recorded)
    finally:
        texts.recorded = None


def _always(target: Target) -> Iterator[Kernel]:
    """Kernels that are no layer's."""
    from ovjit.codegen.cpu import amx_test
    from ovjit.codegen.cpu.targets import MATRIX
    from ovjit.codegen.kernel import Kernel, KernelArgs
    from ovjit.execution.runner import native_kernels
    from ovjit.planning.parametric import evaluating_kernel
    from ovjit.storage import tags
    from ovjit.tiles import narrow, rounding, weave, winograd

    yield from native_kernels()
    yield tags.kernel()
    yield evaluating_kernel()
    yield from weave.kernels(target)
    yield from (winograd.filter_kernel(m, whole) for m in winograd.MATRICES for whole in (False, True))
    yield from map(narrow.kernel, narrow.FUNCTIONS)
    yield rounding.kernel()
    for feature in sorted(MATRIX.intersection(target.extras)):
        key, form = amx_test.tested(feature)
        yield Kernel(key, amx_test.SOURCE, KernelArgs(), amx_test.tested(feature).words, key, form)


def kernels_of(model: Any, target: Target) -> dict[str, list[Kernel]]:
    """precision -> the kernels of a model that computes in it, for a target."""
    return {
        precision: list(dict.fromkeys(kernel for program in programs for kernel in program.kernels))
        for precision, programs in programs_of(model._graph(), target).items()
    }


def show_missing(paths: Sequence[str]) -> None:
    """Print which kernels of these models the package does not have, for this CPU."""
    import ovjit as ov
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.host import host_target

    isa = host_target()
    for path in paths:
        for precision, needed in kernels_of(ov.Core().read_model(path), isa).items():
            missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
            print(f"{path} {precision}: {len(missing)} of {len(needed)} missing", *sorted(missing))


class Contents(NamedTuple):
    """What is shipped for an instruction set: object code and printed texts by their keys, in groups."""

    kernels: list[dict[str, bytes]]
    printed: list[dict[str, bytes]]


def contents(name: str, extra: Sequence[str], known: Collection[str] = ()) -> Contents:
    """What is shipped for an instruction set and what a CPU has besides, but for the keys `known`.

    Once in a process, as texts are printed once in one."""
    from ovjit.codegen.cpu.host import assume, host_target

    assume(name, extra)
    isa = host_target()
    found = Contents([], [])
    have = set(known)
    for group in itertools.islice(groups(isa), 1 if (name, tuple(extra)) in FEW else GROUPS):
        chosen = [k for k in group.kernels if not PICK or k.name.startswith(tuple(PICK.split()))]
        keys = {kernel.content_key(isa): kernel for kernel in chosen}
        found.kernels.append({key: kernel.content(isa) for key, kernel in keys.items() if key not in have})
        found.printed.append({key: text for key, text in group.texts.items() if key not in have})
        have.update(keys, group.texts)
    return found


def written(found: Contents, isa: str) -> Iterator[tuple[str, bytes]]:
    """The kind and the content of each file: without the last kernels where the object code would have more
    than MOST bytes. Kinds come the commonest first, each for all CPUs, and CPUs so that what a later one
    shares with an earlier one is the earlier one's."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS
    from ovjit.tools import ship_files

    yield "kernels", ship_files.pack(found.kernels, shipped.generators(TARGETS[isa].machine), MOST)
    yield "printed", ship_files.pack(found.printed, _printers(), together=TEXTS)


def _printers() -> bytes:
    from ovjit.codegen import shipped

    stamp = shipped.printers()
    if stamp is None:
        raise SystemExit("the source files of ovjit are missing: they are needed to ship kernels")
    return stamp


def made_by_process(isa: str, extra: Sequence[str], known: Iterable[str], program: Sequence[str]) -> Contents:
    """`contents`, by a process that takes itself for another CPU."""
    done = subprocess.run(
        [sys.executable, *program, "--print", isa, *extra], input=" ".join(known).encode(),
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return Contents(*pickle.loads(done.stdout))


def _in_turn(variants: Sequence[Sequence[dict[str, bytes]]]) -> list[dict[str, bytes]]:
    """The first groups of all CPUs, then the second: what comes last is left out where files are full."""
    return [group for some in itertools.zip_longest(*variants, fillvalue={}) for group in some]


def write(folder: Path, isa: str) -> list[Path]:
    """Write the files of one instruction set; each of its variants is printed by a process of its own."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS

    made: list[Contents] = []
    for extra in VARIANTS[isa]:
        known = [key for contents in made for groups in contents for group in groups for key in group]
        made.append(made_by_process(isa, extra, known, ["-m", "ovjit.tools.ship"]))
    found = Contents(_in_turn([each.kernels for each in made]), _in_turn([each.printed for each in made]))
    paths = []
    for kind, content in written(found, isa):
        paths.append(folder / shipped.file_name(TARGETS[isa], kind))
        paths[-1].write_bytes(content)
    return paths


#: What makes a function a kernel, or part of one.
_DECORATED = re.compile(r"^\s*@(kernel|inline|routine|rows)\b", re.MULTILINE)


def texts() -> dict[str, str]:
    """module -> text, of all modules that have kernels or make machine code."""
    from ovjit.codegen.module_texts import GENERATORS

    top = Path(__file__).parents[2]
    found = {}
    for path in sorted((*top.glob("ovjit/**/*.py"), *top.glob("ovjit_ops/**/*.py"))):
        name = ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        if name.startswith(GENERATORS) or _DECORATED.search(text):
            found[name] = text
    return found


def write_texts(folder: Path) -> Path:
    """Write the texts of the sources as they are; the file changes where one of them has changed."""
    from ovjit.codegen import module_texts

    path = folder / module_texts.FILE
    path.write_bytes(module_texts.pack(texts()))
    return path


def write_index(folder: Path) -> Path:
    """Write which modules have which operations."""
    from ovjit.graph import op, op_index

    path = folder / op_index.FILE
    path.write_bytes(op_index.shipped_content(op.all_ops()))
    return path


def write_schemas(folder: Path) -> Path:
    """Write what the package onnx knows of operators."""
    from onnx import defs

    from ovjit.readers.onnx import standard

    schemas = defs.get_all_schemas_with_history()
    newest = {domain: max(s.since_version for s in schemas if s.domain == domain)
              for domain in sorted({s.domain for s in schemas})}  # fmt: skip
    path = folder / standard.FILE
    path.write_bytes(standard.shipped_content(schemas, newest | {"": defs.onnx_opset_version()}))
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ovjit.tools.ship", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "data")
    parser.add_argument("--isa", choices=list(VARIANTS), nargs="*", default=list(VARIANTS))
    parser.add_argument("--print", nargs="+", metavar=("ISA", "FEATURE"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--missing", nargs="+", metavar="MODEL", help="write nothing; tell what the package lacks for models"
    )
    parser.add_argument(
        "--texts", action="store_true", help="write what sources and the package onnx tell, no kernels"
    )
    options = parser.parse_args(argv)
    if options.missing:
        show_missing(options.missing)
        return 0
    if options.print:
        isa, *extra = options.print
        found = contents(isa, extra, sys.stdin.read().split())
        sys.stdout.buffer.write(pickle.dumps(tuple(found)))
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # of processes that print, one for each
        for paths in pool.map(functools.partial(write, options.folder), () if options.texts else options.isa):
            for path in paths:
                print(f"{path}: {path.stat().st_size:,} bytes")
    for path in (write_texts(options.folder), write_index(options.folder), write_schemas(options.folder)):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
