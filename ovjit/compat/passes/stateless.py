"""Variables made into inputs and outputs of the model."""

from __future__ import annotations

from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.compat.passes.probe import inputs_named
from ovjit.errors import ModelError


def make_stateless(model: Model) -> None:
    """Each ReadValue becomes a parameter `<variable>.input`, each Assign a result `<variable>.output`.

    What a variable began with is the caller's to pass from then on. RuntimeError for a model that has no
    input `beam_idx`, which tells a language model's states from others, or whose variable is read but not
    assigned.
    """
    if not inputs_named(model, "beam_idx"):
        raise ModelError(
            "Stateful models without `beam_idx` input are not supported in StatefulToStateless transformation"
        )
    nodes = model.get_ordered_ops()
    reads = {n._attrs["variable_id"]: n for n in nodes if n._op.role == "read"}
    assigns = {n._attrs["variable_id"]: n for n in nodes if n._op.role == "assign"}
    for name, read in reads.items():
        if name not in assigns:
            raise ModelError(f"the variable {name!r} is read but never assigned")
        tensor = read._tensors[0]._type
        parameter = Parameter._of(tensor.dtype, tensor.shape, f"{name}.input")
        parameter._tensors[0]._names = {f"{name}.input"}
        read.output(0).replace(parameter.output(0))
        result = Result._of(assigns[name].input_value(0), f"{name}.output")
        result._tensors[0]._names = result._tensors[0]._names | {f"{name}.output"}
        model.add_parameters([parameter])
        model.add_results([result])
        model.remove_sink(assigns[name])
        assigns[name].input_value(0)._node._forget_user(assigns[name])
    for variable in model.get_variables():
        if variable.info.variable_id in reads:
            model.remove_variable(variable)
