"""`python -m ovjit.tools.ship`: common kernels into the package (`codegen/shipped.py`), and texts of modules.

Common are the kernels of the layers that most networks are made of, and of the embedded model. What is
written is object code, and depends on the sources alone: not on this CPU, and not on the order of things. To
be run when the code generators have changed; files that are no longer theirs are not used.

The texts are for installations without sources (`codegen/module_texts.py`), and to be written anew when a
module with kernels has changed: `--texts` does only that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel

#: Instruction sets and what CPUs have besides, as `isa.EXTRA` names it: server CPUs of ten years.
TARGETS = {
    "avx512": ((), ("avx512vnni",), ("avx512bf16", "avx512vnni")),
    "avx2": ((),),
    "generic": ((),),
}


#: Beginnings of kernels' names, for tests that print some; "" for all.
PICK = ""


def kernels() -> list[Kernel]:
    """The common kernels for the instruction set of this process, each once."""
    import ovjit as ov
    from ovjit.codegen.cpu.isa import host_isa
    from ovjit.data import DIGITS_XML
    from ovjit.execution.runner import native_kernels
    from ovjit.planning.parametric import evaluating_kernel
    from ovjit.storage import tags
    from ovjit.tiles import weave
    from ovjit.tools.layers import layers

    found: dict[Kernel, None] = dict.fromkeys(
        (*native_kernels(), tags.kernel(), evaluating_kernel(), *weave.kernels(host_isa()))
    )
    for model in (ov.Core().read_model(str(DIGITS_XML)), *layers()):
        for some in kernels_of(model).values():
            found.update(dict.fromkeys(some))
    return list(found)


def kernels_of(model: Any) -> dict[str, list[Kernel]]:
    """precision -> the kernels of a model that computes in it, for the instruction set of this process: with
    state, of what computes its variables' first values, too."""
    from ovjit.api.run.properties_table import ROWS
    from ovjit.codegen.cpu.formats import float_types
    from ovjit.compiler.options import Options, compiling
    from ovjit.compiler.program import Program
    from ovjit.execution.variables import lifted_for
    from ovjit.rewrite.model_variables import Start

    found: dict[str, list[Kernel]] = {}
    graph, groups = model._graph(), "DYNAMIC_QUANTIZATION_GROUP_SIZE"
    for precision in [kind for kind in ("f32", "bf16") if kind in float_types()]:
        config = {"INFERENCE_PRECISION_HINT": precision, groups: ROWS[groups].default}
        graphs = [graph]
        if graph.has_state:
            lifted = lifted_for(graph, config)
            graphs = [lifted.main, *(start.graph for start in lifted.inits if isinstance(start, Start))]
        with compiling(Options.of(config)):
            needed = [kernel for one in dict.fromkeys(graphs) for kernel in Program(one).kernels]
        found[precision] = list(dict.fromkeys(needed))
    return found


def show_missing(paths: Sequence[str]) -> None:
    """Print which kernels of these models the package does not have, for this CPU."""
    import ovjit as ov
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.isa import host_isa

    isa = host_isa()
    for path in paths:
        for precision, needed in kernels_of(ov.Core().read_model(path)).items():
            missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
            print(f"{path} {precision}: {len(missing)} of {len(needed)} missing", *sorted(missing))


def contents(name: str, extra: Sequence[str], known: Collection[str] = ()) -> dict[str, bytes]:
    """What is shipped by keys, but for the keys `known`, for an instruction set and what a CPU has besides.

    Once in a process."""
    from ovjit.codegen.cpu.isa import ISAS, assume

    assume(name, extra)
    isa = ISAS[name]
    chosen = [k for k in kernels() if not PICK or k.name.startswith(tuple(PICK.split()))]
    keys = {kernel.content_key(isa): kernel for kernel in chosen}
    return {key: kernel.content(isa) for key, kernel in keys.items() if key not in known}


def write(folder: Path, isa: str) -> Path:
    """Write the file of one instruction set; each of its variants is printed by a process of its own."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.isa import ISAS

    found: dict[str, bytes] = {}
    for extra in TARGETS[isa]:
        command = [sys.executable, "-m", "ovjit.tools.ship", "--print", isa, *extra]
        done = subprocess.run(command, input=" ".join(found).encode(), stdout=subprocess.PIPE, check=True)
        found |= shipped.Archive(done.stdout).all()
    path = folder / shipped.file_name(ISAS[isa])
    path.write_bytes(shipped.pack(found))
    return path


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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ovjit.tools.ship", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "data")
    parser.add_argument("--isa", choices=list(TARGETS), nargs="*", default=list(TARGETS))
    parser.add_argument("--print", nargs="+", metavar=("ISA", "FEATURE"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--missing", nargs="+", metavar="MODEL", help="write nothing; tell what the package lacks for models"
    )
    parser.add_argument("--texts", action="store_true", help="write the texts of modules, and no kernels")
    options = parser.parse_args(argv)
    if options.missing:
        show_missing(options.missing)
        return 0
    if options.print:
        from ovjit.codegen import shipped

        isa, *extra = options.print
        sys.stdout.buffer.write(shipped.pack(contents(isa, extra, sys.stdin.read().split())))
        return 0
    for isa in () if options.texts else options.isa:
        path = write(options.folder, isa)
        print(f"{path}: {path.stat().st_size:,} bytes")
    path = write_texts(options.folder)
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
