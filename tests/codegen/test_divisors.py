"""No division of integers in a kernel can trap: each divisor is proved not to be 0, no quotient overflows.

CPUs trap at x / 0 and INT_MIN / -1, which ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ovjit.codegen.cpu import jit
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.kernel import Kernel
from ovjit.graph.op import Op
from tests.support.compiled import program_of
from tests.support.op_samples import graph_of, native_ops, samples
from tests.support.sweeps import in_turn

DIVISIONS = re.compile(r"= (sdiv|udiv|srem|urem)(?: exact)? (<[^>]+>|\S+) ([^,]+(?:>)?), (.+)$", re.M)
SELECTS = re.compile(r"^\s*(\S+) = select \S+(?: x i1>)? (\S+), (<\d+ x \w+>|\w+) (.+), \3 (.+)$", re.M)
EQUALS = re.compile(r"^\s*(\S+) = icmp eq (<\d+ x \w+>|\w+) ([^,<]+|<[^>]+>), (.+)$", re.M)
JOINED = re.compile(r"^\s*(\S+) = (and|or) (?:<\d+ x i1>|i1) (\S+), (\S+)$", re.M)
NONE: frozenset[str] = frozenset()


class Proofs:
    """What the text of a module says about its values. A value has one name in one function."""

    def __init__(self, function: str):
        self.selects = {name: row for name, *row in SELECTS.findall(function)}
        self.equals = {name: row for name, *row in EQUALS.findall(function)}
        self.joined = {name: row for name, *row in JOINED.findall(function)}

    def implied(self, condition: str, wanted: set[str]) -> bool:
        """Whether one of the conditions in `wanted` being true makes `condition` true."""
        if condition in wanted:
            return True
        how, a, b = self.joined.get(condition, ("", "", ""))
        if how == "or":
            return self.implied(a, wanted) or self.implied(b, wanted)
        return how == "and" and self.implied(a, wanted) and self.implied(b, wanted)

    def tests_of(self, value: str, number: str) -> set[str]:
        """The conditions that say that a value is this number."""
        return {name for name, (_, a, b) in self.equals.items() if a == value and self.is_number(b, number)}

    @staticmethod
    def is_number(text: str, number: str) -> bool:
        elements = re.findall(r"i\d+ (-?\d+)", text) or [text]
        return all(element == number for element in elements) or (number == "0" and text == "zeroinitializer")

    def is_never(
        self, value: str, number: str, also: frozenset[str] = NONE, untrue: frozenset[str] = NONE
    ) -> bool:
        """Whether a value is proved to differ from a number; `also`: conditions without which it may;
        `untrue`: conditions that do not hold where the value is used."""
        elements = re.findall(r"i\d+ (-?\d+)", value) if value[0] == "<" else [value]
        if value[0] != "%":
            return value != "zeroinitializer" and number not in elements
        if value not in self.selects:
            return not untrue.isdisjoint(self.tests_of(value, number))
        _, condition, _, one, other = ("", *self.selects[value])
        left_out = self.implied(condition, self.tests_of(other, number) | also)
        if not self.is_never(one, number, also, untrue):
            return False
        return left_out or self.is_never(other, number, also, untrue | {condition})


def faults(text: str) -> Iterator[str]:
    """The divisions in the text of a module that are not proved to be safe."""
    for function in text.split("\ndefine ")[1:]:
        proofs = Proofs(function)
        for operation, kind, dividend, divisor in DIVISIONS.findall(function):
            bits = int(re.findall(r"i(\d+)", kind)[0])
            lowest = frozenset(proofs.tests_of(dividend, str(-(1 << (bits - 1)))))
            if not proofs.is_never(divisor, "0"):
                yield f"{operation} {kind} {dividend}, {divisor} by 0"
            if operation[0] == "s" and not proofs.is_never(divisor, "-1", lowest):
                yield f"{operation} {kind} {dividend}, {divisor} overflows"


def printed(kernel: Kernel) -> str:
    """The LLVM text of a kernel, before LLVM's passes."""
    target = host_target()
    return jit._print(kernel.source, kernel.symbol(), target, kernel.intrinsics(target) or {})[0]


def kernels(record: Op, most: int) -> set[Kernel]:
    """The kernels of an operation for some samples of each type that have words of division."""
    found: set[Kernel] = set()
    for dtype in record.types:
        if dtype == "string":
            continue
        for _, inputs, attributes in samples(record, dtype, most):
            graph, _ = graph_of(record, inputs, record.check_attributes(attributes), dtype)
            found.update(program_of(graph).kernels)
    return {kernel for kernel in found if re.search(r"div|rem|//|%", kernel.source)}


@pytest.mark.parametrize("record", in_turn(native_ops(), 8), ids=lambda r: f"{r.name}-{r.opset}")
def test_no_division_of_an_operation_can_trap(record: Op) -> None:
    for kernel in kernels(record, 2):
        assert not list(faults(printed(kernel))), f"{record!r}: {kernel.name}"


UNSAFE = """
define i64 @f(i64 %x, i64 %y) {
  %a = icmp eq i64 %y, 0
  %b = select i1 %a, i64 1, i64 %y
  %q = sdiv i64 %x, DIVISOR
}"""


@pytest.mark.parametrize(
    ("divisor", "said"), [("%y", ["by 0", "overflows"]), ("%b", ["overflows"]), ("-1", ["overflows"]),
                          ("0", ["by 0"]), ("7", [])]
)  # fmt: skip
def test_an_unsafe_division_is_found(divisor: str, said: list[str]) -> None:
    found = list(faults(UNSAFE.replace("DIVISOR", divisor)))
    assert [text.rpartition(f", {divisor} ")[2] for text in found] == said
