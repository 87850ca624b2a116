"""`python -m ovjit.tools.ship`: LLVM text of common kernels into the package (`codegen/shipped.py`).

Common are the kernels of the layers that most networks are made of, and of the embedded model. What is
written depends on the sources alone: not on this CPU, and not on the order of things. To be run when the code
generators have changed; files that are no longer theirs are not used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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


def layers() -> Iterator[Any]:
    """Models of one or a few layers each."""
    import ovjit as ov

    o = ov.opset13

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def model(shape: Sequence[int], make: Any) -> Any:
        x = o.parameter(list(shape), np.float32)
        return ov.Model([make(x)], [x], "layer")

    def bias(channels: int, x: Any) -> Any:
        return o.add(x, zeros(1, channels, 1, 1))

    def convolution(x: Any, outs: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> Any:
        pads = [size // 2] * 2
        window = ([stride] * 2, pads, pads, [1, 1])
        if groups == 1:
            return bias(outs, o.convolution(x, zeros(outs, channels, size, size), *window))
        weights = zeros(groups, outs // groups, channels // groups, size, size)
        return bias(outs, o.group_convolution(x, weights, *window))

    activations = {
        "none": lambda x: x, "relu": o.relu, "relu6": lambda x: o.clamp(x, 0.0, 6.0), "swish": o.swish,
        "hswish": o.hswish, "sigmoid": o.sigmoid, "leaky": lambda x: o.prelu(x, zeros(1)),
    }  # fmt: skip
    # (channels, pixels of a side, outputs, size, stride): the direct way and Winograd's two
    for channels, side, outs, size, stride in (
        (3, 64, 32, 3, 2), (3, 64, 64, 7, 2), (64, 56, 64, 1, 1), (64, 56, 64, 3, 1), (256, 14, 256, 3, 1),
        (512, 7, 512, 3, 1), (128, 56, 128, 3, 2),
    ):  # fmt: skip
        for name in ("none", "relu", "relu6", "swish"):
            if name in ("none", "relu") or (size, stride) == (1, 1):
                activate = activations[name]
                yield model(
                    (1, channels, side, side),
                    lambda x, a=activate, c=channels, n=outs, k=size, s=stride: a(convolution(x, n, c, k, s)),
                )
    for size in (1, 3):
        yield model((1, 64, 56, 56), lambda x, k=size: o.relu(o.add(convolution(x, 64, 64, k), x)))
    yield model((1, 64, 56, 56), lambda x: o.add(convolution(x, 64, 64, 1), x))
    for name in ("none", "relu", "relu6", "hswish", "swish"):
        for stride in (1, 2):
            yield model(
                (1, 32, 28, 28),
                lambda x, a=activations[name], s=stride: a(convolution(x, 32, 32, 3, s, groups=32)),
            )
    for size, stride in ((2, 2), (3, 2)):
        window = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [size] * 2)
        yield model(
            (1, 64, 56, 56), lambda x, w=window: o.relu(o.max_pool(x, w[0], [1, 1], *w[1:]).output(0))
        )
    # between convolutions, where a model of bf16 keeps it
    def pool(kind: str, size: int, stride: int) -> Any:
        window = ([stride] * 2, [size // 2] * 2, [size // 2] * 2, [size] * 2)
        if kind == "max":
            return lambda x: o.max_pool(x, window[0], [1, 1], *window[1:]).output(0)
        return lambda x: o.avg_pool(x, *window, kind == "avg")

    def scaled(x: Any) -> Any:
        factor = np.full((1, 64, 1, 1), 0.5, np.float32)
        return o.relu(o.add(o.multiply(x, factor), factor))

    inner = [
        scaled, o.relu, o.gelu, lambda x: o.concat([x, o.relu(x)], 1),
        lambda x: o.relu(o.concat([x, pool("avg_inside", 3, 1)(x)], 1)),
        lambda x: o.relu(o.add(x, convolution(x, 64, 64, 3))),
        *(pool(kind, size, stride) for kind in ("max", "avg", "avg_inside")
          for size, stride in ((2, 2), (3, 1), (3, 2))),
        *(lambda x, s=stride, a=activations[name]: a(convolution(x, 64, 64, 3, s, groups=64))
          for stride in (1, 2) for name in ("none", "relu", "relu6", "swish")),
    ]  # fmt: skip

    def after(x: Any) -> Any:
        return convolution(x, 64, o.concat([x], 1).output(0).shape[1], 1)

    for make in inner:
        for side in (56, 7):
            yield model(
                (1, 64, side, side),
                lambda x, m=make: after(m(convolution(x, 64, 64, 1))),
            )

    def classified(pooled: Any) -> Any:
        row = o.reshape(pooled, np.array([1, 64]), False)
        return o.softmax(o.add(o.matmul(row, zeros(64, 48), False, False), zeros(48)), 1)

    for whole in (
        lambda x: o.avg_pool(x, [1, 1], [0, 0], [0, 0], [7, 7], False),
        lambda x: o.reduce_mean(x, np.array([2, 3]), True),
    ):
        yield model((1, 64, 7, 7), lambda x, w=whole: classified(w(convolution(x, 64, 64, 1))))
    yield model((1, 64, 7, 7), lambda x: o.reduce_mean(x, np.array([2, 3]), True))
    yield model((1, 64, 7, 7), lambda x: o.avg_pool(x, [1, 1], [0, 0], [0, 0], [7, 7], False))
    # matrix products, as of transformers
    for rows in ((1, 128), (1, 16, 128)):
        wide = zeros(128, 256)
        yield model(rows, lambda x, w=wide: o.matmul(x, w, False, False))
        for name in (o.relu, o.gelu if hasattr(o, "gelu") else o.relu):
            yield model(rows, lambda x, w=wide, a=name: a(o.add(o.matmul(x, w, False, False), zeros(256))))
        yield model(rows, lambda x, w=wide: o.add(o.matmul(x, w, False, False), zeros(256)))
        yield model(rows, lambda x: o.softmax(x, -1))
        yield model(rows, lambda x: o.mvn(x, np.array([-1]), True, 1e-5, "INSIDE_SQRT"))
    # elementwise
    for shape in ((8,), (1, 8), (1, 16, 128), (1, 16, 8, 8)):
        x, y = (o.parameter(list(shape), np.float32) for _ in "xy")
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            yield ov.Model([getattr(o, name)(x, y)], [x, y], "pair")
            yield ov.Model([getattr(o, name)(x, zeros(1))], [x], "constant")
            yield ov.Model([getattr(o, name)(x, x)], [x], "twice")
        for name in ("relu", "sigmoid", "tanh", "exp", "sqrt", "hswish", "swish"):
            yield ov.Model([getattr(o, name)(x)], [x], "single")


def kernels() -> list[Kernel]:
    """The common kernels for the instruction set of this process, each once."""
    import ovjit as ov
    from ovjit.compiler.options import Options, compiling
    from ovjit.compiler.parametric import evaluating_kernel
    from ovjit.compiler.program import Program
    from ovjit.data import DIGITS_XML
    from ovjit.execution.runner import native_kernel
    from ovjit.tiles.formats import float_types

    found: dict[Kernel, None] = {native_kernel(): None, evaluating_kernel(): None}
    precisions = [kind for kind in ("f32", "bf16") if kind in float_types()]
    for model in (ov.Core().read_model(str(DIGITS_XML)), *layers()):
        for precision in precisions:
            with compiling(Options(precision=precision)):
                found.update(dict.fromkeys(Program(model._graph()).kernels))
    return list(found)


def texts(isa: str, extra: Sequence[str]) -> dict[str, str]:
    """The texts by their keys, for an instruction set and what a CPU has besides. Once in a process."""
    from ovjit.codegen.cpu.isa import ISAS, assume

    assume(isa, extra)
    chosen = [k for k in kernels() if not PICK or k.name.startswith(tuple(PICK.split()))]
    return {kernel.text_key(ISAS[isa]): kernel.text(ISAS[isa]) for kernel in chosen}


def write(folder: Path, isa: str) -> Path:
    """Write the file of one instruction set; each of its variants is printed by a process of its own."""
    from ovjit.codegen import shipped
    from ovjit.codegen.cpu.isa import ISAS

    found: dict[str, str] = {}
    for extra in TARGETS[isa]:
        command = [sys.executable, "-m", "ovjit.tools.ship", "--print", isa, *extra]
        done = subprocess.run(command, capture_output=True, check=True)
        found |= {k: v.decode() for k, v in (shipped.unpack(done.stdout) or {}).items()}
    path = folder / shipped.file_name(ISAS[isa])
    path.write_bytes(shipped.pack(found))
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ovjit.tools.ship", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "data")
    parser.add_argument("--isa", choices=list(TARGETS), nargs="*", default=list(TARGETS))
    parser.add_argument("--print", nargs="+", metavar=("ISA", "FEATURE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.print:
        from ovjit.codegen import shipped

        sys.stdout.buffer.write(shipped.pack(texts(options.print[0], options.print[1:])))
        return 0
    for isa in options.isa:
        path = write(options.folder, isa)
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
