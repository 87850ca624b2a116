"""The language of rules for operators of other domains than the standard's, see `ovjit.readers.onnx`."""

from ovjit.readers.onnx.rule_language import *

#: The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"


def ms(name: str) -> Any:
    """Decorator: the function reads operator `name` of `MICROSOFT`."""
    return onnx_op(name, domain=MICROSOFT)


def ml(name: str, since: int = 1) -> Any:
    """Decorator: the function reads operator `name` of ai.onnx.ml."""
    return onnx_op(name, since, "ai.onnx.ml")
