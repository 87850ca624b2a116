"""Reads OpenVINO's texts of dicts of properties, such as `{CPU:{NUM_STREAMS:2},GPU:{}}`."""

from __future__ import annotations

from typing import Any


def read_dict(text: str) -> dict[str, Any]:
    """The dict that is written as `{A:1,B:{C:2}}`; "" is an empty one.

    Values are texts or dicts. Spaces and double quotes around names and texts are left out, so simple JSON is
    read, too. Raises ValueError for other texts.
    """
    text = text.strip()
    if not text:
        return {}
    if text[0] != "{" or text[-1] != "}":
        raise ValueError(f"{text!r} has no braces around it")
    values: dict[str, Any] = {}
    inside = text[1:-1]
    for item in _split_items(inside) if inside.strip() else ():
        name, colon, value = (part.strip() for part in item.partition(":"))
        if not colon:
            raise ValueError(f"{item!r} is not NAME:VALUE")
        values[name.strip('"')] = read_dict(value) if value[:1] == "{" else value.strip('"')
    return values


def _split_items(text: str) -> list[str]:
    """The parts between the commas that no braces enclose."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            break
        if letter == "," and not depth:
            items.append("")
        else:
            items[-1] += letter
    if depth:
        raise ValueError(f"{text!r} has braces without a partner")
    return items
