"""Versions of builds, as programs that choose by them read them."""

from __future__ import annotations

import re


def extract_release_version(version: str) -> tuple[str | None, str | None]:
    """The first two numbers of a release, each None for another build."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (match[1], match[2]) if match else (None, None)


def simplify_version(version: str) -> str:
    """A release's first two numbers with a dot between them; "custom" for another build."""
    year, release = extract_release_version(version)
    return "custom" if year is None else f"{year}.{release}"


def extract_hash_from_version(full_version: str) -> str | None:
    """The hash of the commit that a version names, or None."""
    match = re.search(r"[-_]([a-f0-9]{7,40})(?![a-zA-Z0-9])", full_version)
    return match[1] if match else None
