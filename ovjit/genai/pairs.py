"""Pairs of texts by a tokenizer of one input: its template for pairs, put together in Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np


def read_pair_template(model: Any) -> list[tuple[int, int]] | None:
    """The tokens of a pair and their types, with -1 and -2 for those of the two texts. None if the tokenizer
    does not say."""
    key = "processed_post_processor_template"
    if not model.has_rt_info(key):
        return None
    try:
        pair = json.loads(str(model.get_rt_info(key).value))["pair"]
        template = [(int(i), int(kind)) for i, kind in zip(pair["ids"], pair["type_ids"], strict=True)]
    except (ValueError, KeyError, TypeError):
        return None
    return template if sorted(i for i, _ in template if i < 0) == [-2, -1] else None


def truncate_pair(first: int, second: int, most: int) -> tuple[int, int]:
    """The lengths of two texts of together at most `most` tokens: the longer one is cut first."""
    if first + second <= most:
        return first, second
    low, high = sorted((first, second))
    high = low if low > most else max(low, most - low)
    if low + high > most:
        low, high = most // 2, most - most // 2
    return (high, low) if first >= second else (low, high)


def join_pairs(
    columns: Sequence[Sequence[Sequence[int]]], template: Sequence[tuple[int, int]], most: int | None
) -> list[list[tuple[int, int]]]:
    """The tokens of each pair and their types by the template, at most `most` if it is not None. A column
    with one text goes with all of the other."""
    count = max(map(len, columns))
    firsts, seconds = (list(column) * (count if len(column) == 1 else 1) for column in columns)
    rows = []
    for first, second in zip(firsts, seconds, strict=True):
        sizes = len(first), len(second)
        if most is not None:
            sizes = truncate_pair(*sizes, max(most - len(template) + 2, 0))
        row: list[tuple[int, int]] = []
        for token, kind in template:
            tokens = [token] if token >= 0 else (first, second)[-token - 1][: sizes[-token - 1]]
            row += [(each, kind) for each in tokens]
        rows.append(row)
    return rows


def pad(rows: Sequence[Sequence[tuple[int, int]]], length: int, fill: int, right: bool) -> np.ndarray:
    """[3, rows, length]: tokens, their types, their mask; the length of the longest row if it is larger."""
    length = max([length, *map(len, rows)])
    values = np.zeros((3, len(rows), length), np.int64)
    values[0] = fill
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if right else slice(length - len(row), length)
        values[:2, i, columns], values[2, i, columns] = np.array(row, np.int64).reshape(-1, 2).T, 1
    return values
