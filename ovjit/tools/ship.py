"""`python -m ovjit.tools.ship`: writes common kernels into the package (`codegen/shipped.py`), and sources of
modules.

Common kernels are those of the graphs in `ovjit.tools.groups` (common layers, and groups of nodes of many
models) and of the embedded model. Their object code and printed sources are written. These depend on the
sources only, and not on this CPU or on the order of compilation. Run it after a change of the code
generators; outdated files are ignored. `--reuse` compiles only kernels whose sources are new: it is for
changes of what kernels there are, and of their printed sources, not of how these become object code.

Other files are written, too; `--texts` writes only these:

| file | run after a change of |
|---|---|
| the index of operations (`graph/op_index.py`) | a module of `ovjit_ops`, comments aside |
| digests of sources (`source_digests.py`) | many modules; a module that it lacks is parsed |
| ONNX's table of operators (`readers/onnx/standard.py`) | the package onnx |
| module sources (`codegen/module_texts.py`) | never: a wheel gets them when it is built |

`--stale` lists the files, and the pages made from the sources, that are out of date.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ovjit.codegen.cpu.targets import SLOW_DOTS
from ovjit.records import NamedTuple
from ovjit.tools.groups import cuts, graphs_of, kernels_of
from ovjit.tools.kernel_sources import write_sources

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.codegen.kernel import Kernel
    from ovjit.tools.groups import Cut

#: The features of CPUs with a matrix unit. Only kernels that use it are added for them.
_AMX = ("avx512bf16", "avx512vnni", "amx-bf16", "amx-int8")
#: Those of CPUs that multiply bf16 by multiply-adds of f32. Only kernels of these products are added.
_SLOW = ("avx512bf16", "avx512vnni", SLOW_DOTS)
#: Instruction set -> sets of further features (`targets.EXTRA`): those of server CPUs of the last ten years.
VARIANTS = {
    "avx512": ((), ("avx512vnni",), ("avx512bf16", "avx512vnni"), _SLOW, _AMX),
    "avx2": ((),),
    "neon": ((), ("lse", "dotprod", "i8mm", "bf16", "fp16fml")),
    "generic": ((),),
}  # fmt: skip
#: Variants for which only the kernels that every model needs are shipped, such as the runner. Kernels of f32
#: use none of the features, so all variants share them.
FEW = {("neon", ())}
#: Maximum bytes of the object code of an instruction set.
MOST = 4_000_000
#: Kinds of models that come first, in this order, since most users begin with them. A file that is full lacks
#: kernels of the others.
FIRST_KINDS = ("frequent", "uncut", "decoders")
#: Variant -> kinds of models that are not compiled for it. They come so late that the file has no room.
LEFT_OUT = {
    ("neon", VARIANTS["neon"][1]): ("further", "combinations", "linear_quantised"),
    ("avx512", ()): ("linear_quantised",),
    ("avx512", _SLOW): (
        "cuts", "alphabet", "alphabet_more", "elementwise", "moves", "integer_convolutions", "quantised",
        "exported", "further", "functions", "combinations", "varied", "linear_quantised",
    ),
    ("avx512", _AMX): ("combinations", "varied", "linear_quantised"),
}  # fmt: skip


#: No object code to reuse.
EMPTY: Mapping[str, bytes] = MappingProxyType({})
#: Bytes of printed sources that are unpacked together. Compressed sources are small.
TEXTS = 1 << 15
#: Of the kernels whose code is reused, one in so many is compiled nevertheless, and compared.
COMPARED = 50
#: For tests that write a part: prefixes of kernels' names ("": all), and the number of groups (None: all).
PICK = ""
GROUPS: int | None = None


def kernels(target: Target) -> list[Kernel]:
    """The common kernels for a target, each once."""
    return [kernel for group in groups(target) for kernel in group.kernels]


class Group(NamedTuple):
    """Kernels that are likely to be needed together, and their printed sources."""

    kernels: list[Kernel]
    texts: dict[str, bytes]


def groups(target: Target) -> Iterator[Group]:
    """The common kernels for a target by kind of model, each kernel once. Kernels that every model needs come
    first."""
    import ovjit as ov
    from ovjit.codegen import texts
    from ovjit.data import DIGITS_XML

    texts.recorded = {}
    try:
        kernels = dict.fromkeys(_always(target))
        for kernel in kernels_of(ov.Core().read_model(str(DIGITS_XML))._graph(), target).values():
            kernels.update(dict.fromkeys(kernel))
        yield Group(list(kernels), texts.recorded)
        extras = {(name, frozenset(extra)): kinds for (name, extra), kinds in LEFT_OUT.items()}
        has = {*target.extras, *((SLOW_DOTS,) if target.slow_dots else ())}
        left_out = extras.get((target.name, frozenset(has)), ())
        for kind, some in itertools.groupby(sorted(cuts(), key=_rank), key=lambda cut: cut.kind):
            before = dict(kernels)
            texts.recorded = {}
            for cut in () if kind in left_out else some:
                kernels.update(dict.fromkeys(cut.kernels(target)))
            yield Group([kernel for kernel in kernels if kernel not in before], texts.recorded)
    finally:
        texts.recorded = None


def _rank(cut: Cut) -> int:
    return FIRST_KINDS.index(cut.kind) if cut.kind in FIRST_KINDS else len(FIRST_KINDS)


def _always(target: Target) -> Iterator[Kernel]:
    """Kernels that belong to no layer."""
    from ovjit.codegen import native_routines
    from ovjit.codegen.cpu import amx_test
    from ovjit.codegen.cpu.targets import MATRIX
    from ovjit.codegen.kernel import Kernel, KernelArgs
    from ovjit.execution.runner import native_kernels
    from ovjit.genai.vision import resizing as resizing
    from ovjit.planning.parametric import evaluating_kernel
    from ovjit.storage import tags
    from ovjit.tiles import narrow, rounding, weave, winograd
    from ovjit_ops.text import cpu_kernels as cpu_kernels

    yield from native_kernels()
    yield tags.kernel()
    yield from native_routines.kernels()
    yield evaluating_kernel()
    yield from weave.kernels(target)
    yield from winograd.filter_kernels()
    yield from map(narrow.kernel, narrow.FUNCTIONS)
    yield rounding.kernel()
    for feature in sorted(MATRIX.intersection(target.extras)):
        key, form = amx_test.test_of(feature)
        yield Kernel(key, amx_test.SOURCE, KernelArgs(), amx_test.test_of(feature).words, key, form)


def show_missing(paths: Sequence[str]) -> None:
    """Print which kernels of these models and programs the package does not have, for this CPU."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.host import host_target

    isa = host_target()
    for name, graph in [(path, graph) for path in paths for graph in graphs_of(path)]:
        for precision, needed in kernels_of(graph, isa).items():
            missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
            print(f"{name} {precision}: {len(missing)} of {len(needed)} missing", *sorted(missing))


class Contents(NamedTuple):
    """The shipped content for an instruction set: object code and printed sources by their keys, in
    groups."""

    kernels: list[dict[str, bytes]]
    printed: list[dict[str, bytes]]


def contents(
    name: str, extra: Sequence[str], skip: Collection[str] = (), reused: Mapping[str, bytes] = EMPTY
) -> Contents:
    """The content to ship for an instruction set with the features `extra`, without the keys `skip`. Kernels
    whose keys are in `reused` have the object code there.

    Works once per process, since a process prints each source once."""
    from ovjit.codegen.cpu.host import assume, host_target

    assume(name, extra)
    isa = host_target()
    result = Contents([], [])
    have = set(skip)
    for group in itertools.islice(groups(isa), 1 if (name, tuple(extra)) in FEW else GROUPS):
        chosen = [k for k in group.kernels if not PICK or k.name.startswith(tuple(PICK.split()))]
        keys = {kernel.content_key(isa): kernel for kernel in chosen}
        further = {key: kernel for key, kernel in keys.items() if key not in have}
        result.kernels.append({key: _object_code(k, isa, reused.get(key)) for key, k in further.items()})
        result.printed.append({key: text for key, text in group.texts.items() if key not in have})
        have.update(keys, group.texts)
    return result


def _object_code(kernel: Kernel, isa: Target, reused: bytes | None) -> bytes:
    """The kernel's object code: `reused` if there is one. SystemExit if a compared one is no longer right."""
    if reused is not None and zlib.crc32(reused) % COMPARED:
        return reused
    code = kernel.content(isa)
    if reused not in (None, code):
        raise SystemExit(
            f"{kernel.name} for {isa.name} is compiled to other object code: ship without --reuse"
        )
    return code


def present_code(folder: Path, isa: str) -> dict[str, bytes]:
    """The object code in the file of an instruction set by the kernels' keys, whatever sources it is of."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS

    content = (folder / shipped.file_name(TARGETS[isa])).read_bytes()
    return shipped.Archive(content, content[: shipped.STAMP]).all()


def write_files(content: Contents, isa: str) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the content of each file. The last kernels are left out if the object code would
    exceed MOST bytes. Common kinds come first, each for all variants. A kernel that variants share is stored
    for the first of them."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS
    from ovjit.tools import ship_files

    yield "kernels", ship_files.pack(content.kernels, shipped.generators(TARGETS[isa].machine), MOST)
    yield "printed", ship_files.pack(content.printed, _printers(), together=TEXTS)


def _printers() -> bytes:
    from ovjit.codegen import shipped

    stamp = shipped.printers()
    if stamp is None:
        raise SystemExit("the source files of ovjit are missing: they are needed to ship kernels")
    return stamp


def made_by_process(
    isa: str, extra: Sequence[str], skip: Iterable[str], program: Sequence[str], reuse: Path | None = None
) -> Contents:
    """`contents`, in a process that assumes another CPU. `reuse`: the folder with object code to reuse."""
    folder = () if reuse is None else ("--reuse", "--folder", str(reuse))
    done = subprocess.run(
        [sys.executable, *program, "--print", isa, *extra, *folder], input=" ".join(skip).encode(),
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return Contents(*pickle.loads(done.stdout))


def _in_turn(variants: Sequence[Sequence[dict[str, bytes]]]) -> list[dict[str, bytes]]:
    """The first groups of all variants, then the second ones, and so on. The last ones are left out if a file
    is full."""
    return [group for some in itertools.zip_longest(*variants, fillvalue={}) for group in some]


def write(folder: Path, reuse: bool, isa: str) -> list[Path]:
    """Write the files of one instruction set. A separate process compiles each variant."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS

    result: list[Contents] = []
    for extra in VARIANTS[isa]:
        skip = [key for contents in result for groups in contents for group in groups for key in group]
        program = ["-m", "ovjit.tools.ship"]
        result.append(made_by_process(isa, extra, skip, program, folder if reuse else None))
    union = Contents(_in_turn([each.kernels for each in result]), _in_turn([each.printed for each in result]))
    paths = []
    for kind, content in write_files(union, isa):
        paths.append(folder / shipped.file_name(TARGETS[isa], kind))
        paths[-1].write_bytes(content)
    return paths


def index_content() -> bytes:
    """The index of operations and their modules (`graph/op_index.py`)."""
    from ovjit.graph import op, op_index

    return op_index.shipped_content(op.all_ops())


def digests_content() -> bytes:
    """The table of digests of all sources that a shipped file depends on (`source_digests.py`)."""
    from ovjit import source_digests
    from ovjit.codegen.versions import PRINTING_PACKAGES

    # `storage/tags.py` defines intrinsics: without an entry, each first export parsed it
    packages = map(source_digests.source_modules, (*PRINTING_PACKAGES, "ovjit.storage"))
    return source_digests.table_content(source for modules in packages for _, source in modules)


def schemas_content() -> bytes:
    """The table of operators from the package onnx (`readers/onnx/standard.py`)."""
    from onnx import defs

    from ovjit.readers.onnx import standard

    schemas = defs.get_all_schemas_with_history()
    newest = {domain: max(s.since_version for s in schemas if s.domain == domain)
              for domain in sorted({s.domain for s in schemas})}  # fmt: skip
    return standard.shipped_content(schemas, newest | {"": defs.onnx_opset_version()})


#: File in `ovjit/data` -> its content, from the sources and the package onnx alone.
TABLES: dict[str, Callable[[], bytes]] = {
    "operations_index.json": index_content,
    "syntax.bin": digests_content,
    "onnx_schemas.txt": schemas_content,
}


#: Pages that are made from the sources, each by a module of its name in `docs`.
PAGES = ("operations", "benchmarks")


def write_tables(folder: Path) -> list[Path]:
    """Write the files of `TABLES`."""
    for name, content in TABLES.items():
        (folder / name).write_bytes(content())
    return [folder / name for name in TABLES]


def stale_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that does not match the sources, and the command that writes it."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.targets import TARGETS

    for isa in VARIANTS:
        target = TARGETS[isa]
        for kind, stamp in (("kernels", shipped.generators(target.machine)), ("printed", shipped.printers())):
            name = shipped.file_name(target, kind)
            if not _has_stamp(folder / name, stamp):
                yield f"ovjit/data/{name}", f"python -m ovjit.tools.ship --isa {isa}"
    for name, content in TABLES.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != content():
            yield f"ovjit/data/{name}", "python -m ovjit.tools.ship --texts"
    root = Path(__file__).parents[2]
    for page in PAGES:
        if (root / "docs" / f"{page}.py").is_file():
            check = [sys.executable, "-m", f"docs.{page}", "--check"]
            if subprocess.run(check, cwd=root, stderr=subprocess.DEVNULL, check=False).returncode:
                yield f"docs/{page}.md", f"python -m docs.{page}"


def _has_stamp(path: Path, stamp: bytes | None) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(stamp or b"")) == stamp


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
        "--texts", action="store_true", help="write the files that need no compiler, and no kernels"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="keep the object code of kernels whose sources are the same"
    )
    parser.add_argument(
        "--stale", action="store_true", help="write nothing; list the files that are out of date"
    )
    options = parser.parse_args(argv)
    if options.missing:
        show_missing(options.missing)
        return 0
    if options.stale:
        stale = list(stale_files(options.folder))
        print(*(f"{name}: {command}" for name, command in stale), sep="\n", end="\n" * bool(stale))
        return bool(stale)
    if options.print:
        isa, *extra = options.print
        reused = present_code(options.folder, isa) if options.reuse else EMPTY
        content = contents(isa, extra, sys.stdin.read().split(), reused)
        sys.stdout.buffer.write(pickle.dumps(tuple(content)))
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # of processes that print, one for each
        each = functools.partial(write, options.folder, options.reuse)
        for paths in pool.map(each, () if options.texts else options.isa):
            for path in paths:
                print(f"{path}: {path.stat().st_size:,} bytes")
    for path in (*write_tables(options.folder), write_sources(options.folder)):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
