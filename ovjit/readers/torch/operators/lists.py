"""Lists, tuples, dicts and texts in scripts."""

from __future__ import annotations

from ovjit.build.builder import Unknown
from ovjit.readers.torch.containers import item_of, stack_items
from ovjit.readers.torch.operators.numbers import compute, sorted_items
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import number_of

#: `torch.strided` as a script has it.
STRIDED = 0


@aten("__getitem__.t", "__getitem__")
def getitem(n: Call, x: Any, idx: Any = None, key: Any = None) -> Any:
    if isinstance(x, dict):
        return x[key if idx is None else idx]
    if isinstance(x, Stacked):
        return item_of(n, x, idx)
    return x[n.known_int(idx, "the index of a list")]


@aten("eq.str", "ne.str", "eq.int_list", "ne.int_list", "eq.float_list", "ne.float_list")
def equal(n: Call, x: Any, b: Any = None, other: Any = None) -> Any:
    """Equality of texts, or of lists of numbers."""
    other = other if b is None else b
    if isinstance(x, str) or len(x) != len(other):
        same: Any = x == other
    else:
        pairs = [compute(n, "eq", *pair) for pair in zip(x, other, strict=True)]
        same = reduce(lambda c, d: compute(n, "and_", c, d), pairs, True)
    return same if "eq" in n.op else compute(n, "not_", same)


@aten("__contains__")
def contains(n: Call, x: Any, item: Any = None, key: Any = None) -> Any:
    """Whether a dict has a key, or a list an item."""
    target = item if key is None else key
    if isinstance(x, dict) or isinstance(target, str):
        return target in x
    result: Any = False
    for each in n.sizes(x.rows) if isinstance(x, Stacked) else x:
        result = compute(n, "or_", result, compute(n, "eq", target, each))
    return result


@aten("__is__")
def same_object(n: Call, x: Any, obj: Any = None) -> bool:
    return (x is None) == (obj is None) if x is None or obj is None else x is obj


@aten("slice.t")
def part(n: Call, x: Any, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    if isinstance(x, Stacked):
        by = n.known_int(step, "the step")
        first, last = (0, LAST) if by > 0 else (LAST, -LAST)
        start, end = first if start is None else start, last if end is None else end
        return Stacked(n.cut(x.rows, 0, start, end, by), x.numbers)
    return list(x)[slice(n.known_number(start), n.known_number(end), n.known_number(step))]


@aten("prim::dtype")
def type_of(n: Call, x: Any) -> int:
    if isinstance(x, Complex):
        return number_of(n.dtype(x.pair), of_complex=True)
    if n.dtype(x) == "dynamic":
        raise Unknown("the input's element type is unknown: give it by 'input' or an example")
    return number_of(n.dtype(x))


@aten("add.t", "add.str")
def join_lists(n: Call, x: Any, b: Any) -> Any:
    if not isinstance(x, Stacked) and not isinstance(b, Stacked):
        return x + b if isinstance(x, str) else [*x, *b]
    pairs = [(v, other) for v, other in ((x, b), (b, x)) if v != []]
    lists = [v if isinstance(v, Stacked) else stack_items(n, v, other) for v, other in pairs]
    return Stacked(n.concat([v.rows for v in lists], 0), lists[0].numbers)


@aten("list", "copy.t", "copy.Dict_str", "list.t")
def another(n: Call, x: Any) -> Any:
    """A copy of a list, or the list of a text's characters."""
    return (
        Stacked(x.rows, x.numbers) if isinstance(x, Stacked) else dict(x) if isinstance(x, dict) else list(x)
    )


@aten("index.list_int", "index.list_float", "index.list_bool", "index.list_str", "count.int",
      "count.float", "count.bool", "count.str", "sorted.int", "sorted.float", "sorted.str", "sum.int",
      "sum.float", "sum.bool", "all.int", "all.bool", "any.int", "any.bool")  # fmt: skip
def of_items(n: Call, x: Any, el: Any = None, substr: Any = None, **_: Any) -> Any:
    """Compute index, count, sorted, sum, all or any of a list of numbers or strings."""
    name = n.op.removeprefix("aten::")
    if name == "sum" and not isinstance(x, Stacked):
        return reduce(lambda a, b: compute(n, "add", a, b), x, 0)
    if isinstance(x, str):
        return x.count(substr)
    if name == "sorted" and not isinstance(x, Stacked):
        return sorted_items(n, x)
    constants = [] if isinstance(x, Stacked) else [v if isinstance(v, str) else n.known_number(v) for v in x]
    if isinstance(x, Stacked) or None in constants:
        return _of_open_items(n, name, x, el)
    if name in ("index", "count"):
        return getattr(constants, name)(el if isinstance(el, str) else n.known_int(el, "the number"))
    functions: dict[str, Callable[..., Any]] = {"all": all, "any": any}
    return functions[name](constants)


def _of_open_items(n: Call, name: str, x: Any, el: Any) -> Any:
    """Compute `name` for values that are not constant, or for a list of data-dependent length."""
    items = x.rows if isinstance(x, Stacked) else n.concat([n.unsqueeze(v, [0]) for v in n.same_kind(x)], 0)
    if name in ("any", "all"):
        op = "ReduceLogicalOr" if name == "any" else "ReduceLogicalAnd"
        return Number(n(op, n.to_type(items, "boolean"), [0], keep_dims=False))
    if name == "sum":
        return Number(n("ReduceSum", items, [0], keep_dims=False))
    if name == "sorted":
        return Stacked(n.also("sort", items)[0], numbers=True)
    same = n("Equal", *n.same_kind([items, el]))
    if name == "count":
        return Number(n("ReduceSum", n.convert(same, "i64"), [0], keep_dims=False))
    raise UnsupportedError("the list holds numbers that are not known when the model is read")


def extreme_list(n: Call, a: list[Any], b: list[Any], is_greatest: bool) -> list[Any]:
    """The larger (or smaller) of two lists of numbers, in lexicographic order."""
    name = "gt" if is_greatest else "lt"
    truth: Any = len(a) > len(b) if is_greatest else len(a) < len(b)
    for x, y in reversed(list(zip(a, b, strict=False))):
        tie = compute(n, "and_", compute(n, "eq", x, y), truth)
        truth = compute(n, "or_", compute(n, name, x, y), tie)
    constant = n.known_number(truth)
    if constant is None and len(a) != len(b):
        raise UnsupportedError("choosing one of two lists of different lengths by data is not supported")
    if constant is not None:
        return a if constant else b
    return [compute(n, "sym_ite", truth, x, y) for x, y in zip(a, b, strict=True)]


def as_list(n: Call, x: Output) -> Any:
    """A tensor as a number, or as lists of numbers."""
    constant = n.value(x)
    if constant is not None:
        return constant.tolist()
    if n.rank(x) == 0:
        return n.also("item", x)
    if n.rank(x) > 1:
        raise UnsupportedError("lists of lists of numbers that depend on data are not supported")
    return Stacked(x, numbers=True)


def broadcast_shapes(n: Call, x: list[list[Any]]) -> list[Any]:
    """The common broadcast shape of several shapes."""
    rank = max(map(len, x))
    padded = [[1] * (rank - len(shape)) + list(shape) for shape in x]
    return [reduce(lambda a, b: n.compute("Maximum", a, b), dims) for dims in zip(*padded, strict=True)]


@aten("__range_length")
def range_length(n: Call, x: Any, hi: Any, step: Any) -> Any:
    """Return the length of range(x, hi, step). The bounds may be symbolic."""
    first, last, by = (n.known_number(v) for v in (x, hi, step))
    if first is not None and last is not None and by is not None:
        return len(range(first, last, by))
    if by is not None and by < 0:
        return range_length(n, hi, x, -by)
    sign = 1 if by is not None else compute(n, "sym_min", compute(n, "sym_max", step, -1), 1)
    gap = compute(n, "add", compute(n, "sub", hi, x), compute(n, "sub", step, sign))
    return compute(n, "sym_max", compute(n, "floordiv", gap, step), 0)


@aten("str")
def text_of(n: Call, x: Any) -> str:
    constant = x if isinstance(x, str) or x is None else n.known_number(x)
    if constant is None and x is not None:
        raise UnsupportedError("the text of a value that depends on data is not supported")
    return str(constant)


def _device(*arguments: Any) -> Any:
    """A torch.device; tensors are on the CPU."""
    return torch.device(*arguments)


#: Methods of texts.
_OF_TEXTS = ("startswith", "endswith", "lower", "upper", "strip", "lstrip", "rstrip", "split.str", "replace",
             "find", "capitalize", "isdigit", "isalpha")  # fmt: skip


@aten(*_OF_TEXTS, "join")
def of_text(n: Call, x: str, **named_arguments: Any) -> Any:
    """Apply a str method. Arguments are in the order of the operator's schema."""
    name = n.op.removeprefix("aten::")
    if not isinstance(x, str):
        raise UnsupportedError("the method is supported only for strings")
    arguments = [value for value in named_arguments.values() if value is not None]
    if name in ("startswith", "endswith", "find"):  # PyTorch's end of the text is -1
        arguments = arguments[:2] if arguments[2:] == [-1] else arguments
    if name == "replace":
        arguments = arguments[:3]
    result = getattr(x, name)(*arguments)
    return list(result) if name == "split" else result


#: Operators that are one expression.
aten_rows({
    "dict": lambda n, x=None: dict(x or ()),
    "keys": lambda n, x: list(x),
    "values": lambda n, x: list(x.values()),
    "items": lambda n, x: [list(item) for item in x.items()],
    "prim::abs": lambda n, x: n.also("abs", x) if isinstance(x, Output) else compute(n, "abs", x),
    "divmod.int": lambda n, x, y: [compute(n, "floordiv", x, y), compute(n, "mod", x, y)],
    "__lshift__.int": lambda n, a, b: compute(n, "mul", a, compute(n, "pow", 2, b)),
    "__rshift__.int": lambda n, a, b: compute(n, "floordiv", a, compute(n, "pow", 2, b)),
    "get": lambda n, x, key, default_value=None: x.get(key, default_value),
    # the schema calls the number `n`, too
    "mul.left_t": lambda n, x, /, **of: list(x) * n.known_int(of["n"], "the number of copies of a list"),
    "mul.right_": lambda n, x, **of: list(of["l"]) * n.known_int(x, "the number of copies of a list"),
    "__isnot__": lambda n, x, obj=None: not same_object(n, x, obj),
    "prim::unchecked_cast prim::unchecked_unwrap_optional _unwrap_optional": lambda n, x: x,
    "prim::device": lambda n, x: _device("cpu"),
    "prim::layout": lambda n, x: STRIDED,
    "wait": lambda n, x: x,  # of what is forked
    "device": lambda n, a: _device(a),
    "device.with_index": lambda n, type, index: _device(type, n.known_int(index, "the index of a device")),
    "eq.device ne.device": lambda n, a, b: (str(a) == str(b)) == ("eq" in n.op),
    "prim::type": lambda n, x: x.type,  # of a device
    "prim::index": lambda n, x: x.index,
    "prim::is_nested": lambda n, x: isinstance(x, Nested),
    "prim::requires_grad prim::is_quantized prim::is_sparse prim::is_sparse_csr prim::is_mkldnn "
    "prim::is_cuda prim::is_xpu prim::is_mps prim::is_meta prim::is_vulkan prim::is_maia "
    "is_grad_enabled is_autocast_enabled is_autocast_cpu_enabled": lambda n, *of: False,
    "__derive_index": lambda n, x, start, step: compute(n, "add", start, compute(n, "mul", x, step)),
})  # fmt: skip
