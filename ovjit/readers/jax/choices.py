"""Parameters of JAX's primitives that are members of an enumeration, by their names in small letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.readers.choices import Choice, one_of

#: What becomes of indices beyond an operand.
_INDEXED = {"mode": one_of("clip fill_or_drop promise_in_bounds")}
_SCATTERED = ("", "-add", "_add", "-sub", "_sub", "-mul", "_mul", "-min", "_min", "-max", "_max")

#: primitive -> parameter -> its choices. None is always the default.
CHOICES: dict[str, dict[str, Choice]] = {
    "eigh": {"implementation": one_of("qr jacobi qdwh"), "algorithm": one_of("qr jacobi qdwh")},
    "fft": {"fft_type": one_of("fft ifft rfft irfft")},
    "gather": _INDEXED,
    "round": {"rounding_method": one_of((0, 1))},
    "svd": {"algorithm": one_of("default qr jacobi polar divide_and_conquer")},
    **{f"scatter{joined}": _INDEXED for joined in _SCATTERED},
}


def check_params(primitive: str, params: Mapping[str, Any]) -> None:
    """Raise ModelError for a parameter that is none of its choices."""
    for name, choice in CHOICES.get(primitive, {}).items():
        value = params.get(name)
        if value is not None:
            word = str(getattr(value, "name", value)).rpartition(".")[2].lower()
            choice.check(name, int(value) if isinstance(choice.words[0], int) else word)
