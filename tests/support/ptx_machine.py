"""A machine that runs PTX: a launch's blocks, warp by warp. The 32 lanes of a register are a NumPy vector.

It knows nothing of ovjit's words. Its instructions are those of the PTX ISA: layouts of fragments,
descriptors and permutations of `wgmma`, boxes of tensor maps, barriers with transactions. So it finds
what the meaning of words cannot: a wrong instruction, operand or layout in the code of a word. It fails for

- addresses outside of memory, or that are not aligned;
- instructions of all lanes (`.aligned`) that some lanes do not run;
- shared memory that is read before a copy to it is awaited;
- registers that are used before the products that write them are awaited;
- a deadlock.

Lanes with different next instructions run in the order of these. Copies of boxes arrive as late as they can.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LANES = 32
_ALL = np.ones(LANES, bool)
_TYPES: dict[str, Any] = {
    "u8": np.uint8, "s8": np.int8, "b8": np.uint8, "u16": np.uint16, "s16": np.int16, "b16": np.uint16,
    "u32": np.uint32, "s32": np.int32, "b32": np.uint32, "u64": np.uint64, "s64": np.int64, "b64": np.uint64,
    "f16": np.float16, "f32": np.float32, "f64": np.float64, "pred": np.bool_,
}  # fmt: skip
_NAME = r"[%$A-Za-z_][\w$.]*"
_TOKEN = re.compile(
    r"\s*(?:\[(?P<address>[^\]]*(?:\{[^}]*\}[^\]]*)?)\]|\{(?P<list>[^}]*)\}|(?P<one>[^,\s]+))\s*,?"
)
_LABEL = re.compile(rf"\s*({_NAME}):")
#: Begins of the names of instructions that all lanes run together.
_OF_ALL = (
    "bar",
    "shfl",
    "vote",
    "mma",
    "ldmatrix",
    "wgmma",
    "setmaxnreg",
    "cp.async.commit",
    "cp.async.wait",
)
_BRANCH = ("bra", "bra.uni")


class Fault(AssertionError):
    """What a card would not do, or would do wrong."""


def bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Instruction:
    """`guard`: a predicate and its sense, or None. `operands`: texts, lists of texts, and addresses."""

    def __init__(self, text: str, rename: dict[str, str]):
        self.text, self.guard = text, None
        match = re.match(r"@(!?)(\S+)\s+", text)
        if match:
            self.guard = rename.get(match[2], match[2]), not match[1]
            text = text[match.end() :]
        self.name, _, rest = text.partition(" ")
        self.parts = self.name.split(".")
        self.operands: list[Any] = []
        for token in _TOKEN.finditer(rest.replace("|", ", ")):
            if token["address"] is not None:
                self.operands.append(("address", _renamed(token["address"], rename)))
            elif token["list"] is not None:
                self.operands.append([rename.get(t.strip(), t.strip()) for t in token["list"].split(",")])
            else:
                self.operands.append(rename.get(token["one"], token["one"]))
        self.run: Callable[..., Any] | None = None
        self.is_of_all = self.name.startswith(_OF_ALL)


def _renamed(text: str, rename: dict[str, str]) -> str:
    return re.sub(_NAME, lambda m: rename.get(m[0], m[0]), text)


class Kernel:
    """An entry point: its instructions, labels, parameters and shared memory."""

    def __init__(self, text: str):
        text = re.sub(r"//[^\n]*", "", text)
        head, _, body = text.partition(".entry")[2].partition("{\n")
        self.parameters = re.findall(r"\.param [^,\n]*?(\w+)(?:\[(\d+)\])?(?=,|\n|\))", head)
        self.shared: dict[str, int] = {}
        size = 0
        for align, name, count in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d*)\]", text):
            size = -(-size // int(align)) * int(align)
            self.shared[name] = size
            size += int(count or 0)
        self.static_size = size
        self.labels: dict[str, int] = {}
        self.code: list[Instruction] = []
        self.kinds: dict[str, str] = {"%ignored": "b64"}
        self._read(body[: body.rindex("}")])

    def _read(self, body: str) -> None:
        scopes: list[dict[str, str]] = [{}]
        position, count = 0, 0
        pattern = re.compile(
            r"\s*(?:(\{)(?=\s*\.reg)|(\})|(?:([%$A-Za-z_][\w$.]*):(?!:))|([^;{}]*(?:\{[^}]*\}[^;{}]*)*);)"
        )
        while position < len(body.rstrip()):
            match = pattern.match(body, position)
            if match is None:
                raise Fault(f"not understood: {body[position : position + 200]}")
            position = match.end()
            if match[1]:
                count += 1
                scopes.append(dict(scopes[-1]))
                for label in re.findall(r"\b([A-Za-z]\w*):(?!:)", _scope(body, position)):
                    scopes[-1][label] = f"{label}'{count}"
            elif match[2]:
                scopes.pop()
            elif match[3]:
                self.labels[scopes[-1].get(match[3], match[3])] = len(self.code)
            else:
                self._add(match[4].strip(), scopes[-1], count)

    def _add(self, text: str, rename: dict[str, str], count: int) -> None:
        text = " ".join(text.split())
        if text.startswith(".reg"):
            _, kind, names = text.split(" ", 2)
            for name in re.split(r",\s*", names):
                prefix = re.fullmatch(r"(\S+)<(\d+)>", name)
                if prefix:
                    self.kinds |= {f"{prefix[1]}{i}": kind[1:] for i in range(int(prefix[2]))}
                else:
                    rename[name] = f"{name}'{count}"
                    self.kinds[rename[name]] = kind[1:]
        elif text and not text.startswith((".shared", ".pragma", ".loc")):
            self.code.append(Instruction(text, rename))


def _scope(body: str, position: int) -> str:
    """The text up to the brace that closes a scope."""
    depth = 1
    for i in range(position, len(body)):
        depth += {"{": 1, "}": -1}.get(body[i], 0)
        if not depth:
            return body[position:i]
    raise Fault("a scope is not closed")


class Product:
    """Sums of a product that is not awaited yet. `reads`: ranges of shared memory that it reads."""

    def __init__(self, value: np.ndarray, reads: Sequence[tuple[int, int]]):
        self.value, self.reads = value, reads

    def overlaps(self, places: np.ndarray) -> bool:
        low, high = int(places.min()), int(places.max())
        return any(first <= high and low < last for first, last in self.reads)


class Barrier:
    def __init__(self, count: int):
        self.count, self.pending, self.bytes, self.phase = count, count, 0, 0

    def settle(self) -> None:
        if self.pending < 0:
            raise Fault("too many arrivals at a barrier")
        if self.pending == 0 and self.bytes == 0:
            self.pending, self.phase = self.count, self.phase + 1


class Block:
    def __init__(self, machine: Machine, number: int, warps: int, dynamic: int):
        self.machine, self.number = machine, number
        # shared memory begins at an odd multiple of 16: kernels align what they need
        self.offset = 1024 if not dynamic else 1040
        size = machine.kernel.static_size + dynamic
        self.memory = np.full(self.offset + size, 0xA5, np.uint8)
        #: 1 where a copy is on its way.
        self.coming = np.zeros(len(self.memory), np.uint8)
        self.barriers: dict[int, Barrier] = {}
        self.copies: list[Callable[[], None]] = []
        self.warps = [Warp(self, i) for i in range(warps)]

    def arrive_copy(self) -> bool:
        """Let the oldest copy arrive. False if there is none."""
        if not self.copies:
            return False
        self.copies.pop(0)()
        return True

    def barrier(self, address: int) -> Barrier:
        found = self.barriers.get(address)
        if found is None:
            raise Fault(f"there is no barrier at {address}")
        return found

    def check(self, addresses: np.ndarray, size: int) -> None:
        if addresses.size and (addresses.min() < self.offset or addresses.max() + size > len(self.memory)):
            raise Fault(f"shared memory has no {size} bytes at {addresses.min()} .. {addresses.max()}")

    def read(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """`size` bytes at each address."""
        self.check(addresses, size)
        index = addresses.astype(np.int64)[..., None] + np.arange(size)
        if self.coming[index].any():
            raise Fault("shared memory is read before a copy to it has arrived")
        return self.memory[index]

    def write(self, addresses: np.ndarray, content: np.ndarray) -> None:
        self.check(addresses, content.shape[-1])
        index = addresses.astype(np.int64)[..., None] + np.arange(content.shape[-1])
        if self.coming[index].any():
            raise Fault("shared memory is written while a copy to it is on its way")
        self.memory[index] = content


#: (text, type) -> the lanes of a constant.
_literals: dict[tuple[str, str], np.ndarray] = {}


class Warp:
    def __init__(self, block: Block, number: int):
        self.block, self.number, self.machine = block, number, block.machine
        kernel = block.machine.kernel
        self.registers: dict[str, Any] = {}
        self.kinds = kernel.kinds
        self.groups: dict[int, np.ndarray] = {0: _ALL}
        self.waits = self.yields = False
        self.copies: list[list[Callable[[], None]]] = [[]]
        self.products: list[list[Product]] = []
        self.open_products: list[Product] = []

    @property
    def is_done(self) -> bool:
        return not self.groups

    def get(self, operand: str, kind: str) -> np.ndarray:
        """The lanes of an operand, as a type."""
        dtype = _TYPES[kind]
        found = self.registers.get(operand)
        if found is None:
            return self._constant(operand, kind)
        if isinstance(found, Product):
            raise Fault(f"{operand} is used before the product that writes it is awaited")
        if found.dtype.itemsize == np.dtype(dtype).itemsize:
            return found.view(dtype)
        if dtype == np.bool_:
            raise Fault(f"{operand} is no predicate")
        return found.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)

    def _constant(self, text: str, kind: str) -> np.ndarray:
        found = _literals.get((text, kind))
        if found is not None:
            return found
        dtype = np.dtype(_TYPES[kind])
        if text in self.kinds:
            raise Fault(f"{text} is read before it is written")
        if text.startswith(("0f", "0d")):
            bits = np.array(int(text[2:], 16), f"u{len(text[2:]) // 2}")
            number = bits.view(f"f{bits.itemsize}") if dtype.kind == "f" else bits
            found = np.full(LANES, number.astype(dtype))
            return _literals.setdefault((text, kind), found)
        if re.fullmatch(r"0x[0-9A-Fa-f]{4}", text) and kind == "f16":
            return np.broadcast_to(np.array(int(text, 16), np.uint16).view(np.float16), LANES)
        if re.fullmatch(r"-?\d+U?|0x[0-9A-Fa-f]+U?", text):
            value = int(text.rstrip("U"), 0)
            unsigned = np.array(value & (1 << 8 * dtype.itemsize) - 1, f"u{dtype.itemsize}")
            return _literals.setdefault((text, kind), np.full(LANES, unsigned.view(dtype)))
        if text.startswith("%"):
            return np.broadcast_to(self._special(text).astype(dtype), LANES)
        if text in self.machine.kernel.shared:
            return np.full(LANES, self.block.offset + self.machine.kernel.shared[text], dtype)
        if text in self.machine.parameters:
            return np.full(LANES, self.machine.parameters[text].ctypes.data, dtype)
        raise Fault(f"not understood: {text}")

    def _special(self, name: str) -> np.ndarray:
        lanes = np.arange(LANES)
        value = {
            "%laneid": lanes, "%tid.x": lanes, "%tid.y": self.number, "%ntid.y": len(self.block.warps),
            "%ntid.x": LANES, "%ctaid.x": self.block.number, "%nctaid.x": self.machine.grid,
            "%globaltimer": 0,
        }[name]  # fmt: skip
        return np.asarray(value, np.uint64)

    def set(self, name: str, value: np.ndarray, mask: np.ndarray) -> None:
        """Write a register's lanes; narrower values are extended by their sign."""
        if name == "_":
            return
        kind = self.kinds[name]
        width = np.dtype(_TYPES[kind]).itemsize
        if kind == "pred":
            bits = np.asarray(value, np.bool_)
        else:
            if value.dtype.itemsize != width:
                wide = "i" if value.dtype.kind == "i" else "u"
                assert value.dtype.kind in "iu", (name, value.dtype)
                value = value.astype(f"{wide}{width}")
            bits = np.ascontiguousarray(value).view(f"u{width}")
        old = self.registers.get(name)
        if mask is _ALL:
            self.registers[name] = bits if bits.shape else np.full(LANES, bits)
            return
        if isinstance(old, Product):
            raise Fault(f"{name} is written before the product that writes it is awaited")
        new = (
            np.zeros(LANES, _TYPES["pred"] if kind == "pred" else f"u{width}") if old is None else old.copy()
        )
        new[mask] = np.broadcast_to(bits, LANES)[mask]
        self.registers[name] = new

    def address(self, operand: tuple[str, str]) -> np.ndarray:
        base, _, offset = operand[1].partition("+")
        kind = "u64" if self.kinds.get(base, "b64") == "b64" else "u32"
        return (self.get(base, kind).astype(np.int64) + (int(offset) if offset else 0)) & (
            -1 if kind == "u64" else 0xFFFFFFFF
        )

    def run(self) -> None:
        """Run until the warp has to wait, or is done."""
        code = self.machine.kernel.code
        self.yields = False
        while self.groups and not self.waits and not self.yields:
            # lanes that are at an instruction of all lanes await the others
            pc = min(self.groups, key=lambda pc: (code[pc].is_of_all and len(self.groups) > 1, pc))
            mask = self.groups.pop(pc)
            instruction = code[pc]
            active = mask
            if instruction.guard is not None:
                name, sense = instruction.guard
                active = mask & (self.get(name, "pred") == sense)
                active = _ALL if active.all() else active
            name = instruction.name
            if name in _BRANCH:
                self._go(self.machine.kernel.labels[instruction.operands[0]], active)
                self._go(pc + 1, mask & ~active)
                continue
            if name in ("ret", "exit"):
                self._go(pc + 1, mask & ~active)
                continue
            if active is _ALL or active.any():
                if instruction.run is None:
                    instruction.run = find_body(instruction)
                try:
                    with np.errstate(all="ignore"):
                        instruction.run(self, instruction, active)
                except Fault as fault:
                    raise Fault(f"{fault}: {instruction.text}") from None
                self.machine.count += 1
            self._go(pc + 1, mask)

    def _go(self, pc: int, mask: np.ndarray) -> None:
        before = self.groups.get(pc)
        if before is not None:
            mask = mask | before
        if mask is _ALL or mask.all():
            self.groups[pc] = _ALL
        elif mask.any():
            self.groups[pc] = mask

    def need_all(self, mask: np.ndarray) -> None:
        if not mask.all():
            raise Fault("not all lanes run an instruction of the warp")


class Machine:
    """One launch of a kernel. `spans`: (address, bytes) of the memory that kernels may access. `dynamic`:
    bytes of dynamic shared memory. `resident`: all blocks run at a time."""

    def __init__(self, text: str, spans: Sequence[tuple[int, int]]):
        self.kernel = kernel_of(text)
        self.spans, self.count, self.grid = spans, 0, 0
        self.parameters: dict[str, np.ndarray] = {}

    def launch(
        self, grid: int, warps: int, arguments: Sequence[np.ndarray], dynamic: int = 0, resident: bool = False
    ) -> None:
        """Arguments: their bytes."""
        self.grid = grid
        assert len(arguments) == len(self.kernel.parameters), self.kernel.parameters
        for (name, size), argument in zip(self.kernel.parameters, arguments, strict=True):
            assert len(argument) == int(size or 8)
            self.parameters[name] = argument
        numbers = [range(grid)] if resident else [range(i, i + 1) for i in range(grid)]
        for some in numbers:
            self._run_blocks([Block(self, i, warps, dynamic) for i in some])

    def _run_blocks(self, blocks: list[Block]) -> None:
        idle = 0
        while True:
            before, left = self.count, False
            for block in blocks:
                for warp in reversed(block.warps):  # the first ones often prepare what the others use
                    if not warp.is_done and not warp.waits:
                        warp.run()
                running = [warp for warp in block.warps if not warp.is_done]
                left |= bool(running)
                if running and all(warp.waits for warp in running):
                    for warp in running:
                        warp.waits = False
                    idle = 0
                if any(warp.yields for warp in block.warps) and block.arrive_copy():
                    idle = 0
            if not left:
                if any(block.copies for block in blocks):
                    raise Fault("a block ends before its copies have arrived")
                return
            idle = idle + 1 if self.count - before < 64 * len(blocks) * len(blocks[0].warps) else 0
            if idle > 64:
                raise Fault("all warps wait: a deadlock")

    def find(self, addresses: np.ndarray, size: int) -> tuple[int, np.ndarray]:
        """The memory that all these addresses lie in."""
        low, high = int(addresses.min()), int(addresses.max()) + size
        for begin, count in self.spans:
            if begin <= low and high <= begin + count:
                return begin, memory_at(begin, count)
        raise Fault(f"{size} bytes at {low:#x} .. {high:#x} are not in one tensor's memory")

    def read(self, addresses: np.ndarray, size: int) -> np.ndarray:
        begin, memory = self.find(addresses, size)
        return memory[(addresses - begin)[..., None] + np.arange(size)]


_memory: dict[tuple[int, int], np.ndarray] = {}


def memory_at(begin: int, count: int) -> np.ndarray:
    """A view of this process's memory."""
    found = _memory.get((begin, count))
    if found is None:
        if len(_memory) > 256:
            _memory.clear()
        found = _memory[begin, count] = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(begin))
    return found


_kernels: dict[str, Kernel] = {}


def kernel_of(text: str) -> Kernel:
    if text not in _kernels:
        _kernels[text] = Kernel(text)
    return _kernels[text]


# --- instructions


def find_body(instruction: Instruction) -> Callable[..., None]:
    """The function of the longest begin of the instruction's name that has one."""
    parts = instruction.parts
    for count in range(len(parts), 0, -1):
        body = BODIES.get(".".join(parts[:count]))
        if body is not None:
            return body
    raise Fault(f"the machine has no instruction {instruction.name}")


BODIES: dict[str, Callable[..., None]] = {}


def body(*names: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        for name in names:
            BODIES[name] = function
        return function

    return add


def _nothing(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    pass


for _name in ("fence", "membar", "griddepcontrol", "wgmma.fence", "prefetch"):
    BODIES[_name] = _nothing


def _kind(i: Instruction) -> str:
    return next(p for p in reversed(i.parts) if p in _TYPES)


def arithmetic(function: Callable[..., Any]) -> Callable[..., None]:
    """An instruction with a result and operands of the type at its end."""

    def run(w: Warp, i: Instruction, mask: np.ndarray) -> None:
        kind = _kind(i)
        values = [w.get(o, kind) for o in i.operands[1:]]
        w.set(i.operands[0], function(*values).astype(_TYPES[kind], copy=False), mask)

    return run


def _quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, np.ones_like(y), y)
    quotient = x // safe
    if x.dtype.kind == "i":
        quotient = np.where((x - quotient * safe != 0) & ((x < 0) != (safe < 0)), quotient + 1, quotient)
    return quotient.astype(x.dtype)


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    safe = np.where(y == 0, np.ones_like(y), y)
    return x - _quotient(x, safe) * safe


def _shifted(x: np.ndarray, by: np.ndarray, left: bool) -> np.ndarray:
    bits = 8 * x.itemsize
    amount = np.minimum(by.astype(np.uint64), bits - 1).astype(x.dtype)
    result = x << amount if left else x >> amount
    beyond = by.astype(np.uint64) >= bits
    if left or x.dtype.kind == "u":
        return np.where(beyond, np.zeros_like(x), result)
    return result


def _fused(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """One rounding for f32; f64 has two here."""
    if x.dtype == np.float32:
        return (x.astype(np.float64) * y + z).astype(np.float32)
    if x.dtype == np.float16:
        return (x.astype(np.float64) * y + z).astype(np.float16)
    return x * y + z


def _high(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = 8 * x.itemsize
    return np.array([int(a) * int(b) >> bits for a, b in zip(x, y, strict=True)], x.dtype)


_function: Any
for _name, _function in {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul.lo": lambda x, y: x * y,
    "mul.rn": lambda x, y: x * y, "mul": lambda x, y: x * y, "mul.hi": _high,
    "mad.lo": lambda x, y, z: x * y + z, "fma.rn": _fused, "div": _quotient, "div.rn": _quotient,
    "rem": _remainder, "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
    "not": lambda x: ~x, "neg": lambda x: -x.view(f"i{x.itemsize}") if x.dtype.kind in "iu" else -x,
    "abs": abs, "sqrt.rn": np.sqrt, "rcp.rn": lambda x: (1 / x.astype(np.float64)).astype(x.dtype),
    "min": lambda x, y: np.fmin(x, y), "max": lambda x, y: np.fmax(x, y),
    "min.NaN": np.minimum, "max.NaN": np.maximum,
    "ex2.approx": np.exp2, "copysign": lambda x, y: np.copysign(y, x),
    "rcp.approx": lambda x: 1 / x, "rsqrt.approx": lambda x: 1 / np.sqrt(x), "lg2.approx": np.log2,
    "popc": lambda x: np.bitwise_count(x),
}.items():  # fmt: skip
    BODIES[_name] = arithmetic(_function)


@body("add.rn.f16x2", "fma.rn.bf16x2")
def _add_halves(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    words = [w.get(o, "b32").copy() for o in i.operands[1:]]
    if "f16x2" in i.parts:
        x, y = (v.view(np.float16) for v in words)
        return w.set(i.operands[0], (x + y).view(np.uint32), mask)
    x, y, z = (bfloat16(v.view(np.uint16)) for v in words)
    w.set(i.operands[0], _to_bf16(_fused(x, y, z)).view(np.uint32), mask)


@body("shl", "shr")
def _shift(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kind = _kind(i)
    x, by = w.get(i.operands[1], kind), w.get(i.operands[2], "u32")
    w.set(i.operands[0], _shifted(x, by, i.parts[0] == "shl"), mask)


@body("shf")
def _funnel(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    low, high, by = (w.get(o, "u32").astype(np.uint64) for o in i.operands[1:])
    by, both = np.minimum(by, 32) if "clamp" in i.parts else by % 32, high << 32 | low
    w.set(i.operands[0], (both << by >> 32 if i.parts[1] == "l" else both >> by).astype(np.uint32), mask)


@body("mul.wide", "mad.wide")
def _wide(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kind = _kind(i)
    to = _TYPES[kind[0] + str(2 * int(kind[1:]))]
    result = w.get(i.operands[1], kind).astype(to) * w.get(i.operands[2], kind).astype(to)
    if len(i.operands) > 3:
        result = result + w.get(i.operands[3], kind[0] + str(2 * int(kind[1:])))
    w.set(i.operands[0], result, mask)


@body("bfe")
def _extract(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kind = _kind(i)
    x = w.get(i.operands[1], kind)
    at, count = (w.get(o, "u32") & 0xFF for o in i.operands[2:])
    bits = 8 * x.itemsize
    if x.dtype.kind == "u":
        value = _shifted(x, at, False) & (_shifted(np.ones_like(x), count, True) - x.dtype.type(1))
    else:
        up = np.maximum(bits - at.astype(np.int64) - count, 0).astype(np.uint32)
        value = _shifted(_shifted(x, up, True), (bits - count).astype(np.uint32), False)
    w.set(i.operands[0], value.astype(x.dtype), mask)


@body("prmt")
def _permute_bytes(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    a, b, s = (w.get(o, "b32") for o in i.operands[1:])
    both = b.astype(np.uint64) << 32 | a
    result: Any = np.zeros(LANES, np.uint64)
    for n in range(4):
        choice = (s >> (4 * n)).astype(np.uint64)
        byte = both >> (8 * (choice & 7)) & 0xFF
        byte = np.where(choice & 8, np.where(byte & 0x80, 0xFF, 0), byte)
        result |= byte.astype(np.uint64) << (8 * n)
    w.set(i.operands[0], result.astype(np.uint32), mask)


@body("dp4a")
def _dot(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kinds = [_TYPES[f"{part[0]}8"] for part in i.parts[1:3]]
    words = [w.get(o, "b32").copy() for o in i.operands[1:3]]
    a, b = (x.view(k).reshape(LANES, 4).astype(np.int32) for x, k in zip(words, kinds, strict=True))
    w.set(i.operands[0], (a * b).sum(1).astype(np.int32) + w.get(i.operands[3], "s32"), mask)


@body("mov")
def _move(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    to, source = i.operands
    kind = "pred" if i.parts[1] == "pred" else f"b{i.parts[1][1:]}"
    if isinstance(to, list):
        width = int(kind[1:]) // len(to)
        parts = w.get(source, kind).copy().view(f"u{width // 8}").reshape(LANES, len(to))
        for n, name in enumerate(to):
            w.set(name, parts[:, n].copy(), mask)
    elif isinstance(source, list):
        width = int(kind[1:]) // len(source)
        joined = np.stack([w.get(name, f"b{width}") for name in source], 1)
        w.set(to, np.ascontiguousarray(joined).view(f"u{int(kind[1:]) // 8}").reshape(LANES), mask)
    elif isinstance(w.registers.get(source), Product):
        w.need_all(mask)
        w.registers[to] = w.registers[source]
    else:
        w.set(to, w.get(source, kind), mask)


_TESTS: dict[str, Any] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


@body("setp")
def _set_predicate(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kind, test = _kind(i), i.parts[1]
    x, y = (w.get(o, kind) for o in i.operands[1:3])
    neither = np.isnan(x) | np.isnan(y) if x.dtype.kind == "f" else np.zeros(LANES, bool)
    if test in ("num", "nan"):
        result = neither == (test == "nan")
    elif x.dtype.kind == "f":
        unordered = test.endswith("u") and test[:-1] in _TESTS
        name = test[:-1] if unordered else test
        result = _TESTS[name](x, y) & ~neither | (neither if unordered else False)
    else:
        result = _TESTS[test](x, y)
    if len(i.parts) > 2 and i.parts[2] in ("and", "or", "xor"):
        result = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[i.parts[2]](
            result, w.get(i.operands[3], "pred")
        )
    w.set(i.operands[0], result, mask)


@body("selp")
def _select(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    kind = _kind(i)
    x, y = (w.get(o, kind) for o in i.operands[1:3])
    w.set(i.operands[0], np.where(w.get(i.operands[3], "pred"), x, y), mask)


@body("cvt")
def _convert(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    if "f16x2" in i.parts or "bf16x2" in i.parts:
        high, low = (w.get(o, "f32") for o in i.operands[1:])
        if "relu" in i.parts:
            high, low = np.maximum(high, 0), np.maximum(low, 0)
        if "bf16x2" in i.parts:
            bits = [_to_bf16(x).astype(np.uint32) for x in (low, high)]
        else:
            bits = [x.astype(np.float16).view(np.uint16).astype(np.uint32) for x in (low, high)]
        return w.set(i.operands[0], bits[0] | bits[1] << 16, mask)
    if i.parts[-2:] == ["bf16", "f32"]:
        return w.set(i.operands[0], _to_bf16(w.get(i.operands[1], "f32")), mask)
    if i.parts[-2:] == ["f32", "bf16"]:
        return w.set(i.operands[0], bfloat16(w.get(i.operands[1], "u16")), mask)
    to, source = (p for p in i.parts if p in _TYPES)
    x = w.get(i.operands[1], source)
    mode = next((p for p in i.parts if p in ("rni", "rzi", "rmi", "rpi")), "")
    if mode:
        x = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x)
    if x.dtype.kind == "f" and to[0] in "us":  # conversions saturate, and NaN is 0
        info = np.iinfo(_TYPES[to])
        wide = np.where(np.isnan(x), 0, x).astype(np.longdouble)
        x = np.where(wide >= info.max, info.max, np.where(wide <= info.min, info.min, wide)).astype(
            np.longdouble
        )
        x = np.array([int(v) for v in x], object).astype(_TYPES[to])
    elif "sat" in i.parts and to[0] in "us":
        info = np.iinfo(_TYPES[to])
        x = np.clip(x.astype(np.int64), info.min, info.max)
    elif source == "f64" and to == "f32" and "rz" in i.parts:
        raise Fault("rounding to zero")
    w.set(i.operands[0], x.astype(_TYPES[to]), mask)


def _to_bf16(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


@body("cvta")
def _same(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.set(i.operands[0], w.get(i.operands[1], "b64"), mask)


# --- memory


def _names(operand: Any) -> list[str]:
    return operand if isinstance(operand, list) else [operand]


def _space(i: Instruction) -> str:
    return next((p for p in i.parts if p in ("global", "shared", "param", "local")), "generic")


def _check_aligned(addresses: np.ndarray, size: int) -> None:
    if (addresses % size).any():
        raise Fault(f"an address is no multiple of {size}")


@body("ld", "ldu")
def _load(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    names, kind, space = _names(i.operands[0]), _kind(i), _space(i)
    width = np.dtype(_TYPES[kind]).itemsize
    size = width * len(names)
    if space == "param":
        content = w.machine.parameters[i.operands[1][1]]
        value = np.broadcast_to(content[:size].view(_TYPES[kind])[0], LANES)
        return w.set(names[0], value, mask)
    addresses = w.address(i.operands[1])[mask]
    _check_aligned(addresses, size)
    content = w.block.read(addresses, size) if space == "shared" else w.machine.read(addresses, size)
    values = np.zeros((LANES, len(names)), _TYPES[kind])
    values[mask] = np.ascontiguousarray(content).view(_TYPES[kind])
    for n, name in enumerate(names):
        w.set(name, values[:, n].copy(), mask)
    if "relaxed" in i.parts or "acquire" in i.parts:
        w.yields = True


@body("st")
def _store(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    names, kind = _names(i.operands[1]), _kind(i)
    addresses = w.address(i.operands[0])[mask]
    values = np.stack([w.get(name, kind)[mask] for name in names], 1)
    content = np.ascontiguousarray(values).view(np.uint8).reshape(len(addresses), -1)
    _check_aligned(addresses, content.shape[1])
    if _space(i) == "shared":
        return w.block.write(addresses, content)
    begin, memory = w.machine.find(addresses, content.shape[1])
    memory[(addresses - begin)[:, None] + np.arange(content.shape[1])] = content


@body("atom", "red")
def _atomic(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    assert "add" in i.parts and "global" in i.parts
    kind, has_result = _kind(i), i.parts[0] == "atom"
    place, operand = i.operands[has_result : has_result + 2]
    addresses, values = w.address(place), w.get(operand, kind)
    before = np.zeros(LANES, _TYPES[kind])
    for lane in np.flatnonzero(mask):
        begin, memory = w.machine.find(addresses[lane : lane + 1], values.itemsize)
        cell = memory[addresses[lane] - begin :][: values.itemsize].view(_TYPES[kind])
        before[lane] = cell[0]
        cell[0] = before[lane] + values[lane]
    if has_result:
        w.set(i.operands[0], before, mask)


@body("cp.async")
def _copy_async(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    to, source = w.address(i.operands[0]), w.address(i.operands[1])
    size = int(i.operands[2])
    given = w.get(i.operands[3], "u32") if len(i.operands) > 3 else np.full(LANES, size)
    for lane in np.flatnonzero(mask):
        count, place = int(given[lane]), int(to[lane])
        if count > size:
            raise Fault(f"{count} bytes of {size}")
        _check_aligned(np.array([place, source[lane] if count else 0]), size)
        w.block.check(np.array([place]), size)
        if w.block.coming[place : place + size].any():
            raise Fault("two copies to the same shared memory are on their way")
        w.block.coming[place : place + size] = 1
        if count:
            w.machine.find(source[lane : lane + 1], count)
        w.copies[-1].append(_copy_of(w, place, int(source[lane]), count, size))


def _copy_of(w: Warp, place: int, source: int, count: int, size: int) -> Callable[[], None]:
    def finish() -> None:
        content = np.zeros(size, np.uint8)
        if count:
            content[:count] = w.machine.read(np.array([source]), count)[0]
        w.block.memory[place : place + size] = content
        w.block.coming[place : place + size] = 0

    return finish


@body("cp.async.commit_group")
def _commit(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    w.copies.append([])


@body("cp.async.wait_group")
def _await_copies(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    while len(w.copies) - 1 > int(i.operands[0]):
        for finish in w.copies.pop(0):
            finish()


# --- warps


@body("bar.warp.sync")
def _meet_warp(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)


@body("bar.sync", "barrier.sync")
def _meet_block(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    if len(i.operands) > 1:
        raise Fault("a barrier of some threads")
    w.waits = True


@body("setmaxnreg")
def _registers(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)


@body("trap")
def _trap(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    raise Fault("a trap")


@body("shfl.sync")
def _shuffle(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    to, x, other, clamp, members = i.operands[-5:]
    assert (clamp, members) == ("31", "-1") and i.parts[2] in ("bfly", "idx")
    lanes = w.get(other, "s32") & 31 if i.parts[2] == "idx" else np.arange(LANES) ^ w.get(other, "s32")
    w.set(to, w.get(x, "b32")[lanes & 31], mask)


@body("vote.sync")
def _vote(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    p = w.get(i.operands[1], "pred")
    if i.parts[2] == "ballot":
        bits = int((p.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum())
        return w.set(i.operands[0], np.full(LANES, bits, np.uint32), mask)
    w.set(i.operands[0], np.full(LANES, p.all() if i.parts[2] == "all" else p.any()), mask)


_LANE = np.arange(LANES)
_G, _T = _LANE // 4, _LANE % 4


@body("ldmatrix")
def _load_matrices(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    addresses = w.address(i.operands[1])
    _check_aligned(addresses, 16)
    rows = np.ascontiguousarray(w.block.read(addresses, 16)).view(np.uint16)  # [32 rows, 8]
    for n, name in enumerate(i.operands[0]):
        matrix = rows[8 * n : 8 * n + 8]
        if "trans" in i.parts:
            matrix = matrix.T
        pairs = np.stack([matrix[_G, 2 * _T], matrix[_G, 2 * _T + 1]], 1)
        w.set(name, np.ascontiguousarray(pairs).view(np.uint32)[:, 0].copy(), mask)


_WIDTH = {"f16": 2, "bf16": 2, "tf32": 4, "s8": 1, "u8": 1}


def _numbers(words: np.ndarray, kind: str) -> np.ndarray:
    """Elements of factors, in the last dimension, as f64s."""
    content = np.ascontiguousarray(words)
    if kind == "f16":
        return content.view(np.float16).astype(np.float64)
    if kind == "bf16":
        return bfloat16(content.view(np.uint16)).astype(np.float64)
    if kind == "tf32":  # the lower 13 bits do not count
        return (content.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64)
    return content.view(_TYPES[kind]).astype(np.float64)


def _summed(total: np.ndarray, products: np.ndarray) -> np.ndarray:
    if total.dtype == np.int32:
        return (total.astype(np.int64) + products.astype(np.int64)).astype(np.int32)
    return (total.astype(np.float64) + products).astype(np.float32)


@body("mma.sync")
def _multiply(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    a_kind, b_kind = i.parts[-3], i.parts[-2]
    kind = "s32" if i.parts[-1] == "s32" else "f32"
    to, a, b, c = i.operands
    each = 4 // _WIDTH[a_kind]  # elements of a register
    depth = 8 * each
    assert f"m16n8k{depth}" in i.parts and ["row", "col"] == [p for p in i.parts if p in ("row", "col")]
    lhs, rhs = np.zeros((16, depth)), np.zeros((depth, 8))
    for n, name in enumerate(a):
        values = _numbers(w.get(name, "b32").copy().reshape(LANES, 1), a_kind).reshape(LANES, each)
        row, column = _G + 8 * (n % 2), _T * each + 4 * each * (n // 2)
        for e in range(each):
            lhs[row, column + e] = values[:, e]
    for n, name in enumerate(b):
        values = _numbers(w.get(name, "b32").copy().reshape(LANES, 1), b_kind).reshape(LANES, each)
        for e in range(each):
            rhs[_T * each + 4 * each * n + e, _G] = values[:, e]
    products = lhs @ rhs
    for n, (name, start) in enumerate(zip(to, c, strict=True)):
        total = w.get(start, kind)
        w.set(name, _summed(total, products[_G + 8 * (n // 2), 2 * _T + n % 2]), mask)


# --- blocks


def _one(values: np.ndarray, mask: np.ndarray) -> int:
    return int(values[np.flatnonzero(mask)[0]])


@body("mbarrier.init")
def _begin(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    address = _one(w.address(i.operands[0]), mask)
    assert mask.sum() == 1 and address % 8 == 0
    w.block.check(np.array([address]), 8)
    w.block.barriers[address] = Barrier(_one(w.get(i.operands[1], "u32"), mask))


@body("mbarrier.arrive")
def _arrive(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    for lane in np.flatnonzero(mask):
        barrier = w.block.barrier(int(w.address(i.operands[1])[lane]))
        if "expect_tx" in i.parts:
            barrier.bytes += int(w.get(i.operands[2], "u32")[lane])
        barrier.pending -= 1
        barrier.settle()


@body("mbarrier.try_wait")
def _try(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    assert "parity" in i.parts
    barrier = w.block.barrier(_one(w.address(i.operands[1]), mask))
    parity = _one(w.get(i.operands[2], "u32"), mask)
    # true if the phase of this parity is over: the current one has the other parity
    is_over = barrier.phase & 1 != parity
    w.yields = not is_over
    w.set(i.operands[0], np.full(LANES, is_over), mask)


def _swizzled(address: np.ndarray) -> np.ndarray:
    return address ^ (address >> 7 & 7) << 4


def _start_copy(w: Warp, places: np.ndarray, content: Callable[[], np.ndarray], barrier: int) -> None:
    """Copy bytes to these places of shared memory later, and tell a barrier."""
    block = w.block
    block.check(places, 1)
    if block.coming[places].any():
        raise Fault("two copies to the same shared memory are on their way")
    for warp in block.warps:
        for group in (*warp.products, warp.open_products):
            if any(product.overlaps(places) for product in group):
                raise Fault("shared memory is overwritten that a product may still read")
    block.coming[places] = 1
    waiting = block.barrier(barrier)

    def finish() -> None:
        block.memory[places] = content()
        block.coming[places] = 0
        waiting.bytes -= places.size
        waiting.settle()

    block.copies.append(finish)


@body("cp.async.bulk")
def _copy_bulk(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    to, source, barriers = w.address(i.operands[0]), w.address(i.operands[1]), w.address(i.operands[3])
    size = int(i.operands[2])
    for lane in np.flatnonzero(mask):
        place, begin = int(to[lane]), int(source[lane])
        _check_aligned(np.array([place, begin, size]), 16)
        w.machine.find(np.array([begin]), size)

        def read(begin: int = begin) -> np.ndarray:
            return w.machine.read(np.array([begin]), size)[0]

        _start_copy(w, place + np.arange(size), read, int(barriers[lane]))


@body("cp.async.bulk.tensor")
def _copy_box(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    """A tensor map is one of `fake_cuda`: a mark, address, sizes, steps, box and strides as int64s."""
    assert mask.sum() == 1 and "tile" in i.parts
    rank = int(i.parts[4][0])
    (lane,) = np.flatnonzero(mask)
    place = int(w.address(i.operands[0])[lane])
    where, coordinates = i.operands[1][1].split(",", 1)
    address = int(w.get(where.strip(), "u64")[lane])
    assert address % 64 == 0
    at = [int(w.get(t.strip(), "s32")[lane]) for t in coordinates.strip(" {}").split(",")]
    words = memory_at(address, 128).view(np.int64).tolist()
    content = [*words[2:], *[1] * rank]
    sizes, steps = content[:rank], [1, *content[rank : 2 * rank - 1]]
    box, strides = content[2 * rank - 1 : 3 * rank - 1], content[3 * rank - 1 : 4 * rank - 1]
    counts = [-(-b // s) for b, s in zip(box, strides, strict=True)]
    assert place % 1024 == 0 and counts[0] == 128
    axes = np.meshgrid(*[start + np.arange(n) * s for start, n, s in zip(at, counts, strides, strict=True)],
                       indexing="ij")  # fmt: skip
    inside = np.logical_and.reduce([(a >= 0) & (a < n) for a, n in zip(axes, sizes, strict=True)])
    offsets = sum(a * step for a, step in zip(axes, steps, strict=True))
    order = list(range(rank))[::-1]  # the first dimension is the innermost one
    offsets, inside = offsets.transpose(order).reshape(-1), inside.transpose(order).reshape(-1)

    def read() -> np.ndarray:
        result = np.zeros(offsets.size, np.uint8)
        if inside.any():
            result[inside] = w.machine.read(words[1] + offsets[inside], 1)[:, 0]
        return result

    _start_copy(w, _swizzled(place + np.arange(offsets.size)), read, int(w.address(i.operands[2])[lane]))


def _factor(w: Warp, descriptor: int, rows: range, kind: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Rows of 32 bytes of a factor, by its descriptor: K-major, 128 bytes permuted."""
    start, stride, mode = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4, descriptor >> 62
    if mode != 1 or descriptor >> 49 & 7:
        raise Fault("another permutation than that of 128 bytes, or a base offset")
    r = np.array(rows)
    linear = start + (r // 8 * stride + r % 8 * 128)[:, None] + np.arange(32)
    places = _swizzled(linear)
    w.block.check(places, 1)
    if w.block.coming[places].any():
        raise Fault("shared memory is read before a copy to it has arrived")
    content = w.block.memory[places]
    return _numbers(content, kind), [(int(places.min()) // 1024 * 1024, int(places.max()) + 1)]


@body("wgmma.mma_async")
def _multiply_group(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    sums, a_kind, b_kind = i.parts[-3:]
    shape = re.fullmatch(r"m64n(\d+)k(\d+)", i.parts[4])
    assert shape is not None and int(shape[2]) * _WIDTH[a_kind] == 32
    columns, registers = int(shape[1]), i.operands[0]
    assert len(registers) == columns // 2
    scale = i.operands[3]
    assert scale == "1" and set(i.operands[4:6]) <= {"1"} and set(i.operands[6:]) <= {"0"}
    warp = w.number % 4
    lhs, first = _factor(w, _one(w.get(i.operands[1], "u64"), mask), range(16 * warp, 16 * warp + 16), a_kind)
    rhs, second = _factor(w, _one(w.get(i.operands[2], "u64"), mask), range(columns), b_kind)
    products = lhs @ rhs.T
    kind = "s32" if sums == "s32" else "f32"
    for n, name in enumerate(registers):
        before = w.registers.get(name)
        value = before.value if isinstance(before, Product) else w.get(name, kind)
        part = products[_G + 8 * (n // 2 % 2), n // 4 * 8 + 2 * _T + n % 2]
        product = Product(_summed(value.view(_TYPES[kind]), part), [*first, *second] if n == 0 else [])
        w.registers[name] = product
        w.open_products.append(product)


@body("wgmma.commit_group")
def _commit_products(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    w.products.append(w.open_products)
    w.open_products = []


@body("wgmma.wait_group")
def _await_products(w: Warp, i: Instruction, mask: np.ndarray) -> None:
    w.need_all(mask)
    done: set[int] = set()
    while len(w.products) > int(i.operands[0]):
        done |= {id(product) for product in w.products.pop(0)}
    for name, value in w.registers.items():
        if isinstance(value, Product) and id(value) in done:
            w.registers[name] = value.value.view(np.uint32).copy()
