"""Arguments of PyTorch's operators that are choices: enumerated words and numbers. TEXT is any text.

PyTorch compares them when a module runs. Scripts, programs and traces of files have not run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.readers.choices import TEXT, Choice, one_of

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
