"""Passes run one after the other."""

from __future__ import annotations

from typing import Any

from ovjit.api.arguments import explain_calls
from ovjit.api.model.model import Model, check_model
from ovjit.api.model.node import GRAPH_LOCK
from ovjit.compat.passes.base import PassBase
from ovjit.errors import no_such_form


@explain_calls
class Manager:
    """Runs passes one after the other."""

    def __init__(self) -> None:
        self.passes_list: list[PassBase] = []
        self._validates = True

    def register_pass(self, *args: Any, **kwargs: Any) -> PassBase:
        """Add a pass, and return it. TypeError for other objects."""
        passes = [*args, *kwargs.values()]
        if len(passes) != 1 or not isinstance(passes[0], PassBase):
            raise no_such_form("register_pass takes one pass: a ModelPass, a MatcherPass or another PassBase")
        self.passes_list.append(passes[0])
        return passes[0]

    def set_per_pass_validation(self, new_state: bool) -> None:
        """Whether types are inferred anew after each pass that has changed something."""
        self._validates = bool(new_state)

    def run_passes(self, model: Model) -> None:
        """Run all passes on a model. Exceptions of passes propagate."""
        check_model(model)
        with GRAPH_LOCK:
            for one in self.passes_list:
                changed = one._run(model)
                if changed and self._validates:
                    model.validate_nodes_and_infer_types()

    def __repr__(self) -> str:
        return "<Manager>"
