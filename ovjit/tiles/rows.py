"""Epilogues in kernels that go through rows of results by themselves, and not by tiles."""

from __future__ import annotations

from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame


class RowEpilogue:
    """What a kernel's text needs of an epilogue: the fields `e0`, `e0_w`, ... of its operands, the lines that
    make its constants, and those that apply it to a panel of results."""

    def __init__(self, epilogue: Epilogue):
        self.epilogue = epilogue
        body = epilogue.body or Body(["f32"], [epilogue.out], [], ["x0"])
        self.lines, constants = body.source("")
        self.result = body.result_names(constants)[0]
        self.constants = [f"{name} = {made}" for name, made in constants.values()]

    def add_fields(self, frame: Frame) -> None:
        """Addresses of the operands, and the bytes from row to row of those that have rows."""
        for n, operand in enumerate(self.epilogue.operands):
            frame.pointers(f"e{n}")
            if not operand.shared:
                frame.integers(f"e{n}_w")

    def head(self, frame: Frame) -> list[str]:
        """The kernel's first lines."""
        src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
        src += [f"    # {line}" for line in self.epilogue.text().splitlines()]
        return [*src, frame.prologue(), *(f"    {line}" for line in self.constants)]

    def applied(self, values: list[str], row: str, width: int, lanes: int) -> list[str]:
        """Lines that store panel `c` of the row `row`, of whose `outs` columns `values` are the vectors."""
        out: list[str] = []
        for v, value in enumerate(values):
            out += [f"k = c * {width} + {v * lanes}", "left = outs - k", "if left > 0:"]
            inner = []
            for n, operand in enumerate(self.epilogue.operands):
                base = f"e{n}" if operand.shared else f"e{n} + {row} * e{n}_w"
                if operand.kind in ("scalar", "number"):
                    inner += [f"x{n + 1} = splat_{operand.dtype}({base})"]
                else:
                    inner += [f"x{n + 1} = loadm_{operand.dtype}({base} + k * {SIZE[operand.dtype]}, left)"]
            inner += [f"x0 = {value}", *self.lines]
            kind = self.epilogue.out
            inner += [f"storem_{kind}(y + {row} * y_w + k * {SIZE[kind]}, {self.result}, left)"]
            out += ["    " + line for line in inner]
        return out
