"""Registry of the functions that convert PyTorch operators, by operator name with or without overload, and of
the arguments that are choices: enumerated words and numbers. TEXT is any text.

PyTorch checks choices when a module runs. Scripts, programs and traces of files have not run here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from ovjit.readers.choices import TEXT, Choice, one_of
from ovjit.readers.rows import load_contributed

#: In place of an operator's name: an argument that means the same in each operator.
ANY = "*"
_FFT_NORM = one_of("forward backward ortho")
_DRIVER = one_of("gesvd gesvdj gesvda")
_INTERPOLATION = one_of("linear lower higher midpoint nearest")
_MATRIX_NORM = one_of("fro nuc")
#: Numbers of PyTorch's own enumerations, such as those of reductions.
_THREE = one_of(range(3))
_PAD_MODE = one_of("constant reflect replicate circular")
_ROUNDING = one_of("floor trunc")
_TRIANGLE = one_of("l u", any_case=True)

#: operator -> argument -> what it may be; None is always the default
CHOICES: dict[str, dict[str, Choice]] = {
    ANY: {
        "UPLO": _TRIANGLE, "assert_msg": TEXT, "compute_mode": _THREE, "interpolation_mode": _THREE,
        "mask_type": _THREE, "norm": _FFT_NORM, "normalization": _THREE, "padding_mode": _THREE,
        "reduction": _THREE, "rounding_mode": _ROUNDING,
    },
    "_pad_enum": {"mode": one_of(range(4))},
    "_convolution_mode": {"padding": one_of("same valid")},
    "_linalg_svd": {"driver": _DRIVER},
    "conv1d": {"padding": one_of("same valid")},
    "conv2d": {"padding": one_of("same valid")},
    "conv3d": {"padding": one_of("same valid")},
    "einsum": {"equation": TEXT},
    **dict.fromkeys(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), {"mode": _THREE}),
    "gelu": {"approximate": one_of("none tanh")},
    "index_reduce": {"reduce": one_of("prod mean amax amin")},
    "linalg_cond": {"p": _MATRIX_NORM},
    "linalg_lstsq": {"driver": one_of("gels gelsy gelsd gelss")},
    "linalg_matrix_norm": {"ord": _MATRIX_NORM},
    "linalg_norm": {"ord": _MATRIX_NORM},
    "linalg_qr": {"mode": one_of("reduced complete r")},
    "linalg_svd": {"driver": _DRIVER},
    "linalg_svdvals": {"driver": _DRIVER},
    "meshgrid": {"indexing": one_of("ij xy")},
    "nanquantile": {"interpolation": _INTERPOLATION},
    "pad": {"mode": _PAD_MODE},
    "pad_sequence": {"padding_side": one_of("left right")},
    "quantile": {"interpolation": _INTERPOLATION},
    "scatter": {"reduce": one_of("add multiply")},
    "scatter_reduce": {"reduce": one_of("sum prod mean amax amin")},
    "searchsorted": {"side": one_of("left right")},
    "stft": {"pad_mode": _PAD_MODE},
}  # fmt: skip


def find_choice(operator: str, argument: str) -> Choice | None:
    """Return the allowed values of an operator's argument ("aten::gelu"), or None if none are declared."""
    choices = CHOICES.get(operator.removeprefix("aten::").removesuffix("_"), {})
    return choices.get(argument) or CHOICES[ANY].get(argument)


def check_choices(operator: str, arguments: Mapping[str, Any]) -> None:
    """Raise ModelError for a text or integer that is none of the argument's choices."""
    for name, value in arguments.items():
        choice = find_choice(operator, name) if type(value) in (str, int) else None
        if choice is not None and choice is not TEXT:
            if isinstance(choice.words[0], str) is isinstance(value, str):  # other overloads take numbers
                choice.check(name, value)


#: The modules with the rows, one for each family of operators.
FAMILIES = (
    "attention", "complex", "complex_parts", "create", "elementwise",
    "fourier", "indexing", "linalg", "lists", "losses", "nn",
    "norm", "numbers", "pooling", "quantized", "random", "recurrent", "reduce", "resize",
    "scatter", "shapes", "sorting", "special", "vision",
)  # fmt: skip

#: Reads one operator: `rule(call, first argument, named arguments)` returns its outputs.
Rule = Callable[..., Any]


class Row:
    """A rule, and the arguments that it takes by name."""

    def __init__(self, rule: Rule):
        self.rule = rule
        named = list(inspect.signature(rule).parameters.values())[2:]
        self.names = [p.name for p in named]
        #: Whether it takes all arguments, as one does that needs one of a name that Python keeps for itself.
        self.all = any(p.kind is p.VAR_KEYWORD for p in named)

    def __call__(self, call: Any, arguments: Mapping[str, Any]) -> Any:
        """Apply the rule. Raises ModelError for an argument that is not one of its choices."""
        check_choices(call.op, arguments)
        first = next(iter(arguments.values()), None)
        if self.all:
            return self.rule(call, first, **dict(list(arguments.items())[1:]))
        options = {name: arguments[name] for name in self.names if name in arguments}
        return self.rule(call, first, **options)


_ROWS: dict[str, Row] = {}
_CHANGES: dict[str, Callable[[Rule], Rule]] = {}


def aten(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: registers the function as the rule of these operators.

    Its first argument is the call, its second the operator's first argument; all others have the names of the
    operator's schema. "add" is aten::add with all its overloads, "max.dim" one overload of aten::max, and
    "torchvision::nms" an operator of another library.
    """

    def decorate(rule: Rule) -> Rule:
        row = Row(rule)
        for name in names:
            _ROWS[name if "::" in name else f"aten::{name}"] = row
        return rule

    return decorate


def aten_rows(rules: Mapping[str, Rule]) -> None:
    """Register functions by the names of the operators that they read, blanks between them."""
    for names, rule in rules.items():
        aten(*names.split())(rule)


def changed_later(name: str, change: Callable[[Rule], Rule]) -> None:
    """Replace an operator's rule by `change(rule)` once all families are imported."""
    _CHANGES[name] = change


@cache
def _load() -> None:
    for family in FAMILIES:
        importlib.import_module(f"ovjit.readers.torch.operators.{family}")
    load_contributed("torch")
    for name, change in _CHANGES.items():
        _ROWS[name] = Row(change(_ROWS[name].rule))


def find_rule(name: str, overload: str) -> Row | None:
    """The row of an operator such as ("aten::max", "dim"), None if there is none."""
    _load()
    if overload and (row := _ROWS.get(f"{name}.{overload}")) is not None:
        return row
    return _ROWS.get(name)


def known_operators() -> Sequence[str]:
    """The names of all operators that have a row."""
    _load()
    return sorted(_ROWS)
