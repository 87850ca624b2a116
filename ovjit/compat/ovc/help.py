"""The options of `ovc` as its help describes them."""

from __future__ import annotations

from typing import Any

from ovjit.records import NamedTuple


class ParamDescription(NamedTuple):
    """The description of an argument of `convert_model`, and that of the command's option if it differs."""

    description: str
    cli_tool_description: str | None = None


#: The group's title and its arguments. Those of `FUNCTION_ONLY` are no options of the command.
PARAMETERS: dict[str, dict[str, ParamDescription]] = {
    "Optional parameters:": {
        "input_model": ParamDescription("The model: a file's path, its contents, or an object.",
                                        "The file of the model."),
        "input": ParamDescription(
            "What inputs are to be: names, shapes, types, tuples of these, or a dict by name.",
            "Names of inputs with shapes in brackets, between commas: a[1,9],b[?,3..5]; or shapes alone."),
        "output": ParamDescription("Names of the tensors that are to be the outputs, in this order.",
                                   "The same, between commas."),
        "example_input": ParamDescription("What a PyTorch module is traced with."),
        "extension": ParamDescription("Extensions that add operations or conversions, or a list of these.",
                                      "Paths of libraries with extensions; they are not loaded."),
        "verbose": ParamDescription("Say what is converted and how long it took."),
        "share_weights": ParamDescription("Whether weights may stay where they are; they are never changed."),
        "dynamo": ParamDescription("Taken for a PyTorch module, which is traced either way."),
    }
}  # fmt: skip
FUNCTION_ONLY = ("input_model", "example_input", "share_weights")


def get_convert_model_help_specifics() -> dict[str, dict[str, Any]]:
    """Options of the command that are not only a text."""
    return {
        "verbose": {"action": "store_true"},
        "dynamo": {"action": "store_true"},
    }
