"""Checks of attributes that are given as a dict: their types, conditions, and whether they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ovjit.api.exceptions import UserInputError

log = logging.getLogger(__name__)


def assert_list_of_ints(value_list: Iterable[int], message: str) -> None:
    """UserInputError with `message` unless `value_list` can be iterated and holds only ints."""
    try:
        fine = all(isinstance(value, int) for value in value_list)
    except TypeError:
        fine = False
    if not fine:
        log.warning(message)
        raise UserInputError(message, value_list)


def _check_value(
    op_name: str, attr_key: str, value: Any, val_type: Any, cond: Callable[[Any], bool] | None = None
) -> bool:
    if not np.issubdtype(type(value), val_type):
        raise UserInputError(
            f'{op_name} operator attribute "{attr_key}" value must by of type {val_type}. The value is '
            f"{value!r}"
        )
    if cond is not None and not cond(value):
        raise UserInputError(
            f'{op_name} operator attribute "{attr_key}" value does not satisfy provided condition. The '
            f"value is {value!r}"
        )
    return True


def check_valid_attribute(
    op_name: str, attr_dict: dict[str, Any], attr_key: str, val_type: Any,
    cond: Callable[[Any], bool] | None = None, required: bool = False,
) -> bool:  # fmt: skip
    """True if the attribute, or each item of it, has the type and meets the condition, or may be missing and
    is. UserInputError otherwise."""
    if attr_key not in attr_dict:
        if required:
            raise UserInputError(
                f'Provided dictionary is missing {op_name} operator required attribute "{attr_key}"'
            )
        return True
    value = attr_dict[attr_key]
    for item in [value] if np.isscalar(value) else value:
        _check_value(op_name, attr_key, item, val_type, cond)
    return True


def check_valid_attributes(
    op_name: str,
    attributes: dict[str, Any],
    requirements: list[tuple[str, bool, Any, Callable[[Any], bool] | None]],
) -> bool:
    """`check_valid_attribute` for each (name, whether it is required, type, condition)."""
    for attr, required, val_type, cond in requirements:
        check_valid_attribute(op_name, attributes, attr, val_type, cond, required)
    return True


def is_positive_value(value: Any) -> bool:
    """value > 0"""
    return value > 0


def is_non_negative_value(value: Any) -> bool:
    """value >= 0"""
    return value >= 0
