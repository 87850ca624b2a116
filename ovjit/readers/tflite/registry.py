"""Registry of the functions that read operators, keyed by the schema's name of a builtin operator."""

from ovjit.readers.rows import RuleTable

_ROWS = RuleTable(
    "tflite", ("control", "convolution", "detection", "elementwise", "image", "recurrent", "reduce", "tensor")
)

#: Decorator: `tflite_op("ADD", ...)` above the function that reads these operators.
tflite_op = _ROWS.reads
tflite_ops = _ROWS.read
find_rule = _ROWS.find
known_operators = _ROWS.list_names
