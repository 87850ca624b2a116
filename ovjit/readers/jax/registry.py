"""Which function reads which primitive of JAX."""

from __future__ import annotations

from ovjit.readers.rows import Rows

_ROWS = Rows("jax", ("control", "elementwise", "indexing", "linear", "shapes", "windows"))

#: Decorator: `primitive("add", ...)` above the function that reads equations of these primitives.
primitive = _ROWS.reads
primitives = _ROWS.read
find_rule = _ROWS.find
known_primitives = _ROWS.known
