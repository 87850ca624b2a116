"""The options of `ovc` as its help describes them."""

#: Arguments of `convert_model` -> the help of the command's option, None for arguments that are no options.
PARAMETERS = {
    "input_model": None,
    "input": "Names of inputs with shapes in brackets, between commas: a[1,9],b[?,3..5]; or shapes alone.",
    "output": "Names of the tensors that are to be the outputs, in this order, between commas.",
    "example_input": None,
    "extension": "Paths of libraries with extensions; they are not loaded.",
    "verbose": "Say what is converted and how long it took.",
    "share_weights": None,
    "dynamo": "Taken for a PyTorch module, which is traced either way.",
}
