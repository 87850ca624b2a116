"""Registry of the functions that read JAX's primitives."""

from ovjit.readers.rows import RuleTable

_FAMILIES = ("complex", "control", "elementwise", "indexing", "linear", "random", "shapes", "windows")
_ROWS = RuleTable("jax", _FAMILIES)
#: Where operands or results are complex numbers or keys, see `parts`.
_OF_PARTS = RuleTable("jax", _FAMILIES)

#: Decorator: `primitive("add", ...)` above the function that reads equations of these primitives.
primitive = _ROWS.reads
primitives = _ROWS.read
find_rule = _ROWS.find
of_parts = _OF_PARTS.reads
find_rule_of_parts = _OF_PARTS.find
known_primitives = _ROWS.list_names
