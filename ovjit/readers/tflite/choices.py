"""Options of TensorFlow Lite's operators that are members of an enumeration of the schema."""

from __future__ import annotations

from typing import Any

from ovjit.readers.choices import unknown_choice
from ovjit.readers.tflite.file import OperatorRow, names_of

#: Option -> the schema's enumeration. An option has the same meaning in all operators that have it.
ENUMERATIONS = {
    "Algorithm": "RngAlgorithm", "Combiner": "CombinerType", "CompareType": "StablehloComparisonType",
    "ComparisonDirection": "StablehloComparisonDirection", "CompositeAttributesFormat": "CustomOptionsFormat",
    "FusedActivationFunction": "ActivationFunctionType", "IdxOutType": "TensorType",
    "InDataType": "TensorType", "KernelType": "LSTMKernelType", "KeyDtype": "TensorType",
    "Mode": "MirrorPadMode", "OutDataType": "TensorType", "OutType": "TensorType", "OutputType": "TensorType",
    "Padding": "Padding", "QuantizedBiasType": "TensorType", "Type": "LSHProjectionType",
    "ValueDtype": "TensorType", "WeightsFormat": "FullyConnectedOptionsWeightsFormat",
}  # fmt: skip


def check_options(row: OperatorRow) -> None:
    """Raise ModelError, with the choices, for an option that is no member of its enumeration."""
    for name, enumeration in ENUMERATIONS.items():
        getter: Any = getattr(row.options, name, None)
        if getter is None:
            continue
        value, members = getter(), names_of(enumeration)
        if value not in members:
            raise unknown_choice(
                name, value, (f"{number} ({word})" for number, word in sorted(members.items()))
            )
