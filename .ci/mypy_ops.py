"""A plugin that tells mypy what `@op` does: the functions in the class's body are not methods.

They take inputs, not `self`, which mypy would give the class's type. Here the class gets a base that is not
known, which makes that first argument fit everywhere; everything else in the bodies is checked as usual.
"""

from collections.abc import Callable

from mypy.plugin import ClassDefContext, Plugin


class OpDeclarations(Plugin):
    """Classes decorated with `ovjit.graph.op.op`."""

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        return _open if fullname == "ovjit.graph.op.op" else None


def _open(context: ClassDefContext) -> bool:
    context.cls.info.fallback_to_any = True
    return True


def plugin(version: str) -> type[Plugin]:
    return OpDeclarations
