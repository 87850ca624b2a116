"""Passes over a Model: their root, and passes over a whole Model."""

from __future__ import annotations

from ovjit.api.arguments import explain_calls
from ovjit.api.model.model import Model
from ovjit.errors import ModelError


@explain_calls
class PassBase:
    """Base class of the passes that a Manager runs. The name is that of the class unless another is set."""

    _name = ""

    def get_name(self) -> str:
        """The name: the one that was set, OpenVINO's for built-in passes, else the class's."""
        kind = type(self)
        is_own = kind.__module__.startswith(__package__ or "ovjit.passes")
        return self._name or (f"ov::pass::{kind.__name__}" if is_own else self._usual_name())

    def _usual_name(self) -> str:
        return type(self).__name__

    def set_name(self, name: str) -> None:
        """Change the name."""
        self._name = name

    def _run(self, model: Model) -> bool:
        raise ModelError(f"{self.get_name()} has nothing to run: derive from ModelPass or MatcherPass")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@explain_calls
class ModelPass(PassBase):
    """A pass over a whole Model: derive from it, and write `run_on_model`."""

    def run_on_model(self, model: Model) -> bool:
        """Edit the model; True if it was changed."""
        raise ModelError('Tried to call pure virtual function "ov::pass::ModelPass::run_on_model": '
                         f"{type(self).__name__} does not override run_on_model")  # fmt: skip

    def _usual_name(self) -> str:
        return "PyModelPass"

    def _run(self, model: Model) -> bool:
        return bool(self.run_on_model(model))
