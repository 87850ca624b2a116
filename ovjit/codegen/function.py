"""Kernels as functions: a kernel's source is that of a Python function with its constants folded.

    @kernel
    def scaled(x: Ptr, y: Ptr, n, rows, per_chunk, *, T):
        for row in share(rows, per_chunk):
            p = x + row * n * SIZE[T]
            for i in range(0, n, VL):
                storem[T](...)

Positional parameters are the kernel's arguments, in order. They are int64s. `Ptr` marks addresses. The
default `Table(n)` is a table of int64s name0, name1 ..., which `ld(name, i)` reads. The default
`Each("items")` is an argument name[i] for each item of a constant.

Keyword-only parameters are the kernel's constants (Triton's `constexpr`). `scaled(T="f32")` is a kernel,
named scaled_f32. Its constants are folded, `if`s and conditional expressions over them are decided, and the
remaining source is printed. Arguments that it does not read are dropped. The printer supports:

    word[T](...)                 the word `word_<T>` of `ovjit.codegen.cpu.vector`, T an element type
    min(i, j) max(i, j)          of int64s
    for i in range(...)          a loop at run time; over `static_range(...)` or a constant, it is unrolled;
                                 there the body may end with an `if` that breaks: the following iterations
                                 are its `else`
    for i in share(n, per_chunk) the items of this chunk, of n items with per_chunk in each chunk
    p, q = placed(row, x, y)     the addresses of a row of tensors x and y: see DIMS
    w = registers()              w[1], w[1, 2] are variables; indices are constants
    y = applied(body, a, *w)     the result of an elementwise body, a constant of the kernel, on vectors, here
                                 a, w[1] and so on; if y are registers, its results are y[0], y[1] ...
    f(a, *(w[i] for i in tuple)) as many arguments as the constant `tuple` has items
    f(...)                       the statements of `@inline def f(...)`, and the expression that it returns;
                                 arguments may be `registers()`, which it reads and assigns to. A
                                 keyword-only parameter that the call leaves out is the caller's value of
                                 that name
    for x, y in f(...)           the statements of `@inline def f(...)`, with the loop's body at its
                                 `yield x, y`. A `return` in them leaves the kernel
    store_spaced(p, step, v, n, T)  stores the first n lanes of v, `step` bytes apart

Expressions of constants and of names in the function's module are evaluated when the kernel is printed.
`ovjit.codegen.template` is for kernels over rows of adjacent elements: it adds the loop nest and the masks.

`@kernel(over=..., x=..., y=...)` declares parameters as tensors with named axes (`ovjit.codegen.tensors`).

`ovjit.codegen.kernel_printing` is the printer. It is imported when a text is not in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

from ovjit.codegen import printed, texts
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.memory import DIMS as DIMS
from ovjit.codegen.memory import SIZE
from ovjit.codegen.parts import Source, inline
from ovjit.codegen.source import parameters
from ovjit.codegen.tensors import Signature, Tensor
from ovjit.codegen.words import Each, Ptr, Table, scatter, storem
from ovjit.forks import made_once


@inline
def store_spaced(address, step, v, count, T):
    """Store the first `count` lanes of v, `step` bytes apart."""
    if step == SIZE[T]:
        storem[T](address, v, count)
    else:
        scatter[T](address, step, v, count)


def name_of(stem: str, constants: Mapping[str, Any]) -> str:
    """The name of a kernel: a constant that is True appears by its name, others by their value, records by
    their fields. None, False and "" are left out."""
    for name, value in constants.items():
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            stem = name_of(stem, value._asdict())
        elif value is not None and value is not False and value != "":
            stem += f"_{name if value is True else value}"
    return stem


class FunctionKernel:
    """A function decorated with `@kernel`. Calling it with constants makes a `Kernel`."""

    def __init__(self, function: Callable[..., Any], over: str = "", **declared: Any):
        self.function = function
        declared_parameters = parameters(function)
        self.arguments = [p for p in declared_parameters if not p.keyword_only]
        self.constants = tuple(p.name for p in declared_parameters if p.keyword_only)
        #: The declared tensors; None for a kernel that declares its arguments one by one.
        self.signature: Signature | None = None
        if declared:
            names = [p.name for p in self.arguments]
            self.signature = Signature(function.__name__, over, declared, names)
            self.signature.argument_names.update(self.constants)
            self.signature.tables = {p.name for p in self.arguments if p.default is not None}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    @made_once
    def source(self) -> Source:
        return Source(self.function)

    def frame(self, constants: Mapping[str, Any]) -> KernelArgs:
        """The kernel's arguments."""
        frame = KernelArgs()
        tables = []
        for p in self.arguments:
            # annotations are texts where the module says so
            is_pointer = p.annotation in ("Ptr", Ptr, "Tensor", Tensor)
            if self.signature is not None and p.name in self.signature.structures:
                frame.fields += self.signature.structures[p.name].values()
            elif isinstance(p.default, Table):
                tables.append(p)
            elif isinstance(p.default, Each):
                frame.fields += p.default.fields(p.name, constants)
            else:
                frame.fields.append((p.name, is_pointer))
        if self.signature is not None:
            frame.integers(*self.signature.fields())
        for d in range(self.source.dims):
            frame.integers(f"d{d}", *(f"{name}_{d}" for name in self.source.placed))
        for p in tables:
            frame.table(p.name, p.default)
        return frame

    def __call__(self, **constants: Any) -> Kernel:
        """The kernel for these constants, cached. Its name has the function's name and the constants."""
        key = tuple(constants.items())
        kernel = self._kernels.get(key)
        if kernel is None:
            in_order = {name: constants[name] for name in self.constants if name in constants}
            name = name_of(self.function.__name__, in_order)
            kernel = self._kernels.setdefault(key, self.kernel(name, **constants))
        return kernel

    def kernel(
        self,
        name: str,
        intrinsics: Callable[[Target], Mapping[str, Any]] | None = None,
        key: str = "",
        form: str = "f32",
        **constants: Any,
    ) -> Kernel:
        """The kernel for these constants. `form`: see `Kernel`. Its frame has the arguments that it reads.
        Raises TypeError for missing or unknown constants."""
        if set(constants) != set(self.constants):
            raise TypeError(f"{self.function.__name__} has the constants {', '.join(self.constants)}")
        entry = printed.find_entry(self.function, constants)
        title = self.function.__qualname__
        text, fields, tables = texts.find_or_print(
            entry, title, lambda: self._print(constants, intrinsics is None)
        )
        return Kernel(name, text, KernelArgs(fields, tables), intrinsics, key, form, self.signature)

    def _print(self, constants: Mapping[str, Any], words_only: bool) -> texts.Printed:
        from ovjit.codegen.kernel_printing import print_kernel  # where the text is not kept

        frame = self.frame(constants)
        return print_kernel(
            self.function, self.source, self.arguments, self.signature, frame, constants, words_only
        )


@overload
def kernel(function: Callable[..., Any], /) -> FunctionKernel: ...


@overload
def kernel(*, over: str = "", **declared: Any) -> Callable[[Callable[..., Any]], FunctionKernel]: ...


def kernel(function: Callable[..., Any] | None = None, /, *, over: str = "", **declared: Any) -> Any:
    """Decorator: the function is a kernel's source. `declared`: its tensors and structures. `over`: the axes
    of its item space (`ovjit.codegen.tensors`)."""
    if function is not None:
        return FunctionKernel(function)
    return lambda function: FunctionKernel(function, over, **declared)
