"""Print traced bodies, as lines of kernel source and as LLVM code for the epilogues of tiles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ovjit.codegen.tracer import WIDENED, Recorder
from ovjit.forks import made_once
from ovjit.graph import dtypes
from ovjit.records import NamedTuple

#: Names of a body's inputs, constants and lines.
_LOCAL = re.compile(r"\b[xkt]\d+\b")
#: Beginnings of operations whose words are named by the type of the result.
_TYPED = ("cast", "bits", "trunc_int", "trunc_or_min", "round_int", "saturate", "libm_", "seldom_")
_NAMES = {"max": "max_", "min": "min_", "abs": "abs_", "and": "and_", "or": "or_", "not": "not_"}


class Body:
    """Straight-line code from inputs `x0, x1, ...` to results.

    `inputs` and `outputs` are element types in memory. `lines` are the traced instructions. A result is the
    name of a target or an input, or a constant.
    """

    def __init__(
        self, inputs: Sequence[str], outputs: Sequence[str], lines: Sequence[tuple], results: Sequence[Any]
    ):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.lines, self.results = _live(lines, results)
        self.register = {f"x{i}": WIDENED.get(d, d) for i, d in enumerate(self.inputs)}
        self.register |= {target: dtype for target, _, _, dtype in self.lines}

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The body as readable source, which also identifies it."""
        lines, constants = self.source("")
        returned = ", ".join(self._argument(r, constants) for r in self.results)
        head = ", ".join(f"x{i}: {d}" for i, d in enumerate(self.inputs))
        prefix = [f"{name} = {text}" for name, text in constants.values()]
        return "\n".join(
            [f"body({head}) -> {', '.join(self.outputs)}", *prefix, *lines, f"return {returned}"]
        )

    def source(self, indent: str) -> tuple[list[str], dict]:
        """The lines, and the constants that they use, to be hoisted: key -> (name, expression)."""
        lines, constants = self._source
        return [indent + line for line in lines], dict(constants)

    @made_once
    def _source(self) -> tuple[list[str], dict]:
        constants: dict[tuple, tuple[str, str]] = {}
        out = []
        for target, operation, args, dtype in self.lines:
            texts = [self._argument(a, constants) for a in args]
            name = _NAMES.get(operation, operation)
            if operation.startswith(_TYPED):
                name = f"{operation}_{dtype}"
            out.append(f"{target} = {name}({', '.join(texts)})")
        for result in self.results:
            self._argument(result, constants)
        return out, constants

    def result_names(self, constants: dict) -> list[str]:
        return [self._argument(r, constants) for r in self.results]

    def inline(
        self, names: dict[str, str], numbers: dict[str, str], prefix: str, suffix: str,
        targets: Sequence[str] = (),
    ) -> tuple[list[str], list[str]]:  # fmt: skip
        """(lines, results) for a kernel's source. `names`: input -> its name there. `numbers`: source of a
        constant -> its name, which begins with `prefix`. All other names end in `suffix`. Results that are
        lines of the body are assigned to `targets`."""
        lines, constants = self._source
        argument_names = set(names.values())
        names = dict(names)
        for name, value in constants.values():
            names[name] = numbers.setdefault(value, f"{prefix}{len(numbers)}")
        results = self.result_names(constants)
        for result, target in zip(results, targets, strict=False):
            if result not in names and target not in argument_names:
                names[result] = target

        def rename(text: str) -> str:
            return _LOCAL.sub(lambda m: names.get(m.group()) or m.group() + suffix, text)

        return [rename(line) for line in lines], [rename(result) for result in results]

    def _argument(self, argument: Any, constants: dict) -> str:
        if isinstance(argument, str):
            return argument
        if argument not in constants:
            _, value, dtype = argument
            constants[argument] = (f"k{len(constants)}", f"const_{dtype}({literal(value, dtype)})")
        return constants[argument][0]

    def emit_ir(self, b: Any, inputs: Sequence[Any], lanes: int) -> list[Any]:
        """The body on LLVM vectors: one value per output, in its register type."""
        import llvmlite.ir as ir

        from ovjit.codegen.cpu import vector as simd

        values: dict[Any, Any] = {f"x{i}": v for i, v in enumerate(inputs)}

        def get(argument: Any) -> tuple[Any, simd.Vec]:
            if isinstance(argument, str):
                return values[argument], simd.vec(self.register[argument], lanes)
            _, value, dtype = argument
            kind = simd.vec(dtype, lanes)
            number = float.fromhex(value) if isinstance(value, str) else value
            return ir.Constant(kind.ir, [number] * lanes), kind

        for target, operation, args, dtype in self.lines:
            got = [get(a) for a in args]
            xs, kind = [v for v, _ in got], got[-1][1]
            to = simd.vec(dtype, lanes)
            name = _NAMES.get(operation, operation)
            if operation.startswith("libm_"):
                values[target] = simd._libm(operation[5:], dtype)(b, kind, *xs)
            elif operation.startswith("seldom_"):
                values[target] = simd._seldom(operation[7:], dtype)(b, kind, *xs)
            elif name in simd.BODIES:
                values[target] = simd.BODIES[name](b, kind, *xs)
            else:
                values[target] = simd.BODIES[f"{name}_T"](b, kind, *xs, to)
        return [get(r)[0] for r in self.results]


def body_of(function: Callable[..., Any], inputs: int = 1, dtype: str = "f32") -> Body:
    """The body of a function of `inputs` numbers of type `dtype`."""
    recorder = Recorder()
    result = function(*(recorder.input(f"x{i}", dtype) for i in range(inputs)))
    return Body([dtype] * inputs, [dtype], recorder.lines, [result.name])


class Operand(NamedTuple):
    """An operand of an epilogue besides the accumulator.

    kind: "pixel" (a vector at the pixel's own address), "scalar" (one element at the pixel's own address),
    "channel" (a vector at an address that all pixels share) or "number" (one element for all). where: row of
    the address table, or index among the shared operands.
    """

    kind: str
    where: int
    dtype: str

    @property
    def shared(self) -> bool:
        """Whether all pixels read it at the same address."""
        return self.kind in ("channel", "number")


class Epilogue:
    """The operations on a tile's accumulators before they are stored: `body(x0 = accumulator,
    operands...)`."""

    def __init__(self, body: Body | None, kinds: Sequence[str] = (), out: str = "f32"):
        self.body = body
        self.out = out
        self.operands: list[Operand] = []
        rows, shared = 2, 0  # rows 0 and 1 of the table are input and output
        for i, kind in enumerate(kinds):
            dtype = body.inputs[i + 1] if body else "f32"
            if kind in ("channel", "number"):
                self.operands.append(Operand(kind, shared, dtype))
                shared += 1
            else:
                self.operands.append(Operand(kind, rows, dtype))
                rows += 1
        self.table_rows = rows
        self.shared_operands = shared

    def text(self) -> str:
        kinds = ", ".join(f"{o.kind} {o.dtype}" for o in self.operands)
        return f"epilogue [{kinds}] -> {self.out}\n" + (self.body.text() if self.body else "return x0")

    def constants(self, acc: str) -> dict[str, Any]:
        """The constants of a kernel that applies the epilogue to values of type `acc`: operands, body, output
        type."""
        body = self.body or Body([acc], [self.out], [], ["x0"])
        return {"operands": tuple(self.operands), "body": body, "out": self.out}

    @made_once
    def narrowing(self) -> tuple[Body, str] | None:
        """For a body that ends with a conversion of 32 bits to bytes: (the body before it, the conversion).
        Else None."""
        if self.body is None or self.out not in ("u8", "i8"):
            return None
        for target, operation, operands, _ in self.body.lines:
            if (target,) == self.body.results and operation in ("round_int", "saturate"):
                register = self.body.register[operands[0]]
                return Body(self.body.inputs, [register], self.body.lines, operands), operation
        return None

    def emit_ir(self, b: Any, acc: Any, operands: Sequence[Any], lanes: int) -> Any:
        return acc if self.body is None else self.body.emit_ir(b, [acc, *operands], lanes)[0]


def _live(lines: Sequence[tuple], results: Sequence[Any]) -> tuple[tuple, tuple]:
    """The lines that the results need, renumbered so that equal code has equal source; and the results.

    A product with a single reader, a sum, is fused: x * y + z -> fma(x, y, z). It is decided here, since LLVM
    would fuse whatever its passes leave in one block.
    """
    reads = Counter(r for r in results if isinstance(r, str))
    needed = []
    for line in reversed(lines):
        if reads[line[0]]:
            reads.update(a for a in line[2] if isinstance(a, str))
            needed.append(line)
    products: dict[Any, tuple] = {}
    code: dict[str, tuple] = {}

    def negative(argument: Any, dtype: str) -> Any:
        if isinstance(argument, str):
            code.setdefault(f"-{argument}", ("neg", (argument,), dtype))
            return f"-{argument}"
        return (argument[0], (-float.fromhex(argument[1])).hex(), dtype)

    for target, operation, args, dtype in reversed(needed):
        if dtype in ("f32", "f64") and operation == "mul" and reads[target] == 1:
            products[target] = args
        product = next((a for a in args if a in products), None) if operation in ("add", "sub") else None
        if product is not None:
            del code[product]
            (x, y), z = products[product], args[args[0] == product]
            if operation == "sub" and args[0] == product:
                z = negative(z, dtype)
            elif operation == "sub":
                y = negative(y, dtype)
            operation, args = "fma", (x, y, z)
        code[target] = operation, args, dtype
    names = {target: f"t{i}" for i, target in enumerate(code)}
    out = tuple((names[n], op, tuple(names.get(a, a) for a in args), d) for n, (op, args, d) in code.items())
    return out, tuple(names.get(r, r) for r in results)


def literal(value: Any, dtype: str) -> str:
    """`value` (for floats, the result of `float.hex`) as source of kernels."""
    if isinstance(value, str):
        number = float.fromhex(value)
        if number != number:
            return "float_nan"
        if number in (float("inf"), float("-inf")):
            return "float_inf" if number > 0 else "-float_inf"
        return repr(number)
    if dtypes.ELEMENT_TYPES[dtype].kind == "b":
        return repr(bool(value))
    return repr(value)
